"""Measure the speed of a training step, as a share of the rate at which this machine multiplies matrices.

    python benchmarks/training.py [--json FILE] [--compile] [--peer FOLDER]

Each configuration is reported with its images a second, and with the rate of its multiplications as a share of that of
one large matrix product of the same precision. Both are medians of repeats that take turns in one process. Only the
multiplications of the convolutions are counted (three times those of the forward pass), so the share falls short of one
by whatever else a step does (activations, dropout, likelihood, weight norm, Adam), and by what the convolutions lose.

With `--peer FOLDER`, a step is compared with one of https://github.com/pclucas14/pixel-cnn-pp instead. FOLDER is a
checkout of it; it was written for Python 2 and a GPU, so in `utils.py` add parentheses to `print e`, and remove
`.cuda()` from `torch.zeros(xs + [nr_mix]).cuda()`. The steps take turns in one process on one thread, and their CPU
time is measured, so that other work on the machine disturbs them little. The peer only has float32.
"""

import argparse
import importlib
import json
import platform
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.flop_counter import FlopCounterMode

from pixelcnn.likelihoods.logistic import LogisticMixture
from pixelcnn.models.factor import Factor
from pixelcnn.nn.causal import CausalNetwork

# Name, arguments of the network, and batch size. Other implementations use the first two as well.
CONFIGURATIONS = [
    ("PixelCNN++ 2 blocks, 40 filters", {"blocks": 2, "filters": 40, "scales": 3}, 16),
    ("PixelCNN++ 3 blocks, 64 filters", {"blocks": 3, "filters": 64, "scales": 3}, 8),
    ("plain 3 blocks, 32 filters", {"blocks": 3, "filters": 32, "scales": 1}, 16),
    ("plain 3 blocks, 64 filters", {"blocks": 3, "filters": 64, "scales": 1}, 16),
    ("plain 3 blocks, 100 filters", {"blocks": 3, "filters": 100, "scales": 1}, 16),
]
SIZE = 32
PEERS = 2  # the number of configurations, from the first on, that the peer has too


def seconds(run: Callable[[], object]) -> float:
    start = time.perf_counter()
    run()
    return time.perf_counter() - start


def matrix_product(dtype: torch.dtype) -> tuple[Callable[[], object], int]:
    """Prepare a large product, and count its multiplications."""
    a, b = torch.randn(4096, 1024, dtype=dtype), torch.randn(1024, 1024, dtype=dtype)
    return lambda: a @ b, a.shape[0] * a.shape[1] * b.shape[1]


def training_step(
    arguments: dict[str, int], batch: int, *, bf16: bool, compiled: bool
) -> tuple[Callable[[], None], int]:
    """Prepare a whole optimizer step on random images, and count the multiplications of its convolutions."""
    torch.manual_seed(0)
    likelihood = LogisticMixture(3, 256, 10)
    factor = Factor(likelihood, CausalNetwork(3, 256, likelihood.num_params, dropout=0.5, **arguments))
    x = torch.randint(0, 256, (batch, 3, SIZE, SIZE), dtype=torch.uint8)
    factor.initialize(x)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        factor(x)
    optimizer = torch.optim.Adam(factor.parameters(), 1e-3, fused=True)
    if compiled:
        factor.compile()

    def step() -> None:
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            loss = -factor(x).mean() / x[0].numel()
        loss.backward()
        optimizer.step()
        optimizer.zero_grad()

    return step, 3 * counter.get_total_flops() // 2


def measure(
    name: str, arguments: dict[str, int], batch: int, *, bf16: bool, compiled: bool, repeats: int
) -> dict[str, Any]:
    step, multiplications = training_step(arguments, batch, bf16=bf16, compiled=compiled)
    product, product_multiplications = matrix_product(torch.bfloat16 if bf16 else torch.float32)
    first = seconds(step)
    seconds(step)
    seconds(product)
    steps, products = [], []
    for _ in range(repeats):
        products += [seconds(product) for _ in range(5)]
        steps.append(seconds(step))
    rate = multiplications / statistics.median(steps)
    peak = product_multiplications / statistics.median(products)
    return {
        "configuration": name,
        "batch": batch,
        "precision": "bf16" if bf16 else "float32",
        "mode": "compiled" if compiled else "eager",
        "first_step_seconds": round(first, 1),
        "images_per_second": round(batch / statistics.median(steps), 1),
        "multiplications_per_second": rate,
        "matrix_product_per_second": peak,
        "share": round(rate / peak, 3),
    }


