"""Measure lossless files: their size against the model's own bits and other codecs, and the time that they take.

    python benchmarks/codec.py [--data FOLDER] [--json FILE] [--plot FILE] [--limit LARGE SMALL] [--quick]

Four parts:

    sizes     real files of held-out images by every shipped model, against PNG, WebP and JPEG XL at effort 9. The
              128x128 images are files of their own (.pxc), the 32x32 ones an archive (.pxa). The *excess* is what the
              files take over the model's own bits in float32, headers and checksums included. The weights of the model
              are not counted. What was written is read again, and must be the same: all files, and of an archive the
              first 128 pictures
    speed     one picture of 128x128 and 16 of them: encoding, decoding, drawing consistently in float32, and scoring,
              in one process, taking turns; medians
    growth    one photograph at growing sizes: the same excess, the time, and by how much a fresh process grows
    quality   how close the picture is if only a part of its file is there: the peak signal-to-noise ratio (PSNR) of its
              largest whole view, enlarged by Pillow's bicubic filter

The data folder holds `lfw-128`, `celeba-32x32`, `cifar10-jpeg` and `cid22-512`, each a folder that `load_images` opens;
what is missing is left out. The photographs are those of this package. Models that were trained on images from JPEG
files are tested on such images too, so their bits cannot be compared with published ones.
"""

import argparse
import io
import math
import platform
import statistics
import sys
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from measuring import peak_memory, seconds
from PIL import Image
from torch import Tensor

from pixelcnn.codec.archive import Archive
from pixelcnn.codec.chunks import write_chunk
from pixelcnn.codec.container import VIEW, File, read_file
from pixelcnn.common.files import write_json
from pixelcnn.common.progress import late_bar, progress_bar
from pixelcnn.data.images import Images, load_images
from pixelcnn.data.originals import Original, take_originals
from pixelcnn.models.codec import Codec, Count, Restored
from pixelcnn.models.decompression import decompress
from pixelcnn.models.factor import Factor
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.models.shipped import list_models, zoo_folder
from pixelcnn.models.tiles import plan, score_by_tiles
from pixelcnn.nn.layers import evaluating
from pixelcnn.pictures.charts import COLORS, MARKERS
from pixelcnn.tasks.lossless import codec_bits_per_dim
from pixelcnn.tasks.scoring import surprisal

PHOTOS, NATIVE, MODEL = "photos", "cid22-512", "photos-pyramid"
SETS = {
    MODEL: PHOTOS,
    "faces128-pyramid": "lfw-128",
    "faces32-grayscale": "celeba-32x32",
    "cifar10-grayscale": "cifar10-jpeg",
    "cifar10-classes": "cifar10-jpeg",
}
SIDE = 128  # of pictures that get a file of their own
PIXELS_AT_ONCE = 2**18
READ = 128  # pictures of an archive that are read again
COMPARED = 2**17  # pixels on which exact arithmetic is compared with float32
GOALS = {"must": (0.005, 64), "aim": (0.003, 48)}  # the share and the bytes over the model's own bits
SPEED_GOALS = (
    "decoding over encoding must be at least 5 (aim: 10), "
    "and decoding over drawing at most 2 for one picture and 2.5 for 16 (aim: 1.3 and 1.8)"
)


@dataclass(frozen=True)
class Effort:
    """How much to measure: numbers of images, sides in pixels, and repeats."""

    large: int = 48
    small: int = 500
    repeats: int = 5
    batches: tuple[int, ...] = (1, 16)
    sides: tuple[int, ...] = (32, 64, 128, 256, 512)
    shown: int = 6


QUICK = Effort(large=3, small=24, repeats=1, batches=(1, 4), sides=(16, 32, 64), shown=2)


class Written(NamedTuple):
    """Files of some pictures: the bytes of each (.pxc) or of all (.pxa), of the streams, and what they read as."""

    sizes: list[int]
    streams: int
    files: list[File]


