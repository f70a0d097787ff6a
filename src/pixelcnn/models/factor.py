"""A factor: a likelihood on a causal network, given an embedding of the next view if there is one.

The means that the network gives are relative to what the view tells about each sub-pixel (`Auxiliary.expectation`). So
a network that gives zeros already draws the enlarged, or gray, view. The paper does not do this.
"""

__all__ = ["Factor", "Visit"]

from contextlib import nullcontext
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from pixelcnn.auxiliary.base import Auxiliary
from pixelcnn.auxiliary.cells import CellAuxiliary
from pixelcnn.auxiliary.chain import require_cells
from pixelcnn.common.devices import computing
from pixelcnn.likelihoods.base import Likelihood
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.embedding import EmbeddingNetwork
from pixelcnn.nn.layers import evaluating, initialize
from pixelcnn.traversal.loop import Fill, Watch, open_evaluator, traverse
from pixelcnn.traversal.schedule import Schedule, most_pixels, wavefront_lag

FEWER = "draw fewer images at once, or smaller ones"


@dataclass(frozen=True)
class Visit:
    """Options for visiting the pixels of a canvas.

    Args:
        schedule: "auto" is the wavefront if the network has a lag below the width of the image, else raster order.
        dtype: of cached activations and weights; by default that of the network. In the compiled kernel, torch.bfloat16
            is for the weights in raster order only. The embedding is evaluated under autocast.
        consistent: whether the fill keeps within the bounds of the given view, which may need a larger lag.
        watch: who is told of it.
        offset: whether the parameters that the fill sees are shifted by the estimate from the given view.
    """

    schedule: Schedule = "auto"
    dtype: torch.dtype | None = None
    consistent: bool = False
    watch: Watch | None = None
    offset: bool = True