def peer_step(folder: str, arguments: dict[str, int], batch: int) -> Callable[[], None]:
    """Prepare the same step with the network and the likelihood of the peer, and the optimizer of its `main.py`."""
    sys.path.insert(0, folder)
    model, utils = importlib.import_module("model"), importlib.import_module("utils")
    sys.path.remove(folder)
    torch.manual_seed(0)
    network = model.PixelCNN(arguments["blocks"], arguments["filters"], 10)
    x = torch.rand(batch, 3, SIZE, SIZE) * 2 - 1
    optimizer = torch.optim.Adam(network.parameters(), 1e-3)

    def step() -> None:
        loss = utils.discretized_mix_logistic_loss(x, network(x)) / x.numel()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def compare(folder: str, name: str, arguments: dict[str, int], batch: int, repeats: int) -> list[dict[str, Any]]:
    """Compare our steps in both precisions with those of the peer, all taking turns."""
    steps = {bf16: training_step(arguments, batch, bf16=bf16, compiled=False)[0] for bf16 in (False, True)}
    turns: dict[str, Callable[[], None]] = {"float32": steps[False], "bf16": steps[True]}
    turns["peer"] = peer_step(folder, arguments, batch)
    times: dict[str, list[float]] = {who: [] for who in turns}
    for turn in range(repeats + 2):
        for who, step in turns.items():
            start = time.process_time()
            step()
            if turn >= 2:  # the first two warm up
                times[who].append(time.process_time() - start)
    medians = {who: statistics.median(each) for who, each in times.items()}
    return [
        {
            "configuration": name,
            "batch": batch,
            "precision": precision,
            "images_per_cpu_second": round(batch / medians[precision], 1),
            "peer_images_per_cpu_second": round(batch / medians["peer"], 1),
            "times_as_fast": round(medians["peer"] / medians[precision], 2),
        }
        for precision in ("float32", "bf16")
    ]


def report(rows: list[dict[str, Any]], file: str | None) -> None:
    if file:
        with open(file, "w") as out:
            json.dump({"torch": torch.__version__, "threads": torch.get_num_threads(), "rows": rows}, out, indent=2)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", help="also write the results to this file")
    parser.add_argument("--compile", action="store_true", help="also measure torch.compile, which takes minutes")
    parser.add_argument("--repeats", type=int, default=9)
    parser.add_argument("--only", default="", help="only configurations with this text in their name")
    parser.add_argument("--peer", help="compare with this checkout instead (see above)")
    options = parser.parse_args()
    if options.peer:
        torch.set_num_threads(1)
        warnings.simplefilter("ignore")  # the peer calls functions of an older torch
    print(f"torch {torch.__version__}, {torch.get_num_threads()} threads, {platform.machine()}", file=sys.stderr)
    rows: list[dict[str, Any]] = []
    if options.peer:
        for name, arguments, batch in CONFIGURATIONS[:PEERS]:
            if options.only in name:
                for row in compare(options.peer, name, arguments, batch, options.repeats):
                    rows.append(row)
                    print(
                        f"{name:34}{row['precision']:>8}{row['images_per_cpu_second']:>7} images a CPU second, "
                        f"the peer {row['peer_images_per_cpu_second']}: {row['times_as_fast']} times as fast",
                        flush=True,
                    )
        return report(rows, options.json)
    for name, arguments, batch in CONFIGURATIONS:
        for compiled in (False, True) if options.compile else (False,):
            for bf16 in (False, True):
                if options.only in name:
                    row = measure(name, arguments, batch, bf16=bf16, compiled=compiled, repeats=options.repeats)
                    rows.append(row)
                    print(
                        f"{name:34}{row['precision']:>8}{row['mode']:>9}{row['images_per_second']:>7} images/s"
                        f"{row['share']:7.0%} of {row['matrix_product_per_second'] / 1e9:.0f} G multiplications/s",
                        flush=True,
                    )
    report(rows, options.json)


if __name__ == "__main__":
    main()
