"""A second reader of `.pxc` and `.pxa` files, written from docs/format.md alone, without torch or our package.

It is here to show that the page is complete, and so it is plain: each number of a network is computed by itself, when
it is asked for, and kept. All sums are exact in float64, hence their order does not matter.
"""

import hashlib
import io
import json
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

Offsets = tuple[Sequence[int], Sequence[int]]
U: Offsets = ((-1, 0), (-1, 0, 1))  # rows and columns
UL: Offsets = ((-1, 0), (-1, 0))
SQUARE: Offsets = ((-1, 0, 1), (-1, 0, 1))
POINT: Offsets = ((0,), (0,))


def check(condition: bool, problem: str) -> None:
    """Raise a `ValueError` unless the condition holds."""
    if not condition:
        raise ValueError(problem)


class Table:
    """A function at multiples of a step, of which the entries are rounded."""

    def __init__(self, function: Callable, low: int, high: int, scale: float | None, steps: int = 2**10) -> None:
        self.first = low * steps
        values = function(np.arange(low * steps, high * steps + 1) / steps)
        # A float32 has 24 significant bits.
        self.entries = np.rint(values * scale) if scale else values.astype(np.float32).astype(np.float64)

    def __call__(self, n: np.ndarray) -> np.ndarray:
        """Return the entries at whole numbers of steps, or those at the ends."""
        index = np.minimum(np.maximum(n - self.first, 0), len(self.entries) - 1)
        return self.entries[index.astype(np.int64)]


def logistic(x: np.ndarray) -> np.ndarray:
    """Return the logistic function."""
    return 1 / (1 + np.exp(-x))


ELU = Table(np.expm1, -8, 0, 2**10)
SIGMOID = Table(logistic, -16, 16, 2**14)
TANH = Table(np.tanh, -16, 16, 2**14)
WEIGHT = Table(np.exp, -16, 0, 2**20)
PRECISION = Table(np.exp, -16, 16, None)
LOGISTIC = Table(logistic, -24, 24, 2**32, steps=2**6)
LOGISTIC.entries = np.append(LOGISTIC.entries, LOGISTIC.entries[-1])
TABLES = [ELU, SIGMOID, TANH, WEIGHT, PRECISION, LOGISTIC]
HASH_OF_TABLES = hashlib.sha256(b"".join(table.entries.astype("<f8").tobytes() for table in TABLES)).digest()


def rounded(x: np.ndarray) -> np.ndarray:
    """Round to whole numbers between -2^22 and 2^22."""
    return np.minimum(np.maximum(np.rint(x), -(2**22)), 2**22)


def elu(x: np.ndarray) -> np.ndarray:
    """Return the exponential linear unit of activations."""
    n = rounded(x)
    return np.where(n > 0, n, ELU(n))


def concat_elu(x: np.ndarray) -> np.ndarray:
    """Return the exponential linear units of activations and of their negatives."""
    return np.concatenate([elu(x), elu(-x)])


def gate(x: np.ndarray, ab: np.ndarray) -> np.ndarray:
    """Add the first half of `ab`, as far as the second half lets it through."""
    a, b = np.split(ab, 2)
    return rounded(x + rounded(a) * SIGMOID(rounded(b)) / 2**14)


class Grid:
    """Vectors at all positions of a picture, each of which is computed when it is first asked for, and kept."""

    def __init__(self, size: tuple[int, int], compute: Callable[[int, int], np.ndarray]) -> None:
        self.size, self.compute = size, compute
        self.values: dict[tuple[int, int], np.ndarray] = {}

    def at(self, i: int, j: int) -> np.ndarray:
        """Return the vector at a position."""
        if (i, j) not in self.values:
            self.values[i, j] = self.compute(i, j)
        return self.values[i, j]

    def has(self, i: int, j: int) -> bool:
        """Say whether a position is inside of the picture."""
        return 0 <= i < self.size[0] and 0 <= j < self.size[1]


def pointwise(function: Callable[..., np.ndarray], *grids: Grid) -> Grid:
    """Apply a function to the vectors of each position."""
    return Grid(grids[0].size, lambda i, j: function(*(grid.at(i, j) for grid in grids)))