@contextmanager
def counting(description: str, pixels: int) -> Iterator[Count]:
    """Show a progress bar of pixels, and give a function that counts them."""
    done = 0
    with late_bar(description, visible=True) as show:

        def count(number: int) -> None:
            nonlocal done
            done += number
            show(min(1.0, done / pixels))

        yield count


def own_bits(factors: Sequence[Factor], model: ImageModel, x: Tensor, labels: Tensor | None) -> Tensor:
    """Score images (B, C, H, W) with the factors of a model, or with exact twins of them, in bits: float64 (B,)."""
    sizes = model.sizes((x.shape[2], x.shape[3]))
    at_once, bits = max(1, PIXELS_AT_ONCE // math.prod(sizes[0])), []
    with counting("scoring", len(x) * sum(map(math.prod, sizes))) as count, evaluating():
        for i in range(0, len(x), at_once):
            some, theirs = x[i : i + at_once], None if labels is None else labels[i : i + at_once]
            tilings = plan(factors, len(some), sizes, consistent=model.consistent)
            scores = [
                score_by_tiles(factor, tiling, link, theirs, count, consistent=model.consistent).double().sum((1, 2))
                for factor, tiling, link in zip(factors, tilings, model.links(some), strict=True)
            ]
            bits.append(-sum(scores) / math.log(2))
    return torch.cat(bits)


def write_files(codec: Codec, originals: list[Original], labels: Tensor | None) -> Written:
    """Compress pictures to files of their own."""
    with counting("compressing", codec.pixels(originals)) as count:
        contents = codec.compress(originals, labels, count=count)
    files = [read_file(content) for content in contents]
    streams = sum(len(file.png or b"") + sum(map(len, file.views)) for file in files)
    return Written([len(content) for content in contents], streams, files)


def write_archive(codec: Codec, originals: list[Original], labels: Tensor | None) -> Written:
    """Compress pictures to an archive."""
    names = [f"{i:06}.png" for i in range(len(originals))]
    with counting("compressing", codec.pixels(originals)) as count:
        archive = Archive(content := codec.archive(originals, names, labels, count=count))
    return Written(
        [len(content)],
        sum(entry.length for entry in archive.entries),
        [archive.open(i) for i in range(min(READ, len(originals)))],
    )


def read_again(codec: Codec, files: list[File], originals: list[Original]) -> None:
    """Decompress files, and raise an error if a picture is not what it was."""
    with counting("decompressing", codec.pixels(originals[: len(files)])) as count:
        restored = codec.restore(files, count=count)
    for i, (each, original) in enumerate(zip(restored, originals, strict=False)):
        if not (isinstance(each, Restored) and torch.equal(each.original.x, original.x)):
            raise RuntimeError(f"picture {i} is not what it was: {each}")


def find_images(name: str, data: Path | None) -> Images | None:
    """Open the test images of a model; None if they are missing."""
    if name not in SETS or (SETS[name] != PHOTOS and (data is None or not (data / SETS[name]).is_dir())):
        print(f"{name} is left out: there are no test images of it", file=sys.stderr)
        return None
    if data is None or SETS[name] == PHOTOS:
        return load_images(PHOTOS, "test", size=SIDE)
    return load_images(data / SETS[name], "test")


def measure_sizes(name: str, images: Images, number: int, others: dict[str, float]) -> dict[str, Any]:
    """Measure the files of a model, given the bits of other codecs for the same images."""
    model, x = load(name), images.batch(range(number))
    codec, labels = (
        Codec(model, name),
        torch.tensor(images.labels[:number]) if model.classes and images.labels else None,
    )
    originals, dims = take_originals(x, *model.formats[0]), x.numel()
    bits, alone = own_bits(model.factors, model, x, labels), images.size[0] >= SIDE
    start = time.perf_counter()
    written = (write_files if alone else write_archive)(codec, originals, labels)
    middle = time.perf_counter()
    read_again(codec, written.files, originals)
    end = time.perf_counter()
    few = max(1, COMPARED // math.prod(images.size))
    exact = own_bits([coder.factor for coder in codec.coders], model, x[:few], None if labels is None else labels[:few])
    total, own = sum(written.sizes), float(bits.sum())
    row = {
        "model": name,
        "images": SETS[name],
        "side": images.size[0],
        "number": number,
        "files": "pxc" if alone else "pxa",
        "own": own / dims,
        "streams": 8 * written.streams / dims,
        "written": 8 * total / dims,
        "excess_percent": 100 * (8 * total / own - 1),
        "excess_bytes": (total - own / 8) / number,
        "overhead_bytes": (total - written.streams) / number,
        "stored_as_png": sum(file.png is not None for file in written.files),
        "loss_of_exact_arithmetic": float((exact - bits[:few]).sum()) / x[:few].numel(),
        **others,
        "compress_seconds": (middle - start) / number,
        "decompress_seconds": (end - middle) / len(written.files),
        "read_again": len(written.files),
        "weight_bytes": (zoo_folder(name) / WEIGHTS).stat().st_size,
    }
    return row | (compare_with_goals(written.sizes, bits) if alone else {})


def compare_with_goals(sizes: list[int], bits: Tensor) -> dict[str, Any]:
    """Say how many files of pictures keep within each goal, and what the worst one takes over the model's own bits."""
    own = [float(each) / 8 for each in bits]
    kept = {
        f"within_{goal}": sum(size <= (1 + share) * mine + most for size, mine in zip(sizes, own, strict=True))
        for goal, (share, most) in GOALS.items()
    }
    share, _ = GOALS["must"]
    worst = max(range(len(own)), key=lambda i: sizes[i] - (1 + share) * own[i])
    excess = sizes[worst] - own[worst]
    return kept | {"worst": {"picture": worst, "own_bytes": own[worst], "excess_bytes": excess}}


def measure_speed(batch: int, side: int, repeats: int) -> dict[str, Any]:
    """Time everything that a model does with pictures, in turns; medians in seconds for the whole batch."""
    model = load(MODEL)
    codec, x = Codec(model), load_images(PHOTOS, "test", size=side).batch(range(batch))
    streams = codec.encode(x)
    ways = {
        "encode": lambda: codec.encode(x),
        "decode": lambda: codec.decode(streams, (side, side)),
        "draw": lambda: model.sample(batch, side),
        "score": lambda: surprisal(model, x),
    }
    times: dict[str, list[float]] = {way: [] for way in ways}
    model.sample(batch, 16)  # what is done only once
    with progress_bar(visible=True) as bar:
        for _ in bar.track(range(repeats), description=f"timing {batch} of {side}x{side}"):
            for way, run in ways.items():
                times[way].append(seconds(run))
    row: dict[str, Any] = {way: statistics.median(taken) for way, taken in times.items()}
    ratios = {"decode_over_encode": row["decode"] / row["encode"], "decode_over_draw": row["decode"] / row["draw"]}
    return {"pictures": batch, "side": side, "repeats": repeats} | row | ratios


def measure_growth(source: Path | str, side: int) -> dict[str, Any]:
    """Measure bytes and seconds of one photograph at a size."""
    model, x = load(MODEL), load_images(source, "test", size=side).batch([0])
    codec, originals = Codec(model, MODEL), take_originals(x, *model.formats[0])
    own = float(own_bits(model.factors, model, x, None)) / 8
    sizes, encoded, decoded = [], [], []
    for _ in range(3 if side <= SIDE else 1):
        start = time.perf_counter()
        written = write_files(codec, originals, None)
        encoded.append(time.perf_counter() - start)
        decoded.append(seconds(lambda written=written: read_again(codec, written.files, originals)))
        sizes.append(written.sizes[0])
    return {
        "side": side,
        "own_bytes": own,
        "file_bytes": sizes[0],
        "excess_percent": 100 * (sizes[0] / own - 1),
        "excess_bytes": sizes[0] - own,
        "encode": statistics.median(encoded),
        "decode": statistics.median(decoded),
    }


def measure_memory(source: Path | str, side: int) -> dict[str, float]:
    """Measure the megabytes by which a fresh process grows as it codes one photograph."""
    x = load_images(source, "test", size=side).batch([0])
    with ProcessPoolExecutor(1, get_context("spawn")) as pool:
        encoding, decoding = pool.submit(growth_of_memory, x.numpy()).result()
    return {"encode_megabytes": encoding, "decode_megabytes": decoding}


def growth_of_memory(pixels: np.ndarray) -> tuple[float, float]:
    """Measure the megabytes by which this process grows as it encodes and as it decodes."""
    codec, x = Codec(load(MODEL)), torch.from_numpy(pixels)
    small = torch.zeros(1, 3, 16, 16, dtype=torch.uint8)
    codec.decode(codec.encode(small), (16, 16))  # torch allocates some memory only once
    streams: list[list[bytes]] = []
    encoding = peak_memory(lambda: streams.extend(codec.encode(x)))
    decoding = peak_memory(lambda: codec.decode(streams, (x.shape[2], x.shape[3])))
    return encoding / 1e6, decoding / 1e6


def measure_quality(picture: Image.Image, model: ImageModel, codec: Codec) -> list[dict[str, Any]]:
    """Cut the file of a picture after each of its views, and compare what is left with the picture."""
    content = codec.compress(take_originals(picture, *model.formats[0]))[0]
    views, rows = read_file(content).views, []
    for number in range(1, len(views) + 1):
        received = len(content) - sum(len(write_chunk(VIEW, view)) for view in views[number:])
        shown = decompress(content[:received], model)
        enlarged = shown.resize(picture.size, Image.Resampling.BICUBIC)
        rows.append(
            {
                "side": shown.width,
                "bytes": received,
                "share": received / len(content),
                "psnr": psnr(np.asarray(enlarged), np.asarray(picture)),
            }
        )
    return rows


def psnr(x: np.ndarray, y: np.ndarray) -> float | None:
    """Compute the peak signal-to-noise ratio in decibels; None if there is no noise."""
    square = float(np.square(x.astype(float) - y).mean())
    return 10 * math.log10(255**2 / square) if square else None


def all_sizes(data: Path | None, effort: Effort) -> list[dict[str, Any]]:
    """Measure the files of every shipped model that there are images for."""
    rows: list[dict[str, Any]] = []
    others: dict[str, dict[str, float]] = {}
    for name in list_models():
        if (images := find_images(name, data)) is None:
            continue
        number = min(len(images), effort.large if images.size[0] >= SIDE else effort.small)
        if SETS[name] not in others:
            others[SETS[name]] = codec_bits_per_dim(images, limit=number, progress=True)
        rows.append(measure_sizes(name, images, number, others[SETS[name]]))
        print_sizes(rows[-1])
    return rows


def print_sizes(row: dict[str, Any]) -> None:
    codecs = ", ".join(f"{codec} {row[codec]:.3f}" for codec in ("PNG", "WebP", "JPEG XL") if codec in row)
    print(
        f"{row['model']}: {row['number']} of {row['images']}, {row['side']}x{row['side']}, .{row['files']}\n"
        f"    bits per dimension: own {row['own']:.4f}, streams {row['streams']:.4f}, files {row['written']:.4f}; "
        f"{codecs}\n"
        f"    excess {row['excess_percent']:.2f} %, {row['excess_bytes']:.1f} bytes a picture, of which "
        f"{row['overhead_bytes']:.1f} not in streams; exact arithmetic loses "
        f"{row['loss_of_exact_arithmetic']:.5f} bits per dimension\n"
        f"    seconds a picture: {row['compress_seconds']:.3f} to compress, "
        f"{row['decompress_seconds']:.3f} to decompress ({row['read_again']} read again, all the same)\n"
        f"    {row['stored_as_png']} of these stored as PNG; weights of {row['weight_bytes']:,} bytes, not counted",
        flush=True,
    )
    if "worst" in row:
        goals = ", ".join(
            f"{goal} ({100 * share:g} % + {most} bytes): {row[f'within_{goal}']} of {row['number']}"
            for goal, (share, most) in GOALS.items()
        )
        worst = row["worst"]
        own, excess = worst["own_bytes"], worst["excess_bytes"]
        print(f"    files within {goals}; worst: {excess:.1f} bytes over {own:.0f}, {100 * excess / own:.2f} %")


def print_table(rows: Sequence[dict[str, Any]], columns: dict[str, str]) -> None:
    """Print columns of rows, each in its format, under their names."""
    print("  ".join(f"{name:>{max(9, len(name))}}" for name in columns))
    for row in rows:
        cells = ("lossless" if row[name] is None else format(row[name], form) for name, form in columns.items())
        print("  ".join(f"{cell:>{max(9, len(name))}}" for name, cell in zip(columns, cells, strict=True)), flush=True)


def plot(results: dict[str, Any], path: Path) -> None:
    """Plot sizes against other codecs, the growth of time, and the quality over bytes."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context({"svg.hashsalt": "pixelcnn", "axes.spines.top": False, "axes.spines.right": False}):
        figure = Figure(figsize=(12.5, 3.9), layout="constrained")
        sizes, growth, quality = figure.subplots(1, 3, width_ratios=(1.3, 1, 1))
        plot_sizes(sizes, results["sizes"])
        plot_growth(growth, results["growth"])
        plot_quality(quality, results["quality"])
        file = io.BytesIO()
        kind = path.suffix.removeprefix(".") or "png"
        figure.savefig(file, format=kind, dpi=130, metadata={"Date": None} if kind == "svg" else None)
    path.write_bytes(file.getvalue())


def plot_sizes(axes: Any, rows: list[dict[str, Any]]) -> None:
    kinds = {"written": "this package", "JPEG XL": "JPEG XL", "WebP": "WebP", "PNG": "PNG"}
    kinds = {kind: label for kind, label in kinds.items() if all(kind in row for row in rows)}
    for i, (kind, label) in enumerate(kinds.items()):
        places = [place + (i - 1.5) * 0.2 for place in range(len(rows))]
        drawn = axes.barh(places, [row[kind] for row in rows], 0.19, color=COLORS[i], label=label)
        axes.bar_label(drawn, fmt="%.2f", padding=2, fontsize=7)
    axes.set_yticks(range(len(rows)), [f"{row['model']}\n{row['images']}" for row in rows], fontsize=8)
    axes.invert_yaxis()
    axes.margins(x=0.12)
    axes.set(xlabel="bits per dimension (weights not counted)", title="Files of held-out images")
    axes.legend(frameon=False, fontsize=8)


def plot_growth(axes: Any, rows: list[dict[str, Any]]) -> None:
    sides = [row["side"] for row in rows]
    for i, way in enumerate(("encode", "decode")):
        axes.plot(sides, [row[way] for row in rows], MARKERS[i] + "-", color=COLORS[i], label=f"{way[:-1]}ing")
    middle = rows[len(rows) // 2]
    for power, name, style in ((1, "with the side", ":"), (2, "with the pixels", "--")):
        guide = [middle["decode"] * (side / middle["side"]) ** power for side in sides]
        axes.plot(sides, guide, style, color="gray", label=f"growth {name}")
    axes.set(xscale="log", yscale="log", xlabel="side in pixels", ylabel="seconds", title="One photograph")
    axes.set_xticks(sides, [str(side) for side in sides])
    axes.xaxis.minorticks_off()
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8)


def plot_quality(axes: Any, pictures: list[list[dict[str, Any]]]) -> None:
    """Plot the quality of each picture over the share of bytes, as steps up to the whole file, and their mean."""
    top = 6 + max(row["psnr"] for rows in pictures for row in rows if row["psnr"] is not None)
    levels = []
    for rows in pictures:
        shares, heights = [row["share"] for row in rows], [top if row["psnr"] is None else row["psnr"] for row in rows]
        levels.append((shares, heights))
        axes.step(shares, heights, where="post", color=COLORS[0], alpha=0.3, linewidth=1)
    means = np.mean(levels, 0)
    axes.plot(*means, "o", color=COLORS[1], label=f"mean of {len(pictures)} photographs")
    for share, height, row in zip(*means, pictures[0], strict=True):
        axes.annotate(f"{row['side']}x{row['side']}", (share, height), (5, -11), textcoords="offset points", fontsize=8)
    axes.axhline(top, color="gray", linestyle=":", label="lossless")
    axes.set(xlabel="share of the bytes received", ylabel="PSNR in decibels", title="A file that is cut off")
    axes.set(xlim=(0, 1.12), ylim=(None, top + 2))
    axes.grid(alpha=0.2)
    axes.legend(frameon=False, fontsize=8, loc="upper left", bbox_to_anchor=(0, 0.93))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, help="folder with the test images")
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--plot", type=Path, help="draw the results into this file, PNG or SVG")
    parser.add_argument("--limit", type=int, nargs=2, help="most images of a set, of 128x128 and 32x32 (48 and 500)")
    parser.add_argument("--quick", action="store_true", help="measure little, to see that everything runs")
    options = parser.parse_args()
    effort, start = QUICK if options.quick else Effort(), time.perf_counter()
    if options.limit:
        effort = replace(effort, large=options.limit[0], small=options.limit[1])
    results: dict[str, Any] = {
        "torch": torch.__version__,
        "threads": torch.get_num_threads(),
        "machine": platform.machine(),
        "quick": options.quick,
        "sizes": all_sizes(options.data, effort),
    }

    side = SIDE // 2 if options.quick else SIDE
    print(f"{MODEL}, {side}x{side}, threads: {results['threads']}, seconds; {SPEED_GOALS}")
    results["speed"] = [measure_speed(batch, side, effort.repeats) for batch in effort.batches]
    numbers = dict.fromkeys(("encode", "decode", "draw", "score"), ".3f")
    print_table(results["speed"], {"pictures": "d"} | numbers | dict.fromkeys(list(results["speed"][0])[-2:], ".2f"))

    native = options.data / NATIVE if options.data else None
    source = native if native is not None and native.is_dir() else PHOTOS
    results["growth_of"], most = Path(source).name, load_images(source, "test").size[0]
    print(f"one photograph of {results['growth_of']}, averaged down to each side")
    results["growth"] = [measure_growth(source, side) for side in effort.sides if side <= most]
    with progress_bar(visible=True) as bar:
        for row in bar.track(results["growth"], description="measuring memory"):
            row |= measure_memory(source, row["side"])
    sizes = {"side": "d", "own_bytes": ".0f", "file_bytes": "d", "excess_percent": ".2f", "excess_bytes": ".1f"}
    times = {"encode": ".2f", "decode": ".2f", "encode_megabytes": ".0f", "decode_megabytes": ".0f"}
    print_table(results["growth"], sizes | times)

    print(f"cut files of {effort.shown} photographs, {SIDE}x{SIDE}")
    model, photos = load(MODEL), load_images(PHOTOS, "test", size=SIDE)
    codec = Codec(model, MODEL)
    pictures = [Image.fromarray(photos[i].permute(1, 2, 0).numpy()) for i in range(min(effort.shown, len(photos)))]
    with progress_bar(visible=True) as bar:
        tracked = bar.track(pictures, description="cutting files")
        results["quality"] = [measure_quality(picture, model, codec) for picture in tracked]
    for rows in results["quality"]:
        print_table(rows, {"side": "d", "bytes": "d", "share": ".3f", "psnr": ".2f"})

    results["minutes"] = (time.perf_counter() - start) / 60
    print(f"{results['minutes']:.1f} minutes")
    if options.json:
        write_json(options.json, results)
    if options.plot:
        plot(results, options.plot)


if __name__ == "__main__":
    main()