class Factor(nn.Module):
    """One link of the chain: `p(x_k | x_{k+1})`, or `p(x_K)` for the last view.

    A *consistent* factor gives probability only to images that have the given view: it divides the distribution of each
    sub-pixel by its mass on the values that the view still allows. Whether to do so is an argument of each call.

    Args:
        likelihood: the distribution of a pixel.
        network: maps an image to the parameters of the likelihood at each pixel.
        embedding: maps the given view to the context of the network; None for the last view of a chain.
        auxiliary: the auxiliary variable that makes the given view; None for the last view of a chain.
        classes: the number of class labels; 0 for none. Each is a learned vector that is added to the context.
        context: channels of the context.

    Example:
        >>> import torch
        >>> from pixelcnn import Categorical
        >>> from pixelcnn.models.factor import Factor
        >>> from pixelcnn.nn.causal import CausalNetwork
        >>> likelihood = Categorical(levels=4)
        >>> network = CausalNetwork(1, 4, likelihood.num_params, filters=4, blocks=1, scales=1)
        >>> factor = Factor(likelihood, network)
        >>> factor.log_prob(torch.zeros(2, 1, 6, 6, dtype=torch.int64)).shape
        torch.Size([2])
    """

    def __init__(
        self,
        likelihood: Likelihood,
        network: CausalNetwork,
        embedding: EmbeddingNetwork | None = None,
        *,
        auxiliary: Auxiliary | None = None,
        classes: int = 0,
        context: int = 0,
    ) -> None:
        super().__init__()
        self.likelihood, self.network, self.embedding, self.auxiliary = likelihood, network, embedding, auxiliary
        self.classes = nn.Embedding(classes, context) if classes else None

    def constraint(self, *, consistent: bool) -> CellAuxiliary | None:
        """Return the auxiliary variable that bounds the sub-pixels; None if they are free.

        Raises:
            ValueError: if the auxiliary variable cannot bound them, since it is not a `CellAuxiliary`.
        """
        return require_cells(self.auxiliary) if consistent and self.auxiliary else None

    def lag(self, *, consistent: bool) -> int | None:
        """Return the smallest lag with which everything that a pixel needs is known in time; None for raster order."""
        constraint = self.constraint(consistent=consistent)
        if self.network.lag is None or constraint is None:
            return self.network.lag
        return max(self.network.lag, constraint.shrinkage)

    def context(self, size: tuple[int, int], given: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """Compute the context of an image (H, W): (B, context, H, W), (B, context, 1, 1) or None.

        Raises:
            ValueError: if the given view is missing, unneeded or of the wrong shape.
        """
        context = None
        if self.embedding is not None:
            expected = self.embedding.channels, *(-(-side // self.embedding.upsample) for side in size)
            if given is None or given.shape[1:] != expected:
                shape = None if given is None else tuple(given.shape)
                raise ValueError(f"given of shape {shape}: an image of {size} needs a view of shape (B, *{expected})")
            context = self.embedding(given, size)
        elif given is not None:
            raise ValueError(f"given of shape {tuple(given.shape)}: this factor takes no view; leave it out")
        return self.add_class(context, labels)

    def add_class(self, context: Tensor | None, labels: Tensor | None) -> Tensor | None:
        """Add the vectors of labels to an embedding (B, context, H, W), or return them alone as (B, context, 1, 1)."""
        if self.classes is None:
            return context
        vector = self.classes(labels)[:, :, None, None]
        return vector if context is None else context + vector

    def offset(self, size: tuple[int, int], given: Tensor | None) -> Tensor | None:
        """Estimate an image (H, W) from the given view: numbers (B, C, H, W), or None if there is no estimate."""
        if self.auxiliary is None or given is None:
            return None
        return self.auxiliary.expectation(given, self.likelihood.channels, size, self.likelihood.levels)

    def params(self, x: Tensor, given: Tensor | None = None, labels: Tensor | None = None) -> Tensor:
        """Compute the parameters of the likelihood at each pixel: integers (B, C, H, W) to (B, P, H, W).

        Raises:
            ValueError: if the given view does not fit the image.
        """
        H, W = x.shape[-2:]
        return self.offset_means(self.network(x, self.context((H, W), given, labels)), given)

    def offset_means(self, params: Tensor, given: Tensor | None) -> Tensor:
        """Shift the means in parameters (B, P, H, W) by the estimate of the image from the given view."""
        H, W = params.shape[-2:]
        offset = self.offset((H, W), given)
        return params if offset is None else self.likelihood.offset_means(params, offset)

    def log_prob_of(self, params: Tensor, x: Tensor, given: Tensor | None, *, consistent: bool) -> Tensor:
        """Compute the log-probability of each pixel under parameters (B, P, H, W). `given` must be the view of `x`."""
        constraint = self.constraint(consistent=consistent)
        if constraint is None or given is None:
            return self.likelihood.log_prob(params, x)
        return self.likelihood.log_prob(params, x, constraint.bounds(x, given, self.likelihood.levels))

    def pixel_log_prob(
        self, x: Tensor, given: Tensor | None = None, labels: Tensor | None = None, *, consistent: bool = False
    ) -> Tensor:
        """Compute the log-probability of each pixel given those before it, in nats: (B, C, H, W) to (B, H, W).

        Args:
            x: a view of images, integers (B, C, H, W).
            given: the next view of the same images. A consistent factor does not check that (see `log_prob`).
            labels: (B,) class labels, for a factor with classes.
            consistent: whether to give probability only to images that have the given view.
        """
        return self.log_prob_of(self.params(x, given, labels), x, given, consistent=consistent)

    def forward(
        self, x: Tensor, given: Tensor | None = None, labels: Tensor | None = None, *, consistent: bool = False
    ) -> Tensor:
        """Compute the log-probability of each image, in nats: (B, C, H, W) to (B,); see `pixel_log_prob`."""
        return self.pixel_log_prob(x, given, labels, consistent=consistent).sum((1, 2))

    def log_prob(
        self, x: Tensor, given: Tensor | None = None, labels: Tensor | None = None, *, consistent: bool = False
    ) -> Tensor:
        """Compute the log-probability of each image as `forward` does, and check the given view.

        Raises:
            ValueError: if the view has the wrong shape, or if the factor is consistent and the images do not have it.
        """
        constraint = self.constraint(consistent=consistent)
        log_prob = self(x, given, labels, consistent=consistent)
        if constraint is not None and given is not None:
            constraint.check(x, given, self.likelihood.levels)
        return log_prob

    def traverse(
        self,
        x: Tensor,
        fill: Fill,
        given: Tensor | None = None,
        labels: Tensor | None = None,
        options: Visit | None = None,
    ) -> Tensor:
        """Visit the pixels of a canvas, and fill it in place.

        Args:
            x: the canvas, integers (B, C, H, W). Pixels that are not visited yet have no influence.
            fill: a function that gives the values of a group of pixels from their parameters.
            given: the next view of the chain, (B, C', H', W'); None for the last factor.
            labels: (B,) class labels, for a factor with classes.
            options: how to visit the pixels.

        Returns:
            The canvas.

        Raises:
            ValueError: if the canvas, the given view or the schedule does not fit the factor.
            MemoryError: if the cached activations need more memory than is free.
            FloatingPointError: if the network gives parameters that are not finite.
        """
        options = options or Visit()
        H, W = x.shape[-2:]
        if given is not None and len(given) != len(x):
            raise ValueError(f"given holds views of {len(given)} images: the canvas holds {len(x)}")
        half = options.dtype if options.dtype in (torch.bfloat16, torch.float16) else None
        lag = wavefront_lag(self.lag(consistent=options.consistent), W, options.schedule)
        every, some = (len(x) * number for number in (H * W, most_pixels((H, W), lag)))
        embedded = every // self.network.arithmetic.products if given is not None else 1
        with evaluating(), computing(self, embedded, FEWER):
            with torch.autocast(x.device.type, half) if half else nullcontext():
                context = self.context((H, W), given, labels)
            offset = self.offset((H, W), given) if options.offset else None
        with evaluating(), computing(self.network, every if options.schedule == "naive" else some, FEWER):
            evaluator = open_evaluator(
                self.network, x, context, lag=lag, schedule=options.schedule, dtype=options.dtype
            )

            def fill_offset(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
                assert offset is not None
                return fill(self.likelihood.offset_means(params, offset[:, :, rows, cols]), rows, cols)

            return traverse(evaluator, x, fill if offset is None else fill_offset, lag, options.watch)

    def initialize(self, x: Tensor, given: Tensor | None = None, labels: Tensor | None = None) -> None:
        """Initialize fresh weights from a batch (see `pixelcnn.nn.layers.initialize`).

        Afterwards, the parameters on this batch have the means and deviations of `Likelihood.initial_stats`.
        """
        initialize(self, x, given, labels)
        last = self.network.last
        means, deviations = (stats.to(last.bias) for stats in self.likelihood.initial_stats())
        with torch.no_grad():
            last.gain.mul_(deviations)
            last.bias.mul_(deviations).add_(means)
