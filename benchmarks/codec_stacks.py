"""Prove that the same compressed files decode to the same pixels on other software stacks.

    python benchmarks/codec_stacks.py [--json FILE] [--python PATH ...]

The files are a photograph compressed by each installed model (two for `photos-pyramid`, of which one is large enough
that torch splits its work among threads), and those of `tests/golden`. Each way runs in a process of its own: with
other numbers of threads, without MKL-DNN, with other instructions in the BLAS, in torch's own functions and in NumPy,
and with the interpreters of other environments. Each process also compresses the photographs again, which must give the
same bytes.

As a control, each process computes ordinary floating point too: the parameters of the models in float32, products of
matrices in float64, and sums and functions by NumPy. Where these differ from those of the first process, the way really
computes otherwise. (MKL ignores most settings of its instructions on processors that are not Intel's.)

The orders of pixels are compared by the parameters of all factors in exact arithmetic, which must be the same to the
last bit: in one pass, in the wavefront, and in raster order, as a decoder sees them.

Prints what was the same, and exits with 1 if anything differs. To make another environment, with another torch, say:

    python -m venv /tmp/other
    /tmp/other/bin/pip install "torch==2.9.*" "numpy<2" . ./zoo
    python benchmarks/codec_stacks.py --python /tmp/other/bin/python

Where pip would install gigabytes of CUDA, name an index with wheels for the CPU. To change less than torch, install
only what should differ, such as "numpy<2" and "constriction==0.4.2", and let a `.pth` file in its `site-packages` name
the `site-packages` of this environment.
"""

import argparse
import hashlib
import json
import os
import subprocess
import sys
import tempfile
import warnings
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from pixelcnn.codec.container import read_file
from pixelcnn.common import threads
from pixelcnn.common.files import write_json
from pixelcnn.common.progress import progress_bar
from pixelcnn.data.images import load_images
from pixelcnn.data.originals import Original, read_original, take_originals
from pixelcnn.models.base import ChainModel
from pixelcnn.models.codec import Codec, Restored
from pixelcnn.models.decompression import Restorer, matches, open_files
from pixelcnn.models.exact import exact_twin
from pixelcnn.models.factor import Factor, Visit
from pixelcnn.models.load import load
from pixelcnn.models.shipped import list_models
from pixelcnn.nn.layers import evaluating
from pixelcnn.traversal.schedule import Schedule

GOLDEN = Path(__file__).parents[1] / "tests" / "golden"
GOLDEN_MODELS = sorted(path.parent.name for path in GOLDEN.glob("*/config.json"))
CROP = slice(3, 40), slice(1, 32)  # of a photograph of 48x48: odd sides
FIRST = 5  # photograph: those before it are smaller as PNG than by `cifar10-classes`
LARGE = 112
SCHEDULES: dict[str, Schedule] = {"wavefront": "auto", "raster order": "raster"}  # networks without a lag have no front
Digests = dict[str, str]


@dataclass
class Way:
    """A way to decode: variables of the environment, arguments of the child, and an interpreter."""

    variables: dict[str, str] = field(default_factory=dict)
    arguments: tuple[str, ...] = ()
    python: str = sys.executable


def digest(*contents: bytes) -> str:
    return hashlib.sha256(b"".join(contents)).hexdigest()


def digest_picture(original: Original) -> str:
    """Hash the pixels of a picture, with its size and transparency."""
    picture = original.to_picture()
    return digest(repr((picture.mode, picture.size)).encode(), picture.tobytes())


def model_of(name: str) -> str:
    """Return the name of the model of a photograph: "photos-pyramid, large" is by photos-pyramid."""
    return name.split(",")[0]


def photographs() -> dict[str, Tensor]:
    """Choose a photograph for each installed model, and a large one: (3, H, W)."""
    small, large = (load_images("photos", "test", size=size) for size in (48, LARGE))
    found = {name: small[i][:, *CROP] for i, name in enumerate(list_models(), FIRST)}
    return found | {"photos-pyramid, large": large[7]}


def write_photographs(folder: Path) -> dict[str, Tensor]:
    """Write the photographs to a folder as PNG, since another environment might read their source otherwise."""
    found = photographs()
    for name, x in found.items():
        (folder / f"{name}.png").write_bytes(Original(x).to_png())
    return found


def read_photographs(folder: Path) -> dict[str, Tensor]:
    return {path.stem: read_original(path.read_bytes(), path.name).x for path in sorted(folder.glob("*.png"))}


def compress_all(photos: dict[str, Tensor]) -> dict[str, bytes]:
    """Compress the photographs: the content of a file for each."""
    contents = {}
    for name, x in photos.items():
        model = load(model_of(name))
        codec = Codec(model, model_of(name))
        contents[name] = codec.compress(take_originals(x, 3, 256), [1] if model.classes else None)[0]
    return contents


