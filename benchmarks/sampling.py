"""Measure the speed of drawing and decoding: over the floor, over plain torch, and over what they are compared to.

    python benchmarks/sampling.py [--json FILE] [--plot FILE] [--pictures FILE] [--model FOLDER] [--quick]

Speeds are compared within one run, in one process, and what is compared takes turns:

    floor     the same multiplications as one large matrix product of torch, on all threads
    torch     the same program without the compiled kernel
    window    the network re-run on a 16x16 window for every pixel, as the authors' demonstration does
    naive     a full forward pass for every pixel
    reading   the weights that are read for a pixel, read once from a list of the same size by one thread

Networks have random weights, but for pictures that are decoded, and for `faces128-pyramid`. The time of sampling
includes folding the weight norms, allocating memory and drawing the values, but not the embedding of the given view,
unless it says so. For window and naive a few pixels are timed, since each one takes the same time.
"""

import argparse
import json
import math
import platform
import statistics
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import torch
from codec import measure_speed
from comparison import time_sampling
from measuring import peak_memory, seconds
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pixelcnn.auxiliary.chain import Link
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.common.devices import computing
from pixelcnn.common.kernel import find_kernel, using_processor
from pixelcnn.data.images import load_images
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.models.draw import DrawOptions, draw_view, position_noise
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.load import load
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.nn.embedding import EmbeddingNetwork
from pixelcnn.nn.layers import evaluating
from pixelcnn.traversal.cached import CachedNetwork
from pixelcnn.traversal.program import Phase, Product
from pixelcnn.traversal.schedule import Schedule, groups, wavefront_lag

LIKELIHOOD = LogisticMixture(3, 256, 10)
WINDOW = 16
IMAGES = (1, 2, 4, 8, 16, 32)
WAYS = {"kernel": "best", "torch": None}  # the processor that each is for
TITAN_X = {"Pyramid": 4.0, "PixelCNN++ with caching": 50.0}  # milliseconds a pixel, from the paper, unconfirmed


class TimedFactor(Factor):
    """A factor with a context that is computed beforehand, so that the embedding is not timed."""

    def __init__(self, network: CausalNetwork, context: Tensor | None) -> None:
        super().__init__(LIKELIHOOD, network, auxiliary=None if context is None else Downsample(2))
        self.ready = context

    def context(self, size: tuple[int, int], given: Tensor | None, labels: Tensor | None) -> Tensor | None:
        return self.ready


def make_factor(batch: int, side: int, *, context: int, **arguments: int) -> TimedFactor:
    torch.manual_seed(0)
    network = CausalNetwork(3, 256, LIKELIHOOD.num_params, context=context, **arguments).eval()
    ready = torch.randn(batch, context, side, side).contiguous(memory_format=torch.channels_last) if context else None
    return TimedFactor(network, ready)


def plain(batch: int, side: int) -> TimedFactor:
    return make_factor(batch, side, context=100, filters=100, blocks=3, scales=1)


def draw(
    factor: TimedFactor, batch: int, side: int, options: DrawOptions | None = None, given: Tensor | None = None
) -> None:
    """Draw a batch of square images."""
    draw_view(factor, position_noise(factor, (side, side), range(batch)), given, options=options)


def count_steps(factor: TimedFactor, side: int, schedule: Schedule = "auto") -> int:
    lag = wavefront_lag(factor.lag(consistent=False), side, schedule)
    return sum(1 for _ in groups((side, side), lag))


def count_multiplications(factor: TimedFactor) -> float:
    """Count those of the convolutions for one pixel."""
    x = torch.zeros(1, 3, WINDOW, WINDOW, dtype=torch.uint8)
    context = None if factor.ready is None else factor.ready[:1, :, :WINDOW, :WINDOW]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        factor.network(x, context)
    return counter.get_total_flops() / 2 / WINDOW**2


