r"""Image models: a chain of ever simpler views of an image, and one autoregressive factor for each link.

With `x_0 = x` and `x_k = a_k(x_{k-1})` for the auxiliary variables `a_1, ..., a_K`,

    log p(x) >= log p(x_0, ..., x_K) = log p(x_K) + sum_k log p(x_{k-1} | x_k).

A *consistent* model divides the distribution of each sub-pixel by its mass on those values that still allow the next
view. Then the bound is an equality: in `p(x) = sum over x_1, ..., x_K of p(x, x_1, ..., x_K)` every term is zero but
that of the views of x.

An empty chain is PixelCNN++. Factor k models the view x_k given x_{k+1}; the last factor has nothing to be given.
Factors share no parameters, so each can be trained alone.

What a view says of an image, the network need not find out: the means of a pixel are counted from it, so that a fresh
network that gives zeros already draws the enlarged, or grey, view. The paper does without.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), equations 2 to 5.
"""

__all__ = [
    "BitsPerDim",
    "Factor",
    "GrayscalePixelCNN",
    "ImageModel",
    "PixelCNN",
    "PyramidPixelCNN",
    "check_images",
    "evaluating",
]

import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple, cast

import torch
from huggingface_hub import PyTorchModelHubMixin
from torch import Tensor, nn

from pixelcnn.auxiliary import Auxiliary, Downsample, QuantizedGrayscale
from pixelcnn.embedding import EmbeddingNetwork
from pixelcnn.layers import initialize
from pixelcnn.likelihoods import Categorical, Likelihood, LogisticMixture, check_format, check_whole
from pixelcnn.network import CausalNetwork

PerFactor = int | Sequence[int]
LARGE = 2**20  # pixels that are scored at once only after a look at the memory
MOST_CATEGORICAL_LEVELS = 16  # the paper's 4-bit grey view; with more levels their order is worth knowing


class BitsPerDim(NamedTuple):
    """Bits for each sub-pixel of the image x_0: the factors add up to the total."""

    total: Tensor  # (B,)
    factors: Tensor  # (B, K + 1), the finest view first