def decode(content: bytes, device: str) -> str:
    """Decode a file or an archive, with the model that it needs, and hash its pictures."""
    files = open_files(content)
    ours = [load(GOLDEN / name, device=device) for name in GOLDEN_MODELS]
    model: ChainModel | None = next((each for each in ours if matches(each, files[0].coding)), None)
    restored = Restorer(model, device).restore(files)
    return digest(
        *(
            (digest_picture(each.original) if isinstance(each, Restored) else f"error: {each}").encode()
            for each in restored
        )
    )


def expected_golden() -> Digests:
    """Hash what the golden files hold, as the PNG files beside them say."""
    found = {}
    for path in golden_files():
        number = len(list(path.parent.glob(f"{path.stem}.*.png")))
        pictures = [read_original(path.with_suffix(f".{i}.png").read_bytes(), path.name) for i in range(number)]
        found[name_of(path)] = digest(*(digest_picture(each).encode() for each in pictures))
    return found


def golden_files() -> list[Path]:
    return sorted([*GOLDEN.glob("*/*.pxc"), *GOLDEN.glob("*/*.pxa")])


def name_of(path: Path) -> str:
    """Name a file; golden files of several models have the same name in folders of their own."""
    return f"{path.parent.name}/{path.name}" if GOLDEN in path.parents else path.name


def shown_params(factor: Factor, view: Tensor, given: Tensor | None, labels: Tensor | None, visit: Visit) -> Tensor:
    """Return the parameters (B, P, H, W) that a decoder sees if the view is what it decodes."""
    params = torch.empty(len(view), factor.likelihood.num_params, *view.shape[2:], dtype=torch.float64)

    def collect(shown: Tensor, rows: Tensor, cols: Tensor) -> Tensor:
        params[:, :, rows, cols] = shown
        return view[:, :, rows, cols]

    factor.traverse(torch.zeros_like(view), collect, given, labels, visit)
    return params


def control(photos: dict[str, Tensor]) -> Digests:
    """Hash what floating point gives: parameters in float32, products in float64, and sums and functions by NumPy."""
    params = []
    for name, x in photos.items():
        model = load(model_of(name))
        view, given = model.links(x[None])[0]
        with evaluating():
            params.append(model.factors[0].params(view, given, model.check_labels(1 if model.classes else None, 1)))
    y = np.random.default_rng(0).standard_normal((4, 10**5))
    a, b = torch.from_numpy(y[0].reshape(200, 500)), torch.from_numpy(y[1].reshape(500, 200))
    numbers = [each(y.astype(kind)) for kind in (np.float32, np.float64) for each in (np.exp, np.sin, np.sum)]
    return {
        "networks": digest(*(each.contiguous().numpy().tobytes() for each in params)),
        "products": digest((a @ b).numpy().tobytes()),
        "NumPy": digest(*(np.asarray(each).tobytes() for each in numbers)),
    }


def compare_orders(photos: dict[str, Tensor]) -> dict[str, Digests]:
    """Hash the parameters of all factors of each model in every order: order, name, hash."""
    found: dict[str, Digests] = {order: {} for order in ("one pass", *SCHEDULES)}
    for name in list_models():
        model, x = load(name), photos[name][None]
        labels, hashes = model.check_labels(1 if model.classes else None, 1), {order: [] for order in found}
        for factor, (view, given) in zip(model.factors, model.links(x), strict=True):
            twin = exact_twin(factor)
            with evaluating():
                hashes["one pass"].append(twin.params(view, given, labels))
            for order, schedule in SCHEDULES.items():
                visit = Visit(schedule=schedule, consistent=model.consistent)
                hashes[order].append(shown_params(twin, view, given, labels, visit))
        for order, tensors in hashes.items():
            found[order][name] = digest(*(each.contiguous().numpy().tobytes() for each in tensors))
    return found


def run_child(folder: Path, options: argparse.Namespace) -> None:
    """Decode and compress everything in this process, and print what came out."""
    torch.backends.mkldnn.enabled = not options.without_mkldnn  # pyright: ignore[reportAttributeAccessIssue]
    if options.split:
        threads.SHARE = 1  # so that small operations are split among threads too
    files, photos = [*sorted(folder.glob("*.pxc")), *golden_files()], read_photographs(folder)
    result: dict[str, Any] = {
        "stack": {
            "python": ".".join(map(str, sys.version_info[:3])),
            **{name: version(name) for name in ("torch", "numpy", "constriction")},
            "capability": torch.backends.cpu.get_cpu_capability(),
            "mkldnn": torch.backends.mkldnn.is_available() and not options.without_mkldnn,
            "threads": torch.get_num_threads(),
        },
        "decoded": {name_of(path): decode(path.read_bytes(), options.device) for path in files},
        "written": {name: digest(content) for name, content in compress_all(photos).items()},
        "control": control(photos),
    }
    if options.orders:
        result["orders"] = compare_orders(photos)
    print(json.dumps(result))


def run_way(way: Way, folder: Path) -> dict[str, Any]:
    """Decode everything in another process; return what it printed, or its error."""
    command = [way.python, __file__, "--child", str(folder), *way.arguments]
    done = subprocess.run(command, env=os.environ | way.variables, capture_output=True, text=True)
    if done.returncode:
        return {"error": (done.stderr.strip().splitlines() or ["no message"])[-1]}
    return json.loads(done.stdout.strip().splitlines()[-1])


