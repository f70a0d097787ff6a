"""Plan training and coding at a scale that was not measured, from operations that were counted and shares that were.

    python benchmarks/plan.py

Counted: multiplications of a training image of each factor (three times those of a forward pass), and bytes of its
gradient in float32. Measured: the share of the rate of matrix products that a training step reaches in bf16
(`training.json`), the time that launching the operations of a step takes on an H100 (docs/results.md), and the seconds
and bytes of compressed thumbnails (`codec.json`). Assumed, as options: the rate of a GPU for products (that of an H100
in bf16), its links to others in its node and beyond, the time that a message takes, the largest batch that still
learns well, and the price of a core. An all-reduce sends each GPU twice the gradient, less one part in N, and goes on
behind the work.
"""

import argparse
import json
import math
from collections.abc import Callable
from pathlib import Path

from torch.utils.flop_counter import FlopCounterMode

from pixelcnn.models.factor import Factor
from pixelcnn.models.memory import meta_inputs, meta_twin
from pixelcnn.nn.layers import evaluating
from pixelcnn.zoo.recipes import find_recipe

HERE = Path(__file__).parent
RECIPE, SIDE = "celeba128-pyramid", 128
GPUS, IN_NODE = (1, 8, 32, 128, 1024), 8
DAY, HOUR = 86_400, 3_600
BILLION = 10**9


def training_multiplications(factor: Factor, size: tuple[int, int]) -> int:
    """Count the multiplications of a training step on one image, of its convolutions."""
    twin = meta_twin(factor)
    link, labels = meta_inputs(twin, 1, size)
    with FlopCounterMode(display=False) as counter, evaluating():
        twin(*link, labels)
    return 3 * counter.get_total_flops() // 2


def reducing(gradient: int, gpus: int, options: argparse.Namespace) -> float:
    """Estimate the seconds of an all-reduce of a gradient."""
    if gpus == 1:
        return 0.0
    link = options.node_link if gpus <= IN_NODE else options.link
    return 2 * gradient * (1 - 1 / gpus) / link + 2 * math.log2(gpus) * options.message


def table(header: list[str], rows: list[list[str]]) -> None:
    for row in [header, ["---"] * len(header), *rows]:
        print(f"| {' | '.join(row)} |")
    print()


def plan_training(options: argparse.Namespace) -> None:
    measured = json.loads((HERE / "training.json").read_text())["rows"]
    share = max(row["share"] for row in measured if row["precision"] == "bf16")
    rate = options.products * share
    model = find_recipe(RECIPE).model()
    sizes = model.sizes((SIDE, SIDE))
    work = [training_multiplications(factor, size) for factor, size in zip(model.factors, sizes, strict=True)]
    gradients = [4 * sum(p.numel() for p in factor.parameters()) for factor in model.factors]
    print(f"{RECIPE}: {share:.0%} of {options.products:.3g} multiplications a second are {rate:.3g}\n")
    rows = []
    for k, ((H, W), each, gradient) in enumerate(zip(sizes, work, gradients, strict=True)):
        equal = rate * reducing(gradient, GPUS[-1], options) / each
        figures = each / 1e9, gradient / 1e6, rate / each, rate / each * DAY / 1e6, equal
        rows.append([f"{k}: {W}x{H}", *(f"{figure:,.1f}" if figure < 300 else f"{figure:,.0f}" for figure in figures)])
    units = ["billion multiplications an image", "MB of gradient", "images a second", "million images a day"]
    table(["factor", *units, f"images that take as long as an all-reduce over {GPUS[-1]:,}"], rows)
    for k in (0, len(work) - 1):
        print(f"factor {k}, {options.batch:,} images a step:\n")
        rows = []
        for gpus in GPUS:
            compute = options.batch / gpus * work[k] / rate
            reduce = reducing(gradients[k], gpus, options)
            step = max(compute, reduce, options.launching)
            times = [f"{1e3 * each:,.1f}" for each in (compute, reduce, step)]
            daily = options.batch / step * DAY / 1e6
            rows.append([f"{gpus:,}", f"{options.batch / gpus:,.0f}", *times, f"{compute / step:.1%}", f"{daily:,.0f}"])
        units = ["images on each", "ms of work", "ms of all-reduce", "ms of a step", "efficiency"]
        table(["GPUs", *units, "million images a day"], rows)
    print(f"all factors one after another take {sum(work) / max(work):.2f} times as long as side by side\n")


def plan_thumbnails(options: argparse.Namespace) -> None:
    measured = json.loads((HERE / "codec.json").read_text())
    rows = []
    for each in measured["sizes"]:
        name, dims = f"`{each['model']}`, {each['side']}x{each['side']}", 3 * each["side"] ** 2
        cores = each["compress_seconds"] * measured["threads"]
        hours = BILLION * cores / HOUR
        saved = BILLION * (each["JPEG XL"] - each["written"]) * dims / 8
        figures = 1e3 * cores, hours / 1e3, hours * options.price, each["written"] * dims / 8
        rows.append([name, *(f"{figure:,.0f}" for figure in figures), f"{saved / 1e12:.2f}"])
    units = ["core-milliseconds to compress", "thousand core-hours for a billion", "dollars", "bytes each"]
    table(["model", *units, "TB less than JPEG XL"], rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--products", type=float, default=989e12 / 2, help="multiplications a second of a GPU")
    parser.add_argument("--node-link", type=float, default=450e9, help="bytes a second between GPUs of a node")
    parser.add_argument("--link", type=float, default=50e9, help="bytes a second of a GPU to another node")
    parser.add_argument("--message", type=float, default=10e-6, help="seconds that a message takes")
    parser.add_argument("--launching", type=float, default=0.05, help="seconds that a step takes at least")
    parser.add_argument("--batch", type=int, default=2048, help="images of a step, over all GPUs")
    parser.add_argument("--price", type=float, default=0.04, help="dollars for an hour of a core")
    options = parser.parse_args()
    sections: list[Callable[[argparse.Namespace], None]] = [plan_training, plan_thumbnails]
    for section in sections:
        section(options)


if __name__ == "__main__":
    main()
