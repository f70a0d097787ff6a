"""Measure the speed of sampling: over the floor, against re-running the network, and against the naive traversal.

    python benchmarks/sampling.py [--json FILE] [--plot FILE] [--model FOLDER] [--quick]

Speeds are compared within one run, in one process, and what is compared takes turns:

    floor     the same multiplications as one large matrix product
    window    the network re-run on a 16x16 window for every pixel, as the authors' demonstration does
    naive     a full forward pass for every pixel

The networks have random weights. The time of sampling includes folding the weight norms, allocating memory and drawing
the values, but not the embedding of the given view. For window and naive a few pixels are timed, since each one takes
the same time.
"""

import argparse
import json
import math
import platform
import statistics
import sys
import threading
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from typing import Any

import psutil
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from pixelcnn.auxiliary.chain import Link
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.data.images import load_images
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.models.draw import DrawOptions, draw_view, position_noise
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.load import load
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.traversal.schedule import Schedule, groups, wavefront_lag

LIKELIHOOD = LogisticMixture(3, 256, 10)
WINDOW = 16
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


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


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
    sampled, products, windows = [], [], []
    for _ in range(repeats):
        products += [product() for _ in range(5)]
        windows += [seconds(window) for _ in range(10)]
        sampled.append(seconds(lambda: draw(factor, batch, side, options)))
    pixel = milliseconds_a_pixel(sampled, batch * side**2)
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
        "over_floor": pixel / floor,
        "faster_than_window": milliseconds_a_pixel(windows, batch) / pixel,
    }


def measure_strided(batch: int, repeats: int, side: int = 32) -> dict[str, Any]:
    """Compare PixelCNN++ with full forward passes."""
    factor = make_factor(batch, side, context=0, filters=160, blocks=5, scales=3)
    naive = forward_passes(factor, batch, side)
    draw(factor, batch, 8)
    naive()
    times, naives = [], []
    for _ in range(repeats):
        naives += [seconds(naive) for _ in range(3)]
        times.append(seconds(lambda: draw(factor, batch, side)))
    pixel, full = milliseconds_a_pixel(times, batch * side**2), milliseconds_a_pixel(naives, batch)
    return {"images": batch, "side": side, "ms_a_pixel": pixel, "naive_ms_a_pixel": full, "faster": full / pixel}


def measure_consistency(batch: int, side: int, repeats: int) -> dict[str, Any]:
    """Measure milliseconds a pixel in turns: drawing freely, and consistently with a given view."""
    factor, view = plain(batch, side), torch.full((batch, 3, side // 2, side // 2), 128, dtype=torch.uint8)
    ways = {
        "free": DrawOptions(),
        "consistent": DrawOptions(consistent=True),
    }
    times: dict[str, list[float]] = {name: [] for name in ways}
    for repeat in range(repeats + 1):
        for name, options in ways.items():
            taken = seconds(lambda options=options: draw(factor, batch, side, options, view))
            if repeat > 0:  # the first warms up
                times[name].append(taken)
    pixels = {name: milliseconds_a_pixel(measured, batch * side**2) for name, measured in times.items()}
    return {"images": batch, "side": side} | pixels


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


def peak_memory(run: Callable[[], object]) -> int:
    """Measure the bytes by which the process grows meanwhile, by a look every few milliseconds."""
    process = psutil.Process()
    before, most, done = process.memory_info().rss, 0, threading.Event()

    def watch() -> None:
        nonlocal most
        while not done.wait(0.005):
            most = max(most, process.memory_info().rss)

    watcher = threading.Thread(target=watch)
    watcher.start()
    run()
    done.set()
    watcher.join()
    return max(0, most - before)


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
    memory_axes.set(ylim=(0, None), ylabel="megabytes by which the process grows")
    for axes in (time_axes, memory_axes):
        axes.set(xscale="log", xlabel="side in pixels")
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.xaxis.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle("Sampling on two CPU cores: 3 blocks, 100 filters, float32")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--plot", help="draw the growth with the side into this PNG file")
    parser.add_argument("--model", help="a trained model for 32x32: also measure what bf16 does to its bits")
    parser.add_argument("--quick", action="store_true", help="measure small images once, to see that everything runs")
    options = parser.parse_args()
    side, repeats = (24, 1) if options.quick else (128, 5)
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}", file=sys.stderr)

    results: dict[str, Any] = {"torch": torch.__version__, "threads": torch.get_num_threads(), "plain": []}
    print(f"plain network, 3 blocks, 100 filters, context given, {side}x{side}")
    cases: list[tuple[int, torch.dtype, Schedule]] = [
        (16, torch.float32, "wavefront"),
        (1, torch.float32, "wavefront"),
        (16, torch.bfloat16, "wavefront"),
        (1, torch.bfloat16, "wavefront"),
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
    results["consistent"] = [measure_consistency(batch, side, repeats) for batch in (16, 1)]
    for row in results["consistent"]:
        figures = ", ".join(f"{row[name]:.4f} {name}" for name in list(row)[2:])
        print(f"{row['images']:4} images given a view, ms a pixel: {figures}", flush=True)

    print("PixelCNN++, 3 scales, 5 blocks, 160 filters, 32x32, raster order, against full forward passes")
    results["strided"] = [measure_strided(batch, 1 if options.quick else 3) for batch in (1, 16)]
    for row in results["strided"]:
        print(
            f"{row['images']:4} images {row['ms_a_pixel']:8.3f} ms a pixel, {row['faster']:5.0f} x faster", flush=True
        )

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


if __name__ == "__main__":
    main()
