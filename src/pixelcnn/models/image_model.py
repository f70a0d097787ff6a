r"""Image models: a chain of simpler and simpler views of an image, and one autoregressive factor for each link.

With `x_0 = x` and `x_k = a_k(x_{k-1})` for the auxiliary variables `a_1, ..., a_K`,

    log p(x) >= log p(x_0, ..., x_K) = log p(x_K) + sum_k log p(x_{k-1} | x_k).

A *free* model treats the next view as a hint, and this is only a bound. A *consistent* model divides the distribution
of each sub-pixel (one channel of one pixel) by its mass on the values that the next view still allows. Then the bound
is an equality: in `p(x) = sum over x_1, ..., x_K of p(x, x_1, ..., x_K)`, every term is zero except that of the views
of x.

An empty chain is PixelCNN++. Factor k models the view x_k given x_{k+1}; the last factor is given nothing. Factors
share no parameters, so each can be trained alone.

Reference: Kolesnikov & Lampert, PixelCNN models with auxiliary variables (ICML 2017), equations 2 to 5.
"""

__all__ = ["BitsPerDim", "ImageModel"]

import math
from collections.abc import Sequence
from typing import Any, NamedTuple, Unpack, cast

import torch
from torch import Tensor, nn

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.chain import check_images
from pixelcnn.common.devices import computing
from pixelcnn.data.given import ImagesLike, as_computable, take_images
from pixelcnn.models import compression, sampling
from pixelcnn.models.base import ChainModel, LabelsLike
from pixelcnn.models.config import MOST_PARAMETERS, ModelConfig, ModelOptions
from pixelcnn.models.factor import Factor
from pixelcnn.models.memory import IN_TILES, check_whole_memory
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.embedding import EmbeddingNetwork

LARGE = 2**20  # from this many pixels on, check the free memory before scoring them at once


class BitsPerDim(NamedTuple):
    """Bits per sub-pixel of the image x_0. The factors add up to the total."""

    total: Tensor  # (B,)
    factors: Tensor  # (B, K + 1), the image first


