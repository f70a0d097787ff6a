"""How fast sampling is: over the floor, against re-running the network, and against the naive traversal.

    python benchmarks/sampling.py [--json FILE] [--plot FILE] [--model FOLDER] [--quick]

All figures are ratios within one run, in one process, of things that take turns:

    floor     the same multiplications as one large matrix product
    window    the network re-run on a 16x16 window for every pixel, as the authors' demonstration does
    naive     a full forward pass for every pixel

The networks have random weights. Sampling includes folding the weights, the memory and the draws; the embedding of the
auxiliary image is given. Window and naive are timed on a few pixels, since all of them take the same time.
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

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.data.images import load_images
from pixelcnn.likelihoods.base import Bounds
from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.models.draw import position_noise, sample_factor
from pixelcnn.models.factor import Factor
from pixelcnn.models.load import load
from pixelcnn.nn.causal import CausalNetwork
from pixelcnn.traversal.loop import traverse
from pixelcnn.traversal.schedule import Schedule, groups, wavefront_lag

LIKELIHOOD = LogisticMixture(3, 256, 10)
WINDOW = 16
TITAN_X = {"Pyramid": 4.0, "PixelCNN++ with caching": 50.0}  # milliseconds a pixel, as recalled from the paper


class Given(Factor):
    """A factor whose context is at hand, so that its embedding is not timed."""

    def __init__(self, network: CausalNetwork, context: Tensor | None) -> None:
        super().__init__(LIKELIHOOD, network)
        self.at_hand = context

    def context(self, size: tuple[int, int], auxiliary: Tensor | None, labels: Tensor | None) -> Tensor | None:
        return self.at_hand


def make_factor(batch: int, side: int, *, context: int, **arguments: int) -> Given:
    torch.manual_seed(0)
    network = CausalNetwork(3, 256, LIKELIHOOD.num_params, context=context, **arguments).eval()
    image = torch.randn(batch, context, side, side).contiguous(memory_format=torch.channels_last) if context else None
    return Given(network, image)


def plain(batch: int, side: int) -> Given:
    return make_factor(batch, side, context=100, filters=100, blocks=3, scales=1)


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def draw(factor: Given, batch: int, side: int, schedule: Schedule = "auto", dtype: torch.dtype | None = None) -> None:
    """Sample a batch of square images."""
    noise = position_noise(LIKELIHOOD, (side, side), range(batch), 0)
    canvas = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    traverse(
        factor,
        canvas,
        lambda params, rows, cols: LIKELIHOOD.sample(params, noise[:, :, rows, cols]),
        schedule=schedule,
        dtype=dtype,
    )


def multiplications(factor: Given) -> float:
    """Of the convolutions, for one pixel."""
    x = torch.zeros(1, 3, WINDOW, WINDOW, dtype=torch.uint8)
    context = None if factor.at_hand is None else factor.at_hand[:1, :, :WINDOW, :WINDOW]
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        factor.network(x, context)
    return counter.get_total_flops() / 2 / WINDOW**2


def forward_passes(factor: Given, batch: int, side: int) -> Callable[[], object]:
    """One forward pass on images of this side, and the draw of one pixel."""
    x = torch.zeros(batch, 3, side, side, dtype=torch.uint8)
    context = None if factor.at_hand is None else factor.at_hand[:, :, :side, :side].contiguous()
    noise = position_noise(LIKELIHOOD, (side, side), range(batch), 0)

    def run() -> None:
        with torch.no_grad():
            params = factor.network(x, context)
            LIKELIHOOD.sample(params[:, :, -1:, -1], noise[:, :, -1:, -1])

    return run


def matrix_product(dtype: torch.dtype) -> Callable[[], float]:
    """Seconds for one multiplication in a large product."""
    a, b = torch.randn(4096, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    return lambda: seconds(lambda: a @ b) / (a.shape[0] * a.shape[1] * b.shape[1])


def milliseconds_a_pixel(times: list[float], pixels: int) -> float:
    return statistics.median(times) * 1e3 / pixels


def measure_plain(batch: int, side: int, dtype: torch.dtype, repeats: int, schedule: Schedule) -> dict[str, Any]:
    """The 3-block plain network against the floor and against windows."""
    factor, product = plain(batch, side), matrix_product(dtype)
    window = forward_passes(factor, batch, WINDOW)
    draw(factor, batch, side, schedule, dtype)
    window()
    sampled, products, windows = [], [], []
    for _ in range(repeats):
        products += [product() for _ in range(5)]
        windows += [seconds(window) for _ in range(10)]
        sampled.append(seconds(lambda: draw(factor, batch, side, schedule, dtype)))
    pixel = milliseconds_a_pixel(sampled, batch * side**2)
    floor = statistics.median(products) * multiplications(factor) * 1e3
    return {
        "images": batch,
        "side": side,
        "precision": str(dtype).removeprefix("torch."),
        "schedule": schedule,
        "steps": sum(1 for _ in groups((side, side), wavefront_lag(factor, (side, side), schedule))),
        "ms_a_pixel": pixel,
        "floor_ms_a_pixel": floor,
        "window_float32_ms_a_pixel": milliseconds_a_pixel(windows, batch),
        "over_floor": pixel / floor,
        "faster_than_window": milliseconds_a_pixel(windows, batch) / pixel,
    }


def measure_strided(batch: int, repeats: int, side: int = 32) -> dict[str, Any]:
    """PixelCNN++ against full forward passes."""
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
    """Milliseconds a pixel: drawing freely, and only images that have a given view, plain and compiled, in turns."""
    factor, view = plain(batch, side), torch.full((batch, 3, side // 2, side // 2), 128, dtype=torch.uint8)
    times: dict[tuple[bool, bool], list[float]] = {(False, False): [], (True, False): [], (True, True): []}
    for repeat in range(repeats + 1):
        for (consistent, compiled), measured in times.items():
            factor.constraint = Downsample(2) if consistent else None
            options: dict[str, Any] = {"auxiliary": view, "compile": compiled}
            time_taken = seconds(lambda options=options: sample_factor(factor, batch, (side, side), **options))
            if repeat > 0:  # the first compiles
                measured.append(time_taken)
    names = "free", "consistent", "consistent_compiled"
    pixels = [milliseconds_a_pixel(measured, batch * side**2) for measured in times.values()]
    return {"images": batch, "side": side} | dict(zip(names, pixels, strict=True))


def measure_growth(side: int, repeats: int) -> dict[str, Any]:
    """Seconds and memory for one image of this side."""
    factor = plain(1, side)
    draw(factor, 1, side)
    times = [seconds(lambda: draw(factor, 1, side)) for _ in range(repeats)]
    steps = sum(1 for _ in groups((side, side), wavefront_lag(factor, (side, side))))
    return {"side": side, "steps": steps, "seconds": statistics.median(times), "megabytes": memory(1, side) / 1e6}


def memory(batch: int, side: int) -> int:
    """Bytes by which a fresh process grows when it samples, the context not included."""
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        return pool.submit(growth_of_memory, batch, side).result()


def growth_of_memory(batch: int, side: int) -> int:
    factor = plain(batch, side)
    draw(plain(1, 24), 1, 24)  # what torch allocates once
    return peak_memory(lambda: draw(factor, batch, side))


def bits_on_the_way(factor: Factor, view: Tensor, auxiliary: Tensor | None, dtype: torch.dtype) -> Tensor:
    """Bits of each image under the parameters that a traversal shows, (B,)."""
    nats = torch.zeros(len(view))
    bounds = None
    if factor.constraint is not None and auxiliary is not None:
        bounds = factor.constraint.bounds(view, auxiliary, factor.likelihood.levels)

    def tell(params: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        x = view[:, :, rows, cols]
        between = bounds and Bounds(*(end[:, :, rows, cols] for end in bounds))
        nats.sub_(factor.likelihood.log_prob(params, x, between).sum(1))
        return x

    traverse(factor, torch.zeros_like(view), tell, auxiliary=auxiliary, dtype=dtype)
    return nats / math.log(2)


def measure_precision(folder: str) -> dict[str, float]:
    """What bf16 does to the bits per dimension of the held-out photographs."""
    model, photos = load(folder), load_images("photos", "test", size=32)
    links = model.links(photos.batch(range(len(photos))))
    full, half = (
        sum(bits_on_the_way(factor, *link, dtype) for factor, link in zip(model.factors, links, strict=True))
        / links[0][0][0].numel()
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
    """Bytes by which the process grows while it runs, looked at every few milliseconds."""
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
    """Seconds and memory over the side, beside what growth with the side and with the pixels would be."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(8.4, 3.4), layout="constrained")
    time_axes, memory_axes = figure.subplots(1, 2)
    sides = [row["side"] for row in growth]
    middle = growth[len(growth) // 2]
    time_axes.plot(sides, [row["seconds"] for row in growth], "o-", label="one image, wavefront")
    for power, name, style in ((1, "with the side", ":"), (2, "with the pixels", "--")):
        guide = [middle["seconds"] * (side / middle["side"]) ** power for side in sides]
        time_axes.plot(sides, guide, style, color="grey", label=f"growth {name}")
    time_axes.set(yscale="log", ylabel="seconds")
    time_axes.legend()
    memory_axes.plot(sides, [row["megabytes"] for row in growth], "o-")
    memory_axes.set(ylim=(0, None), ylabel="megabytes that the process grows by")
    for axes in (time_axes, memory_axes):
        axes.set(xscale="log", xlabel="side in pixels")
        axes.set_xticks(sides, [str(side) for side in sides])
        axes.xaxis.minorticks_off()
        axes.grid(alpha=0.3)
    figure.suptitle("Sampling on two CPU cores: 3 blocks, 100 filters, float32")
    figure.savefig(path, dpi=130)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the figures to this file")
    parser.add_argument("--plot", help="draw the growth with the side into this PNG file")
    parser.add_argument("--model", help="a trained model for 32x32, to see what bf16 does to the held-out photographs")
    parser.add_argument("--quick", action="store_true", help="small images, one repeat: to see that it runs")
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
        print(f"another machine: {figure:g} ms a pixel for {name} on a TitanX (the paper, as recalled)")
    results["another_machine_titan_x_ms_a_pixel_as_recalled"] = TITAN_X

    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=2)
    if options.plot:
        plot(results["growth"], options.plot)


if __name__ == "__main__":
    main()