def scaled(pixels: np.ndarray, levels: int) -> Grid:
    """Scale pixels, of which those that are not known yet are negative, and add a channel of ones."""

    def compute(i: int, j: int) -> np.ndarray:
        assert (pixels[i, j] >= 0).all(), "a pixel depends on one that comes later"
        return np.append(np.rint((2.0 * pixels[i, j] - (levels - 1)) * 2**12 / (levels - 1)) / 2**12, 1.0)

    return Grid((pixels.shape[0], pixels.shape[1]), compute)


def halved(source: Grid) -> Grid:
    """Average over squares of 2x2 positions, over those that exist."""

    def compute(i: int, j: int) -> np.ndarray:
        square = [(2 * i + r, 2 * j + c) for r in (0, 1) for c in (0, 1)]
        return np.mean([source.at(*position) for position in square if source.has(*position)], axis=0)

    return Grid(((source.size[0] + 1) // 2, (source.size[1] + 1) // 2), compute)


class Layers:
    """The layers of one network, whose tensors have names that begin with a prefix."""

    def __init__(self, tensors: dict[str, np.ndarray], prefix: str) -> None:
        self.tensors = {name.removeprefix(prefix): tensors[name] for name in tensors if name.startswith(prefix)}

    def names(self, stage: str) -> list[str]:
        """Return the names of the blocks of a stage."""
        count = len({name.split(".")[stage.count(".") + 1] for name in self.tensors if name.startswith(stage + ".")})
        return [f"{stage}.{b}" for b in range(count)]

    def weights(self, name: str) -> tuple[np.ndarray, np.ndarray]:
        """Return the weights (rows, columns, outputs, inputs) and the biases of a convolution."""
        parts = [self.tensors[f"{name}.{part}"].astype(np.float64) for part in ("direction", "gain", "bias")]
        direction, gain, bias = parts[0].transpose(2, 3, 0, 1), parts[1][:, None], parts[2]
        exponents = np.frexp(np.abs(direction).max(axis=(0, 1, 3)))[1][:, None]
        n = np.rint(np.ldexp(direction, 22 - exponents))
        norms = np.sqrt(np.maximum((n * n).sum(axis=(0, 1, 3)), 1.0))[:, None]
        weight = np.rint(n * (gain / norms) * 2**16) / 2**16
        bias = np.rint(bias * 2**26) / 2**26
        if name == "last":
            return np.ascontiguousarray(weight / 2**10), bias
        return np.ascontiguousarray(weight * 2**10 if name.startswith("first") else weight), bias * 2**10

    def apply(
        self, name: str, x: Grid, offsets: Offsets, stride: int = 1, transposed_to: tuple[int, int] | None = None
    ) -> Grid:
        """Apply a convolution, or a transposed one to the given size."""
        weight, bias = self.weights(name)
        check(weight.shape[:2] == (len(offsets[0]), len(offsets[1])), f"{name} has another shape")
        taps = [(r, c, weight[y, x]) for y, r in enumerate(offsets[0]) for x, c in enumerate(offsets[1])]

        def compute(i: int, j: int) -> np.ndarray:
            total = bias
            for r, c, matrix in taps:
                if transposed_to:
                    (row, rest), (column, other_rest) = divmod(i - r, stride), divmod(j - c, stride)
                    if rest or other_rest:
                        continue
                else:
                    row, column = stride * i + r, stride * j + c
                if x.has(row, column):
                    total = total + matrix @ x.at(row, column)
            return total

        return Grid(transposed_to or (-(-x.size[0] // stride), -(-x.size[1] // stride)), compute)

    def block(self, name: str, x: Grid, offsets: Offsets, *sides: Grid) -> Grid:
        """Apply a gated block; the side inputs are activated already."""
        hidden = self.apply(f"{name}.input", pointwise(concat_elu, x), offsets)
        if sides:
            side = pointwise(lambda *vectors: np.concatenate(vectors), *sides)
            hidden = pointwise(np.add, hidden, self.apply(f"{name}.side", side, POINT))
        return pointwise(gate, x, self.apply(f"{name}.output", pointwise(concat_elu, hidden), offsets))


def embed(layers: Layers, pixels: Grid, scales: int, factor: int, size: tuple[int, int]) -> Grid:
    """Apply the embedding network to the scaled pixels of the next view, for a view of the given size."""
    x = layers.apply("first", pixels, SQUARE)
    stacks: list[list[Grid]] = []
    for s in range(scales):
        x = layers.apply(f"shrink.{s - 1}", x, SQUARE, 2) if s > 0 else x
        stacks.append([x])
        for name in layers.names(f"down.{s}"):
            x = layers.block(name, x, SQUARE)
            stacks[s].append(x)
    stacks[-1].pop()
    for s in reversed(range(scales)):
        for name in layers.names(f"up.{s}"):
            x = layers.block(name, x, SQUARE, pointwise(concat_elu, stacks[s].pop()))
        x = layers.apply(f"grow.{s - 1}", x, SQUARE, 2, stacks[s - 1][0].size) if s > 0 else x
    if factor > 1:
        offsets = range(-(factor // 2), factor)
        x = layers.apply("enlarge", x, (offsets, offsets), factor, size)
        for name in layers.names("enlarged"):
            x = layers.block(name, x, SQUARE)
    return x


def predict(layers: Layers, pixels: Grid, context: Grid | None, scales: int) -> Grid:
    """Apply the causal network to scaled pixels, which gives the parameters."""
    contexts: list[list[Grid]] = []
    for _ in range(scales):
        contexts.append([pointwise(concat_elu, context)] if context else [])
        context = halved(context) if context else None
    u = layers.apply("first.u", pixels, ((-2, -1), (-1, 0, 1)))
    ul = layers.apply("first.ul_above", pixels, ((-1,), (-1, 0, 1)))
    ul = pointwise(np.add, ul, layers.apply("first.ul_left", pixels, ((-1, 0), (-1,))))
    stack = []
    for s in range(scales):
        if s > 0:
            u = layers.apply(f"shrink.{s - 1}.u", u, U, 2)
            ul = layers.apply(f"shrink.{s - 1}.ul", ul, UL, 2)
        stack.append((u, ul))
        for name in layers.names(f"down.{s}"):
            u = layers.block(f"{name}.u", u, U, *contexts[s])
            ul = layers.block(f"{name}.ul", ul, UL, pointwise(concat_elu, u), *contexts[s])
            stack.append((u, ul))
    stack.pop()
    for s in reversed(range(scales)) if scales > 1 else ():
        for name in layers.names(f"up.{s}"):
            side_u, side_ul = (pointwise(concat_elu, side) for side in stack.pop())
            u = layers.block(f"{name}.u", u, U, side_u, *contexts[s])
            ul = layers.block(f"{name}.ul", ul, UL, pointwise(concat_elu, u), side_ul, *contexts[s])
        if s > 0:
            size = stack[-1][0].size
            u = layers.apply(f"grow.{s - 1}.u", u, ((0, 1), (-1, 0, 1)), 2, size)
            ul = layers.apply(f"grow.{s - 1}.ul", ul, ((0, 1), (0, 1)), 2, size)
    return layers.apply("last", pointwise(elu, ul), POINT)


class Model:
    """A config and its weights."""

    def __init__(self, folder: Path) -> None:
        self.config: dict[str, Any] = json.loads((folder / "config.json").read_text(encoding="utf-8"))
        self.read_tensors((folder / "model.safetensors").read_bytes())
        self.views = len(self.config["auxiliaries"]) + 1
        weights = hashlib.sha256()
        for name in sorted(self.tensors):
            weights.update(name.encode() + self.tensors[name].astype("<f4").tobytes())
        fields = ["channels", "levels", "auxiliaries", "likelihoods", "components", "log_scales", "filters", "blocks"]
        fields += ["scales", "embedding_filters", "embedding_blocks", "embedding_scales", "classes"]
        config = {field: self.config[field] for field in fields if field in self.config}
        text = json.dumps(config, sort_keys=True, separators=(",", ":")) + weights.hexdigest()
        self.hash = hashlib.sha256(text.encode()).digest()

    def read_tensors(self, content: bytes) -> None:
        """Read a safetensors file, as float32."""
        self.tensors: dict[str, np.ndarray] = {}
        start = 8 + int.from_bytes(content[:8], "little")
        for name, entry in json.loads(content[8:start]).items():
            if name == "__metadata__":
                continue
            begin, end = entry["data_offsets"]
            array = np.frombuffer(content[start + begin : start + end], {"F32": "<f4"}.get(entry["dtype"], "<u2"))
            if entry["dtype"] == "F16":
                array = array.view("<f2")
            elif entry["dtype"] == "BF16":  # the upper half of a float32
                array = (array.astype(np.uint32) << 16).view(np.float32)
            self.tensors[name] = array.astype(np.float32).reshape(entry["shape"])

    def shape(self, k: int, size: tuple[int, int]) -> tuple[tuple[int, int], int, int]:
        """Return the size, the channels and the levels of view k of a picture."""
        channels, levels = self.config["channels"], self.config["levels"]
        for auxiliary in self.config["auxiliaries"][:k]:
            if auxiliary["name"] == "Downsample":
                size = -(-size[0] // auxiliary["factor"]), -(-size[1] // auxiliary["factor"])
            else:
                channels, levels = 1, 2 ** auxiliary["bits"]
        return size, channels, levels


class Cells:
    """What the next view says of the values of a view."""

    def __init__(self, auxiliary: dict[str, Any], pixels: np.ndarray, levels: int, following: np.ndarray) -> None:
        self.pixels, self.levels, self.following = pixels, levels, following
        self.factor, self.bits = auxiliary.get("factor", 1), auxiliary.get("bits")

    def cell(self, i: int, j: int, channel: int) -> tuple[list[int], list[int], int]:
        """Return the weights and the values of the cell of a value, and the place of the value in it."""
        if self.bits:
            return [299, 587, 114] if self.pixels.shape[2] == 3 else [1000], self.pixels[i, j].tolist(), channel
        f = self.factor
        square = self.pixels[i // f * f : i // f * f + f, j // f * f : j // f * f + f, channel]
        return [1] * square.size, square.ravel().tolist(), i % f * square.shape[1] + j % f

    def ends(self, i: int, j: int, channel: int) -> tuple[int, int]:
        """Return the least and the most that the sum of the cell of a value can be."""
        if self.bits:
            v = int(self.following[i, j, 0])
            a, z = (-(-x * self.levels // 2**self.bits) for x in (v, v + 1))
            return 1000 * a - 500, 1000 * z - 501
        v, n = int(self.following[i // self.factor, j // self.factor, channel]), len(self.cell(i, j, channel)[0])
        return -(-(2 * v - 1) * n // 2), ((2 * v + 1) * n - 1) // 2

    def bounds(self, i: int, j: int, channel: int) -> tuple[int, int]:
        """Return the lowest and the highest value that are possible after the values before it in its cell."""
        (least, most), (weights, values, place) = self.ends(i, j, channel), self.cell(i, j, channel)
        assert all(value >= 0 for value in values[:place]), "a value depends on one that comes later"
        before = sum(w * x for w, x in zip(weights[:place], values[:place], strict=True))
        after = (self.levels - 1) * sum(weights[place + 1 :])
        lowest = max(0, -((before + after - least) // weights[place]))
        highest = min(self.levels - 1, (most - before) // weights[place])
        check(lowest <= highest, "the stream is damaged")
        return lowest, highest

    def offset(self, i: int, j: int, channel: int) -> float:
        """Return the offset of the means of a value."""
        estimate = np.float32(sum(self.ends(i, j, channel))) / np.float32(2 * sum(self.cell(i, j, channel)[0]))
        return float(estimate) * (2 / (self.levels - 1)) - 1


class Categorical:
    """A distribution of one channel with a parameter for each level."""

    def __init__(self, parameters: np.ndarray) -> None:
        self.below = np.append(0.0, np.cumsum(WEIGHT(np.rint(1024 * (parameters - parameters.max())))))

    def mass(self, edges: np.ndarray) -> np.ndarray:
        """Return the masses below edges."""
        return self.below[edges]

    def accept(self, value: int) -> None:
        """Take note of a value; there is no channel after it."""


class LogisticMixture:
    """A mixture of logistic distributions, of one channel after the other."""

    def __init__(self, parameters: np.ndarray, offsets: list[float], levels: int, config: dict[str, Any]) -> None:
        self.levels, self.offsets, (self.low, self.high) = levels, offsets, config["log_scales"]
        logits, rest = np.split(parameters, [config["components"]])
        self.rows = rest.reshape(len(offsets), -1, len(logits))
        self.positions: list[int] = []
        self.normalize(WEIGHT(np.rint(1024 * (logits - logits.max()))))
        self.prepare()

    def normalize(self, weights: np.ndarray) -> None:
        """Scale the weights to a sum of about 2^20, and round them."""
        self.weights = np.rint(2**20 * (weights / weights.sum()))

    def prepare(self) -> None:
        """Compute the means and the precisions of the next channel."""
        channel = len(self.positions)
        means = (self.rows[channel, 0] + self.offsets[channel]) * (self.levels - 1)
        # The row of red holds red for green, that of green red for blue, and that of blue green for blue.
        for row, position in zip([[], [0], [1, 2]][channel], self.positions, strict=True):
            means = means + TANH(np.rint(1024 * self.rows[row, 2])) / 2**14 * position
        self.means = np.rint(means * 2**14) / 2**14
        low, high = -np.inf if self.low is None else self.low, np.inf if self.high is None else self.high
        log_scales = np.minimum(np.maximum(self.rows[channel, 1], low), high)
        self.precisions = PRECISION(np.rint(1024 * -log_scales)) / (self.levels - 1) * 64

    def below(self, edges: np.ndarray) -> np.ndarray:
        """Return the mass of each component below each edge."""
        v = edges[:, None]
        z = np.minimum(np.maximum((2.0 * v - self.levels - self.means) * self.precisions + 1536, 0), 3072)
        n = np.floor(z) - 1536  # the table begins at -1536 steps
        inside = np.rint((LOGISTIC(n + 1) - LOGISTIC(n)) * (z - np.floor(z)) + LOGISTIC(n))
        return np.where(v == 0, 0.0, np.where(v == self.levels, 2.0**32, inside))

    def mass(self, edges: np.ndarray) -> np.ndarray:
        """Return the masses below edges."""
        return self.below(edges) @ self.weights

    def accept(self, value: int) -> None:
        """Take note of a value, and go on to the next channel."""
        low, high = self.below(np.array([value, value + 1]))
        weights = self.weights * (high - low)
        if weights.any():
            self.normalize(weights)
        self.positions.append(2 * value - (self.levels - 1))
        if len(self.positions) < len(self.rows):
            self.prepare()


Distribution = Categorical | LogisticMixture


class Decoder:
    """The range decoder of a stream."""

    def __init__(self, stream: bytes) -> None:
        self.stream, self.position, self.lower, self.range = stream, 0, 0, 2**64 - 1
        self.point = self.word() * 2**32 + self.word()

    def word(self) -> int:
        """Return the next word; zeros follow the end."""
        self.position += 4
        return int.from_bytes(self.stream[self.position - 4 : self.position], "little")

    def read(self, distribution: Distribution, edges: np.ndarray) -> int:
        """Read the outcome between two neighbors of the edges."""
        mass = distribution.mass(edges)
        if mass[-1] == mass[0]:
            mass = edges.astype(np.float64)
        count = len(edges) - 1
        shares = (mass - mass[0]) / (mass[-1] - mass[0])
        sums = (np.arange(count + 1) + np.floor(shares * (2**24 - count))).astype(np.int64).tolist()
        scale = self.range // 2**24
        quantile = (self.point - self.lower) % 2**64 // scale
        check(quantile < 2**24, "the stream is damaged")
        outcome = max(i for i in range(count) if sums[i] <= quantile)
        check(edges[outcome] < edges[outcome + 1], "the stream is damaged")
        self.lower = (self.lower + scale * sums[outcome]) % 2**64
        self.range = scale * (sums[outcome + 1] - sums[outcome])
        if self.range < 2**32:
            self.lower, self.range = self.lower * 2**32 % 2**64, self.range * 2**32
            self.point = (self.point * 2**32 + self.word()) % 2**64
        return outcome


class Factor:
    """The reader of a view, given the next view if there is one."""

    def __init__(
        self, model: Model, k: int, size: tuple[int, int], following: np.ndarray | None, label: int, consistent: bool
    ) -> None:
        self.config, self.k = model.config, k
        self.size, self.channels, self.levels = model.shape(k, size)
        self.pixels = np.full((*self.size, self.channels), -1, np.int64)
        self.cells = context = None
        if following is not None:
            self.cells = Cells(model.config["auxiliaries"][k], self.pixels, self.levels, following)
            layers, scales = Layers(model.tensors, f"factors.{k}.embedding."), model.config["embedding_scales"][k]
            source = scaled(following, model.shape(k + 1, size)[2])
            context = embed(layers, source, scales, self.cells.factor, self.size)
        if label:
            vector = model.tensors[f"factors.{k}.classes.weight"][label - 1].astype(np.float64)
            vectors = Grid(self.size, lambda i, j: rounded(vector * 2**10))
            context = pointwise(np.add, context, vectors) if context else vectors
        self.bounded = self.cells if consistent else None
        layers, source = Layers(model.tensors, f"factors.{k}.network."), scaled(self.pixels, self.levels)
        self.parameters = predict(layers, source, context, model.config["scales"][k])

    def read(self, decoder: Decoder) -> np.ndarray:
        """Read all pixels, group by group."""
        height, width = self.size
        lag = 2 * self.config["blocks"][self.k] + 2 if self.config["scales"][self.k] == 1 else width
        lag = min(width, max(lag, self.bounded.factor if self.bounded else 0))
        for time in range(width + lag * (height - 1)):
            group = [(i, time - lag * i) for i in range(height) if 0 <= time - lag * i < width]
            distributions = {(i, j): self.distribution(i, j) for i, j in group}
            for channel in range(self.channels):
                self.read_channel(decoder, distributions, channel)
        return self.pixels

    def distribution(self, i: int, j: int) -> Distribution:
        """Return the distribution of a pixel."""
        default = "Categorical" if self.channels == 1 and self.levels <= 16 else "LogisticMixture"
        own = (self.config.get("likelihoods") or {self.k: None})[self.k] or {"name": default, **self.config}
        if own["name"] == "Categorical":
            return Categorical(self.parameters.at(i, j))
        offsets = [self.cells.offset(i, j, channel) if self.cells else 0.0 for channel in range(self.channels)]
        return LogisticMixture(self.parameters.at(i, j), offsets, self.levels, own)

    def read_channel(self, decoder: Decoder, group: dict[tuple[int, int], Distribution], channel: int) -> None:
        """Read one channel of a group of pixels: first all buckets, and then all levels."""
        width = max(4, 2 ** -(-(self.levels - 1).bit_length() // 2))
        steps = np.arange(width + 1)
        spans = []
        for (i, j), distribution in group.items():
            lowest, highest = self.bounded.bounds(i, j, channel) if self.bounded else (0, self.levels - 1)
            start = lowest
            if highest - lowest >= width:
                start += width * decoder.read(distribution, np.minimum(lowest + steps * width, highest + 1))
            spans.append((start, min(start + width, highest + 1)))
        for ((i, j), distribution), (start, end) in zip(group.items(), spans, strict=True):
            step = decoder.read(distribution, np.minimum(start + steps, end)) if end - start > 1 else 0
            self.pixels[i, j, channel] = start + step
            distribution.accept(start + step)


class Bytes:
    """Bytes that are read one after the other."""

    def __init__(self, content: bytes) -> None:
        self.content, self.position = content, 0

    def take(self, count: int) -> bytes:
        """Return the next bytes."""
        self.position += count
        check(self.position <= len(self.content), "the file is cut off")
        return self.content[self.position - count : self.position]

    def number(self, count: int) -> int:
        """Return the next number of a fixed number of bytes."""
        return int.from_bytes(self.take(count), "little")

    def packed(self) -> int:
        """Return the next packed number."""
        digits = [self.number(1)]
        while digits[-1] >= 128:
            digits.append(self.number(1))
        check(len(digits) == 1 or digits[-1] > 0, "a packed number is too long")
        return sum(digit % 128 * 128**n for n, digit in enumerate(digits))

    def chunk(self) -> tuple[str, bytes]:
        """Return the kind and the data of the next chunk."""
        start = self.position
        kind = chr(self.number(1))
        data = self.take(self.packed())
        crc = zlib.crc32(self.content[start : self.position])
        check(self.number(4) == crc, f"the chunk {kind} is damaged")
        return kind, data

    def header(self, model: Model) -> bool:
        """Check the header, and say whether the model is used consistently."""
        check(self.number(1) == 1, "another version of the format")
        consistent = self.number(1)
        check(consistent <= 1, "unknown flags")
        check(self.number(2) + 1 == model.config["levels"], "another number of levels")
        check(self.take(4) == HASH_OF_TABLES[:4], "other tables")
        check(self.take(8) == model.hash[:8], "another model")
        self.take(self.number(1))
        return consistent == 1

    def end(self) -> None:
        """Refuse any further bytes."""
        check(self.position == len(self.content), "there are too many bytes")


def inflate(data: bytes) -> bytes:
    """Decompress a zlib stream."""
    try:
        return zlib.decompress(data)
    except zlib.error as error:
        raise ValueError("a zlib stream is damaged") from error


def read_png(data: bytes, size: tuple[int, int], channels: int) -> np.ndarray:
    """Decode a PNG that must have the given shape."""
    with Image.open(io.BytesIO(data), formats=["PNG"]) as image:
        right = image.mode == {1: "L", 3: "RGB"}.get(channels) and image.size == size[::-1]
        check(right, "the PNG has another shape")
        return np.asarray(image).reshape(*size, channels)


def read_views(
    model: Model, decoders: list[Decoder], size: tuple[int, int], label: int, consistent: bool
) -> np.ndarray:
    """Read all views of a picture, each with its decoder, and return the picture."""
    classes = model.config["classes"]
    check(label <= classes and (label > 0) == (classes > 0) and 0 not in size, "no such class or an empty picture")
    pixels = None
    for k, decoder in zip(reversed(range(model.views)), decoders, strict=True):
        pixels = Factor(model, k, size, pixels, label, consistent).read(decoder)
    assert pixels is not None
    return pixels


def verified(pixels: np.ndarray, channels: int, levels: int, checksum: int) -> np.ndarray:
    """Reduce pixels to the channels of the picture, and verify their checksum."""
    check(channels == pixels.shape[2] or bool((pixels == pixels[..., :1]).all()), "a gray picture has colors")
    pixels = pixels[..., :channels].astype("<u1" if levels <= 256 else "<u2")
    check(zlib.crc32(pixels.tobytes()) == checksum, "the pixels are wrong")
    return pixels


def read_picture(content: bytes, model: Model) -> np.ndarray:
    """Read a `.pxc` file."""
    file, chunks = Bytes(content), []
    check(file.take(8) == b"\x89PXC\r\n\x1a\n", "not a picture")
    while file.position < len(content):
        chunks.append(file.chunk())
    kinds = "".join(kind for kind, _ in chunks if not kind.islower())
    data = [data for kind, data in chunks if not kind.islower()]
    check(kinds.startswith("H"), "the header is missing")
    header = Bytes(data.pop(0))
    consistent = header.header(model)
    channels, views, height, width, label = (header.packed() for _ in range(5))
    checksum = header.number(4)
    header.end()
    body = "V" * views or "P"
    check(kinds in ("H" + body, "HA" + body), "there are other chunks")
    alpha = read_png(data.pop(0), (height, width), 1) if kinds[1] == "A" else None
    if views:
        check(views == model.views, "another number of views")
        pixels = read_views(model, [Decoder(stream) for stream in data], (height, width), label, consistent)
    else:
        pixels = read_png(data[0], (height, width), channels)
    pixels = verified(pixels, channels, model.config["levels"], checksum)
    return pixels if alpha is None else np.concatenate([pixels, alpha], axis=2)


def read_archive(content: bytes, model: Model) -> list[np.ndarray]:
    """Read a `.pxa` file."""
    file, pictures = Bytes(content), []
    check(file.take(8) == b"\x89PXA\r\n\x1a\n", "not an archive")
    chunks = [file.chunk() for _ in range(3)]
    check([kind for kind, _ in chunks] == ["H", "N", "I"], "there are other chunks")
    header, names, index = Bytes(chunks[0][1]), inflate(chunks[1][1]), Bytes(inflate(chunks[2][1]))
    consistent, count = header.header(model), header.packed()
    header.end()
    check(len(names.split(b"\0")) == count or not count, "another number of names")
    columns = [[index.packed() for _ in range(count)] for _ in range(6)]
    checksums = [index.number(4) for _ in range(count)]
    index.end()
    for kind, channels, height, width, label, length, checksum in zip(*columns, checksums, strict=True):
        check(kind in (0, 1), "an unknown kind of picture")
        if kind == 1:
            pictures.append(read_picture(file.take(length), model))
        else:
            decoders = [Decoder(file.take(length))] * model.views  # one stream for all views
            pixels = read_views(model, decoders, (height, width), label, consistent)
            pictures.append(verified(pixels, channels, model.config["levels"], checksum))
    file.end()
    return pictures


def read(content: bytes, folder: Path) -> list[np.ndarray]:
    """Decode a picture or all pictures of an archive, with the model in a folder.

    Gray pictures have the shape (H, W), and those with colors or transparency (H, W, C).
    """
    model = Model(folder)
    pictures = read_archive(content, model) if content[:4] == b"\x89PXA" else [read_picture(content, model)]
    return [picture[..., 0] if picture.shape[2] == 1 else picture for picture in pictures]