class ImageModel(ChainModel):
    """A model of integer images (B, channels, H, W) of any size, with values in [0, levels).

    Options for each factor are either one number for all factors, or a sequence that begins with the factor of the
    image itself.

    Args:
        channels, levels: of the images: 1 or 3 channels, and 256 levels for 8 bits.
        auxiliaries: the chain a_1, ..., a_K, from the image to its simplest view; empty for PixelCNN++.
        likelihoods: the distribution of a pixel for each of the K + 1 views, or None for the default. That is a
            `LogisticMixture`, or a `Categorical` for views with one channel and at most 16 levels.
        components: the number of logistics in the mixture of a pixel.
        log_scales: the lowest and the highest log-scale of a logistic, each None for no limit (see `LogisticMixture`).
        filters, blocks, scales: of the causal network, for each of the K + 1 factors (see `CausalNetwork`).
        embedding_filters, embedding_blocks, embedding_scales: of the embedding network, for each of the first K factors
            (see `EmbeddingNetwork`). By default, it has as many filters as the causal network.
        dropout: fraction of the hidden units that training drops in every residual block.
        classes: the number of class labels; 0 for none.
        consistent: whether each factor gives probability only to images that have the next view. With False, as in the
            paper, the log-probability is a lower bound.
        size: of the images that the model is trained on, one number for squares or (H, W); None if unknown. Images are
            drawn at this size by default. Training sets it.

    Raises:
        ValueError: if an argument is out of range, or a sequence does not fit the length of the chain.

    Example:
        >>> import torch
        >>> from pixelcnn import Downsample, ImageModel
        >>> model = ImageModel(auxiliaries=[Downsample(2)], filters=8, blocks=1, scales=1).eval()
        >>> x = torch.randint(0, 256, (2, 3, 8, 8))
        >>> [tuple(view.shape) for view in model.views(x)]
        [(2, 3, 8, 8), (2, 3, 4, 4)]
        >>> model.log_prob(x).shape
        torch.Size([2])
    """

    def __init__(
        self,
        channels: int = 3,
        levels: int = 256,
        auxiliaries: Sequence[Auxiliary] = (),
        **options: Unpack[ModelOptions],
    ) -> None:
        super().__init__()
        self.config = ModelConfig(channels, levels, auxiliaries, **options)
        self.card: dict[str, Any] = {}
        factors = nn.ModuleList(_make_factor(self.config, k) for k in range(len(self.formats)))
        self.factors = cast("list[Factor]", factors)  # a module list is not generic, so a type checker needs the cast

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> "ImageModel":  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make a model with fresh weights from a configuration, in the form of `model.config.to_json()`.

        Raises:
            ValueError: if a field is unknown, a value is out of range, or the model is beyond the limits of files.
        """
        model = _from_config(ModelConfig.from_json(config))
        if (number := sum(parameter.numel() for parameter in model.parameters())) > MOST_PARAMETERS:
            raise ValueError(f"a model of {number} parameters: at most {MOST_PARAMETERS} can be loaded")
        return model

    def of_view(self, k: int) -> "ImageModel":
        """Return a model of view k: the part of the chain from there on, which shares its factors with this model.

        With it, you can score, sample and train on images that exist only at the size of that view. Training puts
        averaged factors into the model that it is given; `model.factors[k] = trained.factors[0]` puts one back here.

        Raises:
            ValueError: if the model has no such view.
        """
        if not 0 <= k < len(self.factors):
            raise ValueError(f"k={k!r}: this model has the views 0 to {len(self.factors) - 1}")
        with torch.device("meta"):  # so that no factors are allocated
            model = _from_config(self.config.of_view(k))
        model.factors = cast("list[Factor]", cast(nn.ModuleList, self.factors)[k:])
        model.training = self.training  # and not by `train`, which would set the modes of the factors
        return model

    def _factor_log_probs(self, x: ImagesLike, labels: LabelsLike | None, *, per_dim: bool = False) -> Tensor:
        """Compute the log-probability of each view: (B, K + 1) in nats, or in bits per sub-pixel of the image."""
        device = self.device
        if isinstance(x, Tensor) and x.dim() == 4:
            plain = as_computable(x).to(device)
            return self._batch_log_probs(plain, self.check_labels(labels, len(x)), per_dim=per_dim)
        given = take_images(x, *self.formats[0], device=device)
        checked = self.check_labels(labels, given.number)
        results = [
            self._batch_log_probs(batch, None if checked is None else checked[places], per_dim=per_dim)
            for places, batch in given.batches
        ]
        return given.joined(results)

    def _batch_log_probs(self, x: Tensor, labels: Tensor | None, *, per_dim: bool) -> Tensor:
        check_images(x, *self.formats[0])
        B, _, H, W = x.shape
        if B * H * W > LARGE and not torch.compiler.is_compiling():
            check_whole_memory(self.factors, B, self.sizes((H, W)), consistent=self.consistent)
        log_probs = []
        for factor, (view, given) in zip(self.factors, self.links(x), strict=True):
            with computing(factor, len(x) * math.prod(view.shape[2:]), IN_TILES):
                log_probs.append(factor(view, given, labels, consistent=self.consistent))
        stacked = torch.stack(log_probs, 1)
        return stacked / (-math.log(2) * math.prod(x.shape[1:])) if per_dim else stacked

    def log_prob(self, x: ImagesLike, labels: LabelsLike | None = None) -> Tensor:
        """Compute `log p(x_0, ..., x_K)` in nats: integers (B, C, H, W) to (B,).

        For a consistent model or an empty chain, this is `log p(x)`; for others, it is a lower bound. Images are scored
        in one piece, so that the result is differentiable. `pixelcnn.surprisal` needs less memory for large images.

        Args:
            x: integers (B, C, H, W) of any size, or images in any form that `pixelcnn.data.given` lists. Images of
                different sizes are scored in batches of equal size, and their results are in the order of the images.
            labels: a class label for all images, or (B,) labels, for a model with classes.

        Raises:
            ValueError: if the images or the labels do not fit the model.
            MemoryError: if large images need more memory than is free.
        """
        return self._factor_log_probs(x, labels).sum(1)

    forward = log_prob

    def bits_per_dim(self, x: ImagesLike, labels: LabelsLike | None = None) -> BitsPerDim:
        """Compute the negative log-probability in bits per sub-pixel of `x`, in total and for each factor.

        Args and errors are those of `log_prob`.
        """
        factors = self._factor_log_probs(x, labels, per_dim=True)
        return BitsPerDim(factors.sum(1), factors)

    sample = sampling.sample
    sample_views = sampling.sample_views
    colorize = sampling.colorize
    upscale = sampling.upscale
    complete = sampling.complete
    compress = compression.compress


def _from_config(config: ModelConfig) -> ImageModel:
    """Make a model with fresh weights."""
    arguments: dict[str, Any] = {name: getattr(config, name) for name in config.__dataclass_fields__}
    return ImageModel(**arguments)


def _make_factor(config: ModelConfig, k: int) -> Factor:
    """Make factor k of a model, with fresh weights."""
    channels, levels = config.chain.formats[k]
    likelihood = config.likelihood(k)
    embedding = auxiliary = None
    filters = config.of_factor("filters", k)
    context = filters if config.classes else 0
    if k < len(config.auxiliaries):
        auxiliary, context = config.auxiliaries[k], config.of_factor("embedding_filters", k)
        embedding = EmbeddingNetwork(
            *config.chain.formats[k + 1],
            filters=context,
            blocks=config.of_factor("embedding_blocks", k),
            scales=config.of_factor("embedding_scales", k),
            upsample=auxiliary.shrinkage,
            dropout=config.dropout,
        )
    network = CausalNetwork(
        channels,
        levels,
        likelihood.num_params,
        filters=filters,
        blocks=config.of_factor("blocks", k),
        scales=config.of_factor("scales", k),
        context=context,
        dropout=config.dropout,
    )
    return Factor(likelihood, network, embedding, auxiliary=auxiliary, classes=config.classes, context=context)