class Factor(nn.Module):
    """One link of the chain: a likelihood on a causal network, given the embedding of the next view if there is one.

    Args:
        likelihood: the distribution of a pixel.
        network: maps an image to the likelihood's parameters at each pixel.
        embedding: maps the auxiliary image to the network's context; None for the last view of a chain.
        variable: the auxiliary variable whose value the auxiliary image is. The means of the likelihood are counted
            from what it says of the image (`Auxiliary.guess`), so that the network need not learn to copy.
        constraint: the same, where the image certainly has this auxiliary image; None to leave that free.
        classes: the number of class labels, 0 for none. Each is a learned vector that is added to the context.
        context: channels of the context.
    """

    def __init__(
        self,
        likelihood: Likelihood,
        network: CausalNetwork,
        embedding: EmbeddingNetwork | None = None,
        *,
        variable: Auxiliary | None = None,
        constraint: Auxiliary | None = None,
        classes: int = 0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.likelihood, self.network, self.embedding = likelihood, network, embedding
        self.variable, self.constraint = variable, constraint
        self.classes = nn.Embedding(classes, context) if classes else None

    @property
    def lag(self) -> int | None:
        """The smallest lag of a wavefront in which all that a pixel needs is known; None for raster order."""
        if self.network.lag is None or self.constraint is None:
            return self.network.lag
        return max(self.network.lag, self.constraint.shrinkage)

    def context(self, size: tuple[int, int], auxiliary: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """All that the pixels of an image (H, W) are given: (B, context, H, W), (B, context, 1, 1) or None.

        Raises:
            ValueError: where the auxiliary image is missing, needless or of the wrong shape.
        """
        context = None
        if self.embedding is not None:
            expected = self.embedding.channels, *(-(-side // self.embedding.upsample) for side in size)
            if auxiliary is None or auxiliary.shape[1:] != expected:
                shape = None if auxiliary is None else tuple(auxiliary.shape)
                raise ValueError(f"auxiliary of shape {shape}: an image of {size} is given one of (B, *{expected})")
            context = self.embedding(auxiliary, size)
        elif auxiliary is not None:
            raise ValueError(
                f"auxiliary of shape {tuple(auxiliary.shape)}: this factor is given no image; leave it out"
            )
        return self.add_class(context, labels)

    def add_class(self, context: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """An embedding (B, context, H, W) with the vectors of the labels; these alone, (B, context, 1, 1), for None."""
        if self.classes is None:
            return context
        vector = self.classes(labels)[:, :, None, None]
        return vector if context is None else context + vector

    def guess(self, size: tuple[int, int], auxiliary: Tensor | None) -> Tensor | None:
        """What the means of an image (H, W) are counted from, (B, C, H, W); None for zero."""
        if self.variable is None or auxiliary is None:
            return None
        return self.variable.guess(auxiliary, self.likelihood.channels, size, self.likelihood.levels)

    def params(self, x: Tensor, auxiliary: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """The likelihood's parameters at each pixel given those before it: integers (B, C, H, W) to (B, P, H, W).

        Raises:
            ValueError: where the auxiliary image does not fit.
        """
        H, W = x.shape[-2:]
        return self.count_from_guess(self.network(x, self.context((H, W), auxiliary, labels)), auxiliary)

    def count_from_guess(self, params: Tensor, auxiliary: Tensor | None) -> Tensor:
        """What the network gives, (B, P, H, W), with the means counted from what the auxiliary image says."""
        H, W = params.shape[-2:]
        guess = self.guess((H, W), auxiliary)
        return params if guess is None else self.likelihood.count_from(params, guess)

    def pixel_log_prob(self, x: Tensor, auxiliary: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Log-probability of each pixel given those before it, in nats: integers (B, C, H, W) to (B, H, W).

        Raises:
            ValueError: where the auxiliary image does not fit, or is not the image's view and has to be.
        """
        params = self.params(x, auxiliary, labels)
        if self.constraint is not None and auxiliary is not None and not torch.compiler.is_compiling():
            self.constraint.check(x, auxiliary, self.likelihood.levels)
        return self.log_prob_of(params, x, auxiliary)

    def log_prob_of(self, params: Tensor, x: Tensor, auxiliary: Tensor | None) -> Tensor:
        """Log-probability of each pixel under parameters (B, P, H, W), in nats; the auxiliary image is the image's."""
        if self.constraint is None or auxiliary is None:
            return self.likelihood.log_prob(params, x)
        return self.likelihood.log_prob(params, x, self.constraint.bounds(x, auxiliary, self.likelihood.levels))

    def forward(self, x: Tensor, auxiliary: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Log-probability of each image, in nats: integers (B, C, H, W) to (B,)."""
        return self.pixel_log_prob(x, auxiliary, labels).sum((1, 2))

    def initialize(self, x: Tensor, auxiliary: Tensor | None = None, labels: Tensor | None = None) -> None:
        """Data-dependent initialisation from one batch (see `pixelcnn.layers.initialize`).

        What the network gives has, on this batch, the means and deviations that the likelihood begins with.
        """
        initialize(self, x, auxiliary, labels)
        last = self.network.last
        means, deviations = (start.to(last.bias) for start in self.likelihood.start())
        with torch.no_grad():
            last.gain.mul_(deviations)
            last.bias.mul_(deviations).add_(means)


def check_images(x: object, channels: int, levels: int, name: str = "x") -> None:
    """Raise a ValueError for anything but integers (B, channels, H, W) in [0, levels)."""
    if not isinstance(x, Tensor):
        raise ValueError(f"{name} of type {type(x).__name__}: use a tensor of images (B, {channels}, H, W)")
    if x.dim() != 4 or x.shape[1] != channels or 0 in x.shape[2:]:
        raise ValueError(f"{name} of shape {tuple(x.shape)}: use images (B, {channels}, H, W)")
    if x.is_floating_point() or x.is_complex() or x.dtype == torch.bool:
        raise ValueError(f"{name} of type {x.dtype}: use integers in [0, {levels}), such as torch.uint8")
    if x.numel() and not (int(x.min()) >= 0 and int(x.max()) < levels):
        raise ValueError(f"{name} with values from {int(x.min())} to {int(x.max())}: use integers in [0, {levels})")


@contextmanager
def evaluating(model: nn.Module) -> Iterator[None]:
    """Without dropout and without gradients; afterwards the model is in the mode it was in."""
    training = model.training
    model.eval()
    try:
        with torch.no_grad():
            yield
    finally:
        model.train(training)


class ImageModel(nn.Module, PyTorchModelHubMixin, library_name="pixelcnn", tags=["image-generation", "pixelcnn"]):
    """A model of integer images (B, channels, H, W) of any size, with values in [0, levels).

    Where an argument is given for each factor, a single number stands for all of them, and a sequence begins with the
    factor of the image itself.

    Args:
        channels, levels: of the images: 1 or 3, and 256 for 8 bits.
        auxiliaries: the chain a_1, ..., a_K, from the image to its simplest view; empty for PixelCNN++.
        components: logistics in the mixture of a pixel. A view of one channel and at most 16 levels has a free
            probability for each level instead.
        filters, blocks, scales: of the causal network, for each of the K + 1 factors (see `CausalNetwork`).
        embedding_filters, embedding_blocks, embedding_scales: of the embedding network, for each of the first K factors
            (see `EmbeddingNetwork`). By default it has the filters of its factor.
        dropout: in all residual blocks, during training.
        classes: number of class labels; 0 for a model of images alone.
        consistent: whether each factor gives probability only to images that have the next view. False is the paper's
            way, and the log-probability a lower bound.

    Raises:
        ValueError: for an argument that is out of range, or a sequence of another length than the chain asks for.
    """

    def __init__(
        self,
        channels: int = 3,
        levels: int = 256,
        auxiliaries: Sequence[Auxiliary] = (),
        *,
        components: int = 10,
        filters: PerFactor = 160,
        blocks: PerFactor = 5,
        scales: PerFactor = 3,
        embedding_filters: PerFactor | None = None,
        embedding_blocks: PerFactor = 3,
        embedding_scales: PerFactor = 2,
        dropout: float = 0.5,
        classes: int = 0,
        consistent: bool = True,
    ) -> None:
        super().__init__()
        check_format(channels, levels)
        check_whole(components=components)
        check_whole(classes=classes, at_least=0)
        if not isinstance(auxiliaries, list | tuple) or not all(isinstance(a, Auxiliary) for a in auxiliaries):
            raise ValueError(f"auxiliaries={auxiliaries!r}: use a list such as [Downsample(2), QuantizedGrayscale(4)]")
        K = len(auxiliaries)
        filters = _per_factor(K + 1, filters=filters)
        blocks = _per_factor(K + 1, blocks=blocks)
        scales = _per_factor(K + 1, scales=scales)
        embedding_filters = filters[:K] if embedding_filters is None else embedding_filters
        embedding_filters = _per_factor(K, embedding_filters=embedding_filters)
        embedding_blocks = _per_factor(K, embedding_blocks=embedding_blocks)
        embedding_scales = _per_factor(K, embedding_scales=embedding_scales)
        if not isinstance(dropout, int | float) or not 0 <= dropout < 1:
            raise ValueError(f"dropout={dropout!r}: use a number of at least 0 and below 1")
        self.auxiliaries, self.dropout, self.classes = tuple(auxiliaries), dropout, classes
        self.config: dict[str, Any] = {
            "channels": channels,
            "levels": levels,
            "auxiliaries": [{"name": type(a).__name__, **asdict(a)} for a in self.auxiliaries],  # pyright: ignore
            "components": components,
            "filters": filters,
            "blocks": blocks,
            "scales": scales,
            "embedding_filters": embedding_filters,
            "embedding_blocks": embedding_blocks,
            "embedding_scales": embedding_scales,
            "dropout": dropout,
            "classes": classes,
            "consistent": consistent,
        }
        self._hub_mixin_config = self.config

        self.formats = [(channels, levels)]
        for auxiliary in self.auxiliaries:
            self.formats.append(auxiliary.view_format(*self.formats[-1]))
        made = nn.ModuleList(self._make_factor(k) for k in range(K + 1))
        self.factors = cast("list[Factor]", made)  # a module list is not generic, so a type checker needs the cast
        self.consistent = consistent

    def _make_factor(self, k: int) -> Factor:
        """Factor k, with fresh weights."""
        config, (channels, levels) = self.config, self.formats[k]
        likelihood = _likelihood(channels, levels, config["components"])
        embedding = variable = None
        context = config["filters"][k] if self.classes else 0
        if k < len(self.auxiliaries):
            variable, context = self.auxiliaries[k], config["embedding_filters"][k]
            embedding = EmbeddingNetwork(
                *self.formats[k + 1],
                filters=context,
                blocks=config["embedding_blocks"][k],
                scales=config["embedding_scales"][k],
                upsample=variable.shrinkage,
                dropout=self.dropout,
            )
        network = CausalNetwork(
            channels,
            levels,
            likelihood.num_params,
            filters=config["filters"][k],
            blocks=config["blocks"][k],
            scales=config["scales"][k],
            context=context,
            dropout=self.dropout,
        )
        return Factor(likelihood, network, embedding, variable=variable, classes=self.classes, context=context)

    @property
    def consistent(self) -> bool:
        """Whether images have the views that they are drawn given. A trained model can be evaluated either way."""
        return self.config["consistent"]

    @consistent.setter
    def consistent(self, consistent: bool) -> None:
        if not isinstance(consistent, bool):
            raise ValueError(f"consistent={consistent!r}: use True or False")
        self.config["consistent"] = consistent
        for factor, auxiliary in zip(self.factors, self.auxiliaries, strict=False):
            factor.constraint = auxiliary if consistent else None

    @property
    def levels(self) -> int:
        """The values of a sub-pixel are in [0, levels)."""
        return self.formats[0][1]

    def of_view(self, k: int) -> "ImageModel":
        """The model of view k alone, with the same factors, not copies of them: what is left of the chain from there.

        So the views of an image can be scored, sampled and trained on images that exist at their size only. Training
        puts averaged factors into the model that it is given: `model.factors[k] = trained.factors[0]` brings one back.
        As factors are shared, so is whether they are consistent: set it on one of the two, and make the other anew.
        """
        if not 0 <= k < len(self.factors):
            raise ValueError(f"k={k!r}: this model has the views 0 to {len(self.factors) - 1}")
        channels, levels = self.formats[k]
        sizes = {name: value[k:] for name, value in self.config.items() if isinstance(value, list)}
        own = {"channels": channels, "levels": levels, "auxiliaries": self.auxiliaries[k:]}
        arguments: dict[str, Any] = self.config | sizes | own
        with torch.device("meta"):  # its own factors are neither made nor drawn
            model = ImageModel(**arguments)
        model.factors = cast("list[Factor]", cast(nn.ModuleList, self.factors)[k:])
        return model.train(self.training)

    def sizes(self, size: tuple[int, int]) -> list[tuple[int, int]]:
        """(H, W) of every view of an image of that (H, W), the image first."""
        sizes = [size]
        for auxiliary in self.auxiliaries:
            sizes.append(auxiliary.view_size(sizes[-1]))
        return sizes

    def views(self, x: Tensor) -> list[Tensor]:
        """The chain x_0 = x, ..., x_K of integer images, each made from the one before.

        Raises:
            ValueError: where `x` is not (B, channels, H, W), not of an integer type, or has values out of range.
        """
        check_images(x, *self.formats[0])
        views = [x]
        for auxiliary, (_, levels) in zip(self.auxiliaries, self.formats, strict=False):
            views.append(auxiliary(views[-1], levels))
        return views

    def links(self, x: Tensor) -> list[tuple[Tensor, Tensor | None]]:
        """What each factor models and what it is given: (x_0, x_1), ..., (x_K, None)."""
        views = self.views(x)
        return list(zip(views, [*views[1:], None], strict=True))

    def check_labels(self, labels: Tensor | None, number: int) -> Tensor | None:
        """The labels (number,) on the model's device; a ValueError where they do not fit a model with these classes."""
        if not self.classes:
            if labels is not None:
                raise ValueError(f"labels={labels!r}: this model has no classes; leave the labels out")
            return None
        if isinstance(labels, Tensor) and not labels.is_floating_point() and labels.shape == (number,):
            labels = labels.to(next(self.parameters()).device, torch.int64)
            if ((labels >= 0) & (labels < self.classes)).all():
                return labels
        wanted = f"a tensor of {number} whole numbers in [0, {self.classes}), one for each image"
        raise ValueError(f"labels={labels!r}: use {wanted}")

    def _factor_log_probs(self, x: Tensor, labels: Tensor | None) -> Tensor:
        """Log-probabilities in nats, (B, K + 1)."""
        check_images(x, *self.formats[0])
        labels = self.check_labels(labels, len(x))
        B, _, H, W = x.shape
        if B * H * W > LARGE and not torch.compiler.is_compiling():
            from pixelcnn.memory import check_whole_memory  # which asks about models, so it cannot come first

            check_whole_memory(self, B, (H, W))
        links = zip(self.factors, self.links(x), strict=True)
        return torch.stack([factor(view, auxiliary, labels) for factor, (view, auxiliary) in links], 1)

    def log_prob(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        """`log p(x_0, ..., x_K)` in nats: integers (B, C, H, W) to (B,).

        That is `log p(x)` of a consistent model or an empty chain, and a lower bound on it of others. Images are scored
        in one piece, so that the result is differentiable: `pixelcnn.surprise` needs less memory for large ones.

        Args:
            x: images of any size.
            labels: (B,) int64 class labels, for a model with classes.

        Raises:
            MemoryError: where large images need more memory than is free.
        """
        return self._factor_log_probs(x, labels).sum(1)

    forward = log_prob

    def bits_per_dim(self, x: Tensor, labels: Tensor | None = None) -> BitsPerDim:
        """Negative log-probability in bits for each sub-pixel of `x`: in total, and what each factor adds to it."""
        factors = self._factor_log_probs(x, labels) / (-math.log(2) * math.prod(x.shape[1:]))
        return BitsPerDim(factors.sum(1), factors)

    def sample(
        self,
        n: int = 1,
        size: int | tuple[int, int] = 32,
        seed: int = 0,
        scale_shift: float = 0.0,
        map: bool = False,
        labels: Tensor | None = None,
    ) -> Tensor:
        """Draw n images (n, C, H, W) of type uint8; see `pixelcnn.sampling.sample`, which also gives the views."""
        from pixelcnn.sampling import sample  # sampling is made of models, so it cannot come first

        return sample(self, n, size, seed=seed, scale_shift=scale_shift, map=map, labels=labels)[0]

    def _save_pretrained(self, save_directory: Path) -> None:
        from pixelcnn.checkpoint import save  # for the same reason

        save(self, save_directory)

    @classmethod
    def _from_pretrained(cls, *, model_id: str, **options: Any) -> "ImageModel":  # pyright: ignore[reportIncompatibleMethodOverride]
        from pixelcnn.checkpoint import load  # for the same reason

        return load(model_id, **{k: options[k] for k in ("revision", "cache_dir", "token", "local_files_only")})


class PixelCNN(ImageModel):
    """PixelCNN++: no auxiliary variable; three scales, five blocks a scale, 160 filters, as published."""

    def __init__(self, **arguments: Any) -> None:
        super().__init__(**arguments)


class GrayscalePixelCNN(ImageModel):
    """The image given its grey view of a few bits, and that view: both shaped as PixelCNN++, the former less deep.

    The paper has "24 residual blocks instead of 36" (as recalled) for the colours and their embedding, where the code
    of PixelCNN++ has 5 blocks a scale; it is read here as 4 instead of 6 blocks a scale and direction.
    """

    def __init__(self, bits: int = 4, **arguments: Any) -> None:
        chosen: dict[str, Any] = {"blocks": (4, 5), "embedding_blocks": 4, "embedding_scales": 3}
        super().__init__(auxiliaries=[QuantizedGrayscale(bits)], **chosen | arguments)


class PyramidPixelCNN(ImageModel):
    """An image, given it at half the size, and so on `depth` times: plain networks of three blocks and 100 filters.

    Each embedding has 15 blocks (as recalled). The paper models 128x128 faces with `depth=4`, from 8x8.
    """

    def __init__(self, depth: int = 4, **arguments: Any) -> None:
        check_whole(depth=depth)
        chosen: dict[str, Any] = {
            "filters": 100,
            "blocks": 3,
            "scales": 1,
            "embedding_blocks": 3,
            "embedding_scales": 2,
        }
        super().__init__(auxiliaries=[Downsample(2)] * depth, **chosen | arguments)


def _likelihood(channels: int, levels: int, components: int) -> Likelihood:
    if channels == 1 and levels <= MOST_CATEGORICAL_LEVELS:
        return Categorical(levels)
    return LogisticMixture(channels, levels, components)


def _per_factor(number: int, **argument: Any) -> list[int]:
    """One whole number for each factor, from one for all of them or a sequence."""
    ((name, value),) = argument.items()
    values: list[Any] = list(value) if isinstance(value, list | tuple) else [value] * number
    if len(values) != number:
        raise ValueError(f"{name}={value!r}: use one number, or one for each of the {number} that the chain has")
    for each in values:
        check_whole(1, **{name: each})
    return values