def forward_passes(factor: TimedFactor, batch: int, side: int) -> Callable[[], object]:
    """Prepare one forward pass on images of this side, and the draw of one pixel."""
    x = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    context = None if factor.ready is None else factor.ready[:, :, :side, :side].contiguous()
    noise = position_noise(factor, (side, side), range(batch))

    def run() -> None:
        with torch.no_grad():
            params = factor.network(x, context)
            LIKELIHOOD.sample(params[:, :, -1:, -1], noise[:, :, -1:, -1])

    return run


def matrix_product(dtype: torch.dtype) -> Callable[[], float]:
    """Prepare to time one multiplication in a large product, in seconds."""
    a, b = torch.randn(4096, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    return lambda: seconds(lambda: a @ b) / (a.shape[0] * a.shape[1] * b.shape[1])


def milliseconds_a_pixel(times: list[float], pixels: int) -> float:
    return statistics.median(times) * 1e3 / pixels


def measure_plain(batch: int, side: int, dtype: torch.dtype, repeats: int, schedule: Schedule) -> dict[str, Any]:
    """Compare the 3-block plain network with the floor and with windows."""
    factor, product = plain(batch, side), matrix_product(dtype)
    window = forward_passes(factor, batch, WINDOW)
    options = DrawOptions(schedule=schedule, dtype=dtype)
    draw(factor, batch, side, options)
    window()
    products, windows = [], []
    sampled: dict[str, list[float]] = {way: [] for way in WAYS}
    for _ in range(repeats):
        products += [product() for _ in range(5)]
        windows += [seconds(window) for _ in range(10)]
        for way, processor in WAYS.items():
            with using_processor(processor):
                sampled[way].append(seconds(lambda: draw(factor, batch, side, options)))
    pixel, plainly = (milliseconds_a_pixel(sampled[way], batch * side**2) for way in WAYS)
    floor = statistics.median(products) * count_multiplications(factor) * 1e3
    return {
        "images": batch,
        "side": side,
        "precision": str(dtype).removeprefix("torch."),
        "schedule": schedule,
        "steps": count_steps(factor, side, schedule),
        "ms_a_pixel": pixel,
        "floor_ms_a_pixel": floor,
        "window_float32_ms_a_pixel": milliseconds_a_pixel(windows, batch),
        "torch_ms_a_pixel": plainly,
        "over_floor": pixel / floor,
        "faster_than_torch": plainly / pixel,
        "faster_than_window": milliseconds_a_pixel(windows, batch) / pixel,
    }


def measure_strided(batch: int, repeats: int, side: int = 32) -> dict[str, Any]:
    """Compare PixelCNN++ with full forward passes, with plain torch, and with reading its weights."""
    factor = make_factor(batch, side, context=0, filters=160, blocks=5, scales=3)
    naive, reading = forward_passes(factor, batch, side), reading_of_weights(factor, side)
    draw(factor, batch, 8)
    naive()
    times: dict[str, list[float]] = {way: [] for way in (*WAYS, "bf16")}
    naives, readings = [], []
    for _ in range(repeats):
        naives += [seconds(naive) for _ in range(3)]
        readings += [reading() for _ in range(10)]
        for way, processor in WAYS.items():
            with using_processor(processor):
                times[way].append(seconds(lambda: draw(factor, batch, side)))
        times["bf16"].append(seconds(lambda: draw(factor, batch, side, DrawOptions(dtype=torch.bfloat16))))
    pixels, full = batch * side**2, milliseconds_a_pixel(naives, batch)
    pixel, plainly, half = (milliseconds_a_pixel(times[way], pixels) for way in times)
    return {
        "images": batch,
        "side": side,
        "ms_a_pixel": pixel,
        "bf16_ms_a_pixel": half,
        "torch_ms_a_pixel": plainly,
        "naive_ms_a_pixel": full,
        "reading_ms_a_pixel": statistics.median(readings) * 1e3,
        "over_reading": pixel / (statistics.median(readings) * 1e3),
        "faster_than_torch": plainly / pixel,
        "faster": full / pixel,
    }


def reading_of_weights(factor: TimedFactor, side: int) -> Callable[[], float]:
    """Prepare to time the reading of the weights of a pixel in raster order, in seconds, by one thread.

    Those of lines are read once a row, and those of scale s for one in 4^s pixels.
    """
    cached = CachedNetwork(factor.network, (side, side), 1)
    products = [value for value in cached.layout.values if isinstance(value, Product)]
    sizes = [sum(weight.numel() for weight in value.weights) for value in products]
    often = [4**value.scale if value.phase == Phase.GROUP else side * 2**value.scale for value in products]
    weights = torch.zeros(sum(sizes))
    share = sum(size / each for size, each in zip(sizes, often, strict=True)) / sum(sizes)

    def read() -> float:
        threads = torch.get_num_threads()
        torch.set_num_threads(1)
        try:
            return share * seconds(weights.sum)
        finally:
            torch.set_num_threads(threads)

    return read


def measure_pictures(batch: int, side: int, repeats: int) -> dict[str, Any]:
    """Measure milliseconds a pixel in turns, freely and consistently with a given view, and the floor."""
    factor, view = plain(batch, side), torch.full((batch, 3, side // 2, side // 2), 128, dtype=torch.uint8)
    product, products = matrix_product(torch.float32), []
    cases = {
        f"{name}{'' if way == 'kernel' else '_' + way}": (DrawOptions(consistent=name == "consistent"), processor)
        for way, processor in WAYS.items()
        for name in ("free", "consistent")
    }
    times: dict[str, list[float]] = {name: [] for name in cases}
    for repeat in range(repeats + 1):
        products += [product() for _ in range(5)]
        for name, (options, processor) in cases.items():
            with using_processor(processor):
                taken = seconds(lambda options=options: draw(factor, batch, side, options, view))
            if repeat > 0:  # the first warms up
                times[name].append(taken)
    pixels = {name: milliseconds_a_pixel(measured, batch * side**2) for name, measured in times.items()}
    floor = statistics.median(products) * count_multiplications(factor) * 1e3
    over = {f"{name}_over_floor": pixels[name] / floor for name in pixels}
    return {"images": batch, "side": side, "floor": floor} | pixels | over


def measure_embedding(batch: int, side: int, repeats: int) -> dict[str, Any]:
    """Compare the embedding of a view of half the side with the same multiplications as one product."""
    network = EmbeddingNetwork(3, 256, filters=100, blocks=3, scales=2, upsample=2).eval()
    view, product = torch.randint(256, (batch, 3, side // 2, side // 2)), matrix_product(torch.float32)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        network(view[:1], (side, side))
    multiplications, times, products = counter.get_total_flops() / 2 / side**2, [], []
    for _ in range(repeats):
        products += [product() for _ in range(5)]
        with evaluating(), computing(network, batch * side**2, ""):
            times.append(seconds(lambda: network(view, (side, side))))
    pixel, floor = milliseconds_a_pixel(times, batch * side**2), statistics.median(products) * multiplications * 1e3
    return {"images": batch, "side": side, "ms_a_pixel": pixel, "floor_ms_a_pixel": floor, "over_floor": pixel / floor}


def measure_map(repeats: int, side: int = 128) -> dict[str, Any]:
    """Time six faces by MAP sampling with `faces128-pyramid`, everything included, in seconds."""
    model, times = load("faces128-pyramid"), {way: [] for way in WAYS}
    for repeat in range(repeats + 1):
        for way, processor in WAYS.items():
            with using_processor(processor):
                taken = seconds(lambda seed=repeat: model.sample(6, side, seed=seed, options=DrawOptions(map=True)))
            if repeat > 0:
                times[way].append(taken)
    kernel, plainly = (statistics.median(times[way]) for way in WAYS)
    return {"images": 6, "side": side, "seconds": kernel, "torch_seconds": plainly, "of_torch": kernel / plainly}


def measure_growth(side: int, repeats: int) -> dict[str, Any]:
    """Measure seconds and memory for one image of this side."""
    factor = plain(1, side)
    draw(factor, 1, side)
    times = [seconds(lambda: draw(factor, 1, side)) for _ in range(repeats)]
    megabytes = memory(1, side) / 1e6
    return {
        "side": side,
        "steps": count_steps(factor, side),
        "seconds": statistics.median(times),
        "megabytes": megabytes,
    }


def memory(batch: int, side: int) -> int:
    """Measure the bytes by which a fresh process grows when it samples, without those of the context."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(growth_of_memory, batch, side).result()


def growth_of_memory(batch: int, side: int) -> int:
    factor = plain(batch, side)
    draw(plain(1, 24), 1, 24)  # torch allocates some memory only once
    return peak_memory(lambda: draw(factor, batch, side))


def traversal_bits(factor: Factor, link: Link, dtype: torch.dtype, *, consistent: bool) -> Tensor:
    """Score each image under the parameters that a traversal shows, in bits: (B,)."""
    view, given = link
    params = torch.empty(len(view), factor.likelihood.num_params, *view.shape[2:])

    def collect(shown: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        params[:, :, rows, cols] = shown.float()
        return view[:, :, rows, cols]

    factor.traverse(torch.zeros_like(view), collect, given, options=Visit(dtype=dtype, consistent=consistent))
    return -factor.log_prob_of(params, view, given, consistent=consistent).sum((1, 2)) / math.log(2)


def measure_precision(folder: str) -> dict[str, float]:
    """Measure what bf16 does to the bits per dimension of the held-out photographs."""
    model, photos = load(folder), load_images("photos", "test", size=32)
    links = model.links(photos.batch(range(len(photos))))
    full, half = (
        sum(
            traversal_bits(factor, link, dtype, consistent=model.consistent)
            for factor, link in zip(model.factors, links, strict=True)
        )
        / links[0].view[0].numel()
        for dtype in (torch.float32, torch.bfloat16)
    )
    difference = torch.as_tensor(half - full)
    return {
        "images": len(photos),
        "float32": float(torch.as_tensor(full).mean()),
        "bfloat16": float(torch.as_tensor(half).mean()),
        "difference": float(difference.mean()),
        "largest_difference_of_an_image": float(difference.abs().max()),
    }


def plot(growth: list[dict[str, Any]], path: str) -> None:
    """Plot seconds and memory over the side, with guides for growth with the side and with the pixels."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    sides = [row["side"] for row in growth]
    middle = growth[len(growth) // 2]
    time_axes.plot(sides, [row["seconds"] for row in growth], "o-", label="one image, wavefront")
    for power, name, style in ((1, "with the side", ":"), (2, "with the pixels", "--")):
        guide = [middle["seconds"] * (side / middle["side"]) ** power for side in sides]
        time_axes.plot(sides, guide, style, color="gray", label=f"growth {name}")
    time_axes.set(yscale="log", ylabel="seconds")
    time_axes.legend()
    memory_axes.plot(sides, [row["megabytes"] for row in growth], "o-")
    memory_axes.set(ylim=(0, None), ylabel="MB that the process grows by")
    for axes in (time_axes, memory_axes):
        axes.set(xscale="log", xlabel="side in pixels")
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.xaxis.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle("Sampling on two CPU cores: 3 blocks, 100 filters, float32")
    figure.savefig(path, dpi=130)


def plot_pictures(rows: list[dict[str, Any]], path: str) -> None:
    """Plot milliseconds a pixel over the number of pictures, beside the floor."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(6.4, 3.8), layout="constrained")
    axes, images = figure.subplots(), [row["images"] for row in rows]
    styles = {
        "free": ("C0", "o-"),
        "consistent": ("C1", "s-"),
        "free_torch": ("C0", "o:"),
        "consistent_torch": ("C1", "s:"),
    }
    names = {
        "free": "freely",
        "consistent": "consistently",
        "free_torch": "freely, without the kernel",
        "consistent_torch": "consistently, without the kernel",
    }
    for name, (color, style) in styles.items():
        axes.plot(images, [row[name] for row in rows], style, color=color, label=names[name])
    axes.plot(images, [row["floor"] for row in rows], "--", color="gray", label="the products alone, as one of torch's")
    axes.set(xscale="log", xlabel="pictures at once", ylabel="milliseconds a pixel", ylim=(0, None))
    axes.set_xticks(images, [str(n) for n in images])
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.3)
    axes.legend()
    figure.suptitle("Drawing 128x128 on two CPU cores: 3 blocks, 100 filters")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--plot", help="draw the growth with the side into this PNG file")
    parser.add_argument("--pictures", help="draw the time of a pixel over the number of pictures into this PNG file")
    parser.add_argument("--model", help="a trained model for 32x32: also measure what bf16 does to its bits")
    parser.add_argument("--quick", action="store_true", help="measure small images once, to see that everything runs")
    options = parser.parse_args()
    side, repeats = (24, 1) if options.quick else (128, 5)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}", file=sys.stderr)

    kernel = find_kernel()
    results: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads()}
    results |= {"kernel": kernel.processor if kernel else None, "plain": []}
    print(f"plain network, 3 blocks, 100 filters, context given, {side}x{side}")
    cases: list[tuple[int, torch.dtype, Schedule]] = [
        (16, torch.float32, "wavefront"),
        (1, torch.float32, "wavefront"),
        (16, torch.float32, "raster"),
        (1, torch.float32, "raster"),
    ]
    for batch, dtype, schedule in cases:
        row = measure_plain(batch, side, dtype, 1 if schedule == "raster" else repeats, schedule)
        results["plain"].append(row)
        print(
            f"{batch:4} images {row['precision']:9}{schedule:10}{row['steps']:6} steps"
            f"{row['ms_a_pixel']:9.4f} ms a pixel"
            f"{row['over_floor']:7.2f} x floor, {row['faster_than_window']:5.0f} x faster than windows in float32",
            flush=True,
        )
    results["megabytes_16_images"] = memory(16, side) / 1e6
    print(f"  16 images: the process grows by {results['megabytes_16_images']:.0f} MB")
    results["pictures"] = [
        measure_pictures(batch, side, min(3, repeats)) for batch in ((1, 2) if options.quick else IMAGES)
    ]
    for row in results["pictures"]:
        figures = ", ".join(f"{row[name]:.4f} {name}" for name in list(row)[2:])
        print(f"{row['images']:4} images given a view, ms a pixel: {figures}", flush=True)

    results["embedding"] = [measure_embedding(batch, side, repeats) for batch in (1, 16)]
    print("their embedding", json.dumps(results["embedding"], indent=2), flush=True)

    print("PixelCNN++, 3 scales, 5 blocks, 160 filters, 32x32, raster order")
    results["strided"] = [measure_strided(batch, 1 if options.quick else 3) for batch in (1, 16)]
    print(json.dumps(results["strided"], indent=2), flush=True)
    print("PixelCNN++, Grayscale and Pyramid with as many parameters, 32x32 (models of benchmarks/comparison.py)")
    results["comparison"] = time_sampling(1 if options.quick else repeats)
    print(json.dumps(results["comparison"], indent=2), flush=True)
    print("six faces by MAP sampling with faces128-pyramid, and files of photos-pyramid decoded")
    results["map"] = measure_map(1 if options.quick else repeats, side)
    results["coding"] = [measure_speed(batch, side, 1 if options.quick else 3) for batch in (1, 16)]
    print(json.dumps([results["map"], *results["coding"]], indent=2), flush=True)

    print("plain network, one image")
    results["growth"] = [
        measure_growth(s, 3) for s in ((8, 16, 24) if options.quick else (16, 32, 64, 96, 128, 192, 256))
    ]
    for row in results["growth"]:
        print(f"{row['side']:6} {row['steps']:6} steps {row['seconds']:8.3f} s {row['megabytes']:7.0f} MB", flush=True)
    if options.model:
        results["precision"] = measure_precision(options.model)
        print("bits per dimension of the held-out photographs: ", results["precision"])
    for name, figure in TITAN_X.items():
        print(f"another machine: {figure:g} ms a pixel for {name} on a TitanX (the paper, unconfirmed)")
    results["another_machine_titan_x_ms_a_pixel_as_recalled"] = TITAN_X

    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)
    if options.plot:
        plot(results["growth"], options.plot)
    if options.pictures:
        plot_pictures(results["pictures"], options.pictures)


if __name__ == "__main__":
    main()