def make_ways(pythons: list[str]) -> dict[str, Way]:
    """List the ways to decode that this machine has."""
    one = {"OMP_NUM_THREADS": "1"}
    ways = {
        "one thread, all orders of pixels": Way(one, ("--orders",)),
        "two threads": Way({"OMP_NUM_THREADS": "2"}),
        "two threads in every operation": Way({"OMP_NUM_THREADS": "2"}, ("--split",)),
        "without MKL-DNN": Way(one, ("--without-mkldnn",)),
        "MKL: SSE4.2": Way(one | {"MKL_ENABLE_INSTRUCTIONS": "SSE4_2"}),
        "MKL: AVX2": Way(one | {"MKL_ENABLE_INSTRUCTIONS": "AVX2"}),
        "MKL: compatible code": Way(one | {"MKL_CBWR": "COMPATIBLE"}),
        "oneDNN: SSE4.1": Way(one | {"ONEDNN_MAX_CPU_ISA": "SSE41"}),
        "torch without vector instructions": Way(one | {"ATEN_CPU_CAPABILITY": "default"}),
        "torch with AVX2": Way(one | {"ATEN_CPU_CAPABILITY": "avx2"}),
    }
    if features := numpy_features():
        ways["NumPy without vector instructions"] = Way(one | {"NPY_DISABLE_CPU_FEATURES": " ".join(features)})
    if torch.cuda.is_available():
        ways["decoded on a GPU"] = Way(arguments=("--device", "cuda"))
    return ways | {python: Way(one, python=python) for python in pythons}


def numpy_features() -> list[str]:
    """List the instructions that NumPy uses here beyond those that it always needs."""
    shown: Any = np.show_config(mode="dicts")
    return shown["SIMD Extensions"].get("found", [])


def judge(result: dict[str, Any], decoded: Digests, written: Digests) -> dict[str, list[str]]:
    """List what differs in a way."""
    if "error" in result:
        return {"failed": [result["error"]]}
    orders = result.get("orders", {"one pass": {}})
    pairs = {"decoded": (result["decoded"], decoded), "written": (result["written"], written)}
    pairs |= {f"parameters in {order}": (found, orders["one pass"]) for order, found in orders.items()}
    differing = {
        kind: [name for name in right if found.get(name) != right[name]] for kind, (found, right) in pairs.items()
    }
    return {kind: names for kind, names in differing.items() if names}


def describe(result: dict[str, Any]) -> str:
    stack = result.get("stack", {})
    names = ", ".join(f"{name} {stack[name]}" for name in ("python", "torch", "numpy", "constriction") if name in stack)
    return f"{names}, {stack.get('capability')}"


def measure(pythons: list[str]) -> tuple[dict[str, Any], bool]:
    """Try every way, and print what was the same; return the results, and whether all was the same."""
    results: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name, progress_bar(visible=True) as bar:
        folder = Path(name)
        photos = write_photographs(folder)
        contents = compress_all(photos)
        if stored := [name for name, content in contents.items() if read_file(content).png is not None]:
            raise RuntimeError(f"{stored} are stored as PNG: choose other photographs")
        for name, content in contents.items():
            (folder / f"{name}.pxc").write_bytes(content)
        written = {name: digest(content) for name, content in contents.items()}
        pixels = {f"{name}.pxc": digest(digest_picture(Original(x)).encode()) for name, x in photos.items()}
        decoded, first = expected_golden() | pixels, {}
        for way, settings in bar.track(make_ways(pythons).items(), description="trying"):
            result = run_way(settings, folder)
            differs, found = judge(result, decoded, written), result.get("control", {})
            first = first or found
            otherwise = [kind for kind in found if found[kind] != first[kind]]
            results[way] = {"differs": differs, "floating_point_differs": otherwise, "stack": result.get("stack")}
            good = f"same ({len(decoded)} decoded, {len(written)} written)"
            orders = "".join(f", {order}" for order in result.get("orders", {}))
            print(f"{way:35} {differs or good + orders}; floating point differs: {', '.join(otherwise) or 'no'}")
            print(f"{'':35} {describe(result)}", flush=True)
    same = not any(each["differs"] for each in results.values())
    return {"files": sorted(decoded), "ways": results}, same


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--json", type=Path, help="also write the results to this file")
    parser.add_argument("--python", action="append", default=[], help="the interpreter of another environment")
    child = parser.add_argument_group("for the processes that this program starts")
    child.add_argument("--child", type=Path, help=argparse.SUPPRESS)
    child.add_argument("--device", default="cpu", help=argparse.SUPPRESS)
    for name in ("--orders", "--split", "--without-mkldnn"):
        child.add_argument(name, action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        warnings.simplefilter("ignore")
        return run_child(options.child, options)
    results, same = measure(options.python)
    if options.json:
        write_json(options.json, results)
    sys.exit(0 if same else "something differs")


if __name__ == "__main__":
    main()
