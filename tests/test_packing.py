"""Laws of `compress`, `decompress`, `info` and `verify` on real files: what comes back is what was there, or an error.

Errors are one line with exit code 2, and leave nothing behind.
"""

import io
import json
import resource
import subprocess
import sys
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from conftest import inside
from PIL import Image, ImageCms

from pixelcnn import Downsample, ImageModel, PyramidPixelCNN, decompress, load, save
from pixelcnn.apps.cli.main import main
from pixelcnn.codec.archive import SIGNATURE, Archive
from pixelcnn.codec.chunks import Scan, deflate, write_chunk
from pixelcnn.codec.container import read_file
from pixelcnn.models.decompression import Restorer
from pixelcnn.pictures.inputs import Origin
from pixelcnn.tasks.packing import Packed, restore_packed

TINY: dict[str, Any] = {"filters": 3, "blocks": 1, "scales": 1, "embedding_blocks": 1, "embedding_scales": 1}
MODELS: dict[str, Callable[[], ImageModel]] = {
    "color": lambda: PyramidPixelCNN(2, **TINY),
    "another": lambda: PyramidPixelCNN(2, **TINY),
    "gray": lambda: ImageModel(1, 256, [Downsample(2)], **TINY),
    "classes": lambda: ImageModel(3, 256, classes=2, **TINY),
    "16 levels": lambda: ImageModel(1, 16, **TINY),
}


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Tiny models with random weights."""
    torch.manual_seed(0)
    folder = tmp_path_factory.mktemp("models")
    for name, make in MODELS.items():
        save(make(), folder / name)
    return {name: folder / name for name in MODELS}


def noise(height: int, width: int, channels: int = 3, seed: int = 0) -> np.ndarray:
    shape = (height, width) if channels == 1 else (height, width, channels)
    return np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8)


def save_noise(folder: Path, *names: str) -> Path:
    """Save pictures of noise, each of another content, of 7x5 and 5x4 pixels in turn."""
    for i, name in enumerate(names):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(noise(*((5, 7), (4, 5))[i % 2], seed=i)).save(folder / name)
    return folder


def names_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def contents(folder: Path) -> dict[str, bytes]:
    return {name: (folder / name).read_bytes() for name in names_in(folder)}


def pixels(file: Path | bytes) -> np.ndarray:
    with Image.open(io.BytesIO(file) if isinstance(file, bytes) else file) as picture:
        return np.array(picture)


def done(*arguments: object) -> subprocess.CompletedProcess[str]:
    """Run a command that succeeds."""
    result = inside(*arguments)
    assert result.returncode == 0, result.stderr
    return result


def refused(*arguments: object) -> str:
    """Run a command that fails; return the one line that says so, without the notes before it."""
    result = inside(*arguments)
    assert result.returncode == 2, result.stdout
    assert "Traceback" not in result.stderr
    lines = result.stderr.splitlines()
    assert all(line.startswith("pixelcnn: ") for line in lines)
    return lines[-1]


def piped(content: bytes, *arguments: object) -> tuple[int, bytes, str]:
    """Run a command with standard input and output that are bytes."""
    output, errors = io.TextIOWrapper(io.BytesIO()), io.StringIO()
    with pytest.MonkeyPatch.context() as patch, redirect_stdout(output), redirect_stderr(errors):
        patch.setattr("sys.argv", ["pixelcnn", *map(str, arguments)])
        patch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(content)))
        with pytest.raises(SystemExit) as exit:
            main()
    output.flush()
    assert isinstance(output.buffer, io.BytesIO)
    return int(exit.value.code or 0), output.buffer.getvalue(), errors.getvalue()


def packed(models: dict[str, Path], folder: Path, *names: str) -> Path:
    """Compress pictures of noise with the model of color, each to a file of its own."""
    done("compress", save_noise(folder / "in", *names), "--model", models["color"], "--out", folder / "packed")
    return folder / "packed"


def packed_archive(models: dict[str, Path], folder: Path, *names: str) -> Path:
    save_noise(folder / "in", *names)
    done("compress", folder / "in", "--model", models["color"], "--archive", folder / "all.pxa")
    return folder / "all.pxa"


# Whole ways


def test_folders_keep_names(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: each picture comes back under its name, in its folder, with its pixels; names that clash stay apart."""
    names = ["a.png", "more/a.png", "more/deep/\u00e9 \u732b.png", "b.bmp", "c d.tif", "b.png", "-.png"]
    folder = save_noise(tmp_path / "in", *names)
    to = done("compress", folder, "--model", models["color"], "--out", tmp_path / "packed")
    expected = ["-.pxc", "a.pxc", "b.bmp.pxc", "b.pxc", "c d.pxc", "more/a.pxc", "more/deep/\u00e9 \u732b.pxc"]
    assert names_in(tmp_path / "packed") == expected
    assert sorted(to.stdout.splitlines()) == sorted(str(tmp_path / "packed" / name) for name in expected)
    before, after = (sum(map(len, contents(tmp_path / each).values())) for each in ("in", "packed"))
    assert f"{after:,} bytes, from files of {before:,} bytes" in to.stderr
    done("decompress", tmp_path / "packed", "--model", models["color"], "--out", tmp_path / "back")
    for name in names:
        back = name if name.endswith(".png") else {"b.bmp": "b.bmp.png", "c d.tif": "c d.png"}[name]
        assert np.array_equal(pixels(tmp_path / "back" / back), pixels(folder / name)), name
    assert len(names_in(tmp_path / "back")) == len(names)


def test_an_archive_keeps_names_and_order(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: many pictures of several sizes come back in order; those whose names clash stay apart."""
    names = [f"{i % 3}/{i:02}.png" for i in range(20)] + ["x.png", "x.tif"]
    archive = packed_archive(models, tmp_path, *names)
    listed = json.loads(done("info", archive, "--json").stdout)
    assert [row["name"] for row in listed] == sorted(names)
    for row in listed:
        height, width, _ = pixels(tmp_path / "in" / row["name"]).shape
        assert (row["height"], row["width"]) == (height, width)
    assert sum(not row["png"] for row in listed) > 10  # the rest would be of one view, and tests nothing
    back = done("decompress", archive, "--model", models["color"], "--out", tmp_path / "back")
    written = [name.replace("x.tif", "x.tif.png") for name in sorted(names)]
    assert back.stdout.splitlines() == [str(tmp_path / "back" / name) for name in written]
    for name, file in zip(sorted(names), written, strict=True):
        assert np.array_equal(pixels(tmp_path / "back" / file), pixels(tmp_path / "in" / name)), name
    found = decompress(archive.read_bytes(), load(models["color"]))
    for name, picture in zip(sorted(names), found, strict=True):
        assert np.array_equal(picture, pixels(tmp_path / "in" / name))


def test_only_some_pictures_of_an_archive(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: --only takes pictures by their names, from every archive; a name that is in none is an error."""
    archive = packed_archive(models, tmp_path, "a.png", "b/c.png", "d.png")
    only = ("decompress", archive, "--model", models["color"], "--only")
    done(*only, "b/c.png", "--out", tmp_path / "one.png")
    assert np.array_equal(pixels(tmp_path / "one.png"), pixels(tmp_path / "in" / "b" / "c.png"))
    done(*only, "d.png", "--only", "a.png", "--out", tmp_path / "two")
    assert names_in(tmp_path / "two") == ["a.png", "d.png"]
    message = refused(*only, "a.png", "--only", "c.png", "--out", tmp_path / "three")
    assert "no picture 'c.png'" in message
    assert not (tmp_path / "three").exists()
    (tmp_path / "other.pxa").write_bytes(archive.read_bytes())
    both = ("decompress", archive, tmp_path / "other.pxa", "--model", models["color"])
    done(*both, "--only", "a.png", "--out", tmp_path / "both")
    assert names_in(tmp_path / "both") == ["all/a.png", "other/a.png"]


def test_pictures_go_through_pipes_of_processes(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: a picture goes from standard input to standard output, and nothing else is written there."""
    file = save_noise(tmp_path, "a.png") / "a.png"
    model = ("--model", str(models["color"]), "-", "--out", "-")
    command = [sys.executable, "-m", "pixelcnn"]
    with (
        file.open("rb") as content,
        subprocess.Popen([*command, "compress", *model], stdin=content, stdout=subprocess.PIPE) as first,
    ):
        second = subprocess.run([*command, "decompress", *model], stdin=first.stdout, capture_output=True, check=True)
    assert first.returncode == 0
    assert np.array_equal(pixels(second.stdout), pixels(file))


def test_pipes(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: what goes to standard output is what goes to a file; so for archives, info and verify."""
    content = (save_noise(tmp_path, "a.png") / "a.png").read_bytes()
    model = ("--model", models["color"])
    code, one, said = piped(content, "compress", "-", *model, "--out", "-")
    assert code == 0, said
    done("compress", tmp_path / "a.png", *model, "--out", tmp_path / "a.pxc")
    assert (tmp_path / "a.pxc").read_bytes() == one
    code, archive, said = piped(content, "compress", "-", *model, "--archive", "-")
    assert code == 0, said
    assert [entry.name for entry in Archive(archive).entries] == ["stdin"]
    for packed in (one, archive):
        code, back, said = piped(packed, "decompress", "-", *model, "--out", "-")
        assert code == 0, said
        assert np.array_equal(pixels(back), pixels(content))
        assert piped(packed, "verify", "-", *model)[:2] == (0, b"stdin: whole, 7x5\n")
        assert piped(packed, "info", "-")[1].startswith(b"stdin: 7x5 color")
    for command in ("compress", "decompress", "verify", "info"):
        options = ("--out", "-") if command in ("compress", "decompress") else ()
        code, back, said = piped(b"", command, "-", *options)
        assert (code, back) == (2, b"") or command == "verify"
        assert code == 2
        assert said.count("\n") == 1


def test_shipped_models_are_found(tmp_path: Path) -> None:
    """Law: without --model, pictures are compressed by a shipped model, and decompressed by the one that did."""
    folder = save_noise(tmp_path / "in", "a.png")
    done("compress", folder, "--out", tmp_path / "packed")
    assert json.loads(done("info", tmp_path / "packed", "--json").stdout)[0]["model"] == "photos-pyramid"
    done("decompress", tmp_path / "packed", "--out", tmp_path / "back")
    assert np.array_equal(pixels(tmp_path / "back" / "a.png"), pixels(folder / "a.png"))


def test_few_pictures_wait_for_others(models: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Law: pictures are restored together only if they are few or small, and given before others are begun."""
    folder = packed(models, tmp_path, "a.png", "b.png", "c.png")
    files = [Packed(Origin(Path(name), None), read_file(content)) for name, content in contents(folder).items()]
    restorer, sizes = Restorer(load(models["color"])), []
    restore = restorer.restore
    monkeypatch.setattr(
        restorer, "restore", lambda some, *rest, **more: sizes.append(len(some)) or restore(some, *rest, **more)
    )
    for at_once, most, expected in ((2**18, 64, [3]), (60, 64, [2, 1]), (10, 64, [1] * 3), (2**18, 2, [2, 1])):
        monkeypatch.setattr("pixelcnn.tasks.packing.AT_ONCE", at_once)
        monkeypatch.setattr("pixelcnn.tasks.packing.MOST_TOGETHER", most)
        sizes.clear()
        found = restore_packed(restorer, files)
        origins = [next(found)[0]]
        assert sizes == expected[:1]
        origins += [origin for origin, _ in found]
        assert sizes == expected
        assert origins == [each.origin for each in files]


# What is kept


def oriented() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    exif[0x010E] = "a picture"
    return exif.tobytes()


def kinds() -> Iterator[tuple[str, Image.Image, dict[str, Any]]]:
    """Yield a name, a picture and options for saving it as PNG, for every kind of picture that is kept."""
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    color, gray = Image.fromarray(noise(5, 6)), Image.fromarray(noise(5, 6, 1))
    yield "color", color, {}
    yield "gray", gray, {}
    yield "alpha", Image.fromarray(noise(5, 6, 4)), {}
    yield "gray and alpha", Image.fromarray(noise(5, 6, 2), "LA"), {}
    yield "opaque alpha", color.convert("RGBA"), {}
    yield "profile", color, {"icc_profile": profile}
    yield "exif", color, {"exif": oriented()}
    yield "all of it", Image.fromarray(noise(5, 6, 4)), {"icc_profile": profile, "exif": oriented()}
    yield "gray with a profile", gray, {"icc_profile": profile}
    yield "palette", color.quantize(9), {}
    yield "palette with one transparent entry", color.quantize(9), {"transparency": 3}
    yield "palette with transparent entries", color.quantize(9), {"transparency": bytes(range(0, 90, 10))}
    yield "one bit", Image.fromarray(noise(5, 6, 1) > 99), {}
    yield "one transparent gray", gray, {"transparency": int(noise(5, 6, 1)[2, 2])}
    yield "one transparent color", color, {"transparency": tuple(noise(5, 6)[2, 2].tolist())}
    yield "one pixel", color.crop((0, 0, 1, 1)), {}
    yield "flat", Image.new("RGB", (40, 30), "teal"), {}


def test_every_kind_of_picture_is_kept(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: pixels, transparency, color profile and EXIF data are the same, as stored; in files and in archives."""
    (tmp_path / "in").mkdir()
    for name, picture, options in kinds():
        picture.save(tmp_path / "in" / f"{name}.png", **options)
    model = ("--model", models["color"])
    done("compress", tmp_path / "in", *model, "--out", tmp_path / "files")
    done("compress", tmp_path / "in", *model, "--archive", tmp_path / "all.pxa")
    for place in ("files", "all.pxa"):
        back = tmp_path / f"back-{Path(place).stem}"
        done("decompress", tmp_path / place, *model, "--out", back)
        assert names_in(back) == names_in(tmp_path / "in")
        for name, *_ in kinds():
            with Image.open(tmp_path / "in" / f"{name}.png") as before, Image.open(back / f"{name}.png") as after:
                kind = "L" if before.mode in ("1", "L", "LA") else "RGB"
                kind += "A" if before.has_transparency_data else ""
                kind = {"RGBA": "RGBA", "LA": "LA"}.get(kind, kind)
                assert after.mode == kind, name
                assert np.array_equal(np.array(before.convert(kind)), np.array(after)), name
                assert after.info.get("icc_profile") == before.info.get("icc_profile"), name
                assert dict(after.getexif()) == dict(before.getexif()), name
    alpha = read_file((tmp_path / "files" / "all of it.pxc").read_bytes()).alpha
    assert alpha is not None
    assert b"iCCP" not in alpha  # the profile is kept once
    extras = {row["name"]: row["extras"] for row in json.loads(done("info", tmp_path / "all.pxa", "--json").stdout)}
    assert extras["all of it.png"] == ["alpha", "profile", "exif"]
    assert extras["color.png"] == []
    assert done("verify", tmp_path / "files", tmp_path / "all.pxa", *model).stdout.count("whole") == 2 * len(extras)


def test_gray_stays_gray_with_a_model_of_gray(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: gray pictures of every kind go through a model of gray, and one of color is refused with the rest done."""
    (tmp_path / "in").mkdir()
    for i, (height, width) in enumerate(((1, 1), (1, 9), (9, 1), (6, 7))):
        Image.fromarray(noise(height, width, 1, seed=i)).save(tmp_path / "in" / f"{i}.png")
    model = ("--model", models["gray"])
    done("compress", tmp_path / "in", *model, "--out", tmp_path / "packed")
    done("decompress", tmp_path / "packed", *model, "--out", tmp_path / "back")
    for name in names_in(tmp_path / "in"):
        assert np.array_equal(pixels(tmp_path / "back" / name), pixels(tmp_path / "in" / name))
    save_noise(tmp_path / "in", "4.png")
    message = refused("compress", tmp_path / "in", *model, "--out", tmp_path / "more")
    assert "'4.png'" in message
    assert "use a model of color" in message
    assert names_in(tmp_path / "more") == [f"{i}.pxc" for i in range(4)]
    assert "4 of 5 pictures are done" in message


def test_jpeg_is_kept_with_a_note(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: the pixels and the profile of a JPEG are kept, not turned upright, and a note says that it grows."""
    Image.fromarray(noise(8, 16)).save(tmp_path / "a.jpg", exif=oriented())
    said = done("compress", tmp_path / "a.jpg", "--model", models["color"], "--out", tmp_path / "a.pxc").stderr
    assert "a.jpg is a JPEG" in said
    done("decompress", tmp_path / "a.pxc", "--model", models["color"], "--out", tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "a.jpg"))
    with Image.open(tmp_path / "a.png") as back:
        assert back.size == (16, 8)
        assert back.getexif()[0x0112] == 6


# Pictures that cannot be compressed


def save_refused(folder: Path) -> dict[str, str]:
    """Save files that cannot be compressed; return what is said of each."""
    folder.mkdir(parents=True, exist_ok=True)
    color, gray = Image.fromarray(noise(8, 9)), Image.fromarray(noise(8, 9, 1))
    Image.fromarray(noise(8, 9, 1).astype(np.uint16)).save(folder / "16 bits.png")
    color.convert("CMYK").save(folder / "cmyk.jpg")
    color.convert("LAB").save(folder / "lab.tif")
    color.quantize(4).save(folder / "animation.gif", save_all=True, append_images=[gray.quantize(4)])
    color.save(folder / "animation.png", save_all=True, append_images=[color.rotate(180)])
    (folder / "text.png").write_text("no picture")
    (folder / "empty.png").write_bytes(b"")
    for name, kind, options in (
        ("cut.png", "PNG", {}),
        ("cut.jpg", "JPEG", {}),
        ("cut.webp", "WEBP", {"lossless": True}),
    ):
        buffer = io.BytesIO()
        Image.fromarray(noise(40, 40)).save(buffer, kind, **options)
        (folder / name).write_bytes(buffer.getvalue()[: len(buffer.getvalue()) // 2])
    buffer = io.BytesIO()
    color.quantize(4).save(buffer, "GIF", save_all=True, append_images=[gray.quantize(4)])
    (folder / "cut.gif").write_bytes(buffer.getvalue()[:-20])
    claims = bytearray((folder / "animation.png").read_bytes())
    claims[16:24] = (10**5).to_bytes(4) * 2
    claims[29:33] = zlib.crc32(claims[12:29]).to_bytes(4)
    (folder / "claims.png").write_bytes(claims)
    said = {"16 bits.png": "8 bits", "cmyk.jpg": "CMYK", "lab.tif": "LAB", "claims.png": "million pixels"}
    said |= {"animation.gif": "2 frames", "animation.png": "2 frames"}
    return {name: said.get(name, "") for name in names_in(folder)}


def test_pictures_that_are_refused(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: each is one line with its name; --skip-broken leaves them out, and counts them, in archives too."""
    reasons = save_refused(tmp_path / "in")
    model = ("--model", models["color"])
    for name, reason in reasons.items():
        message = refused("compress", tmp_path / "in" / name, *model, "--out", tmp_path / "x.pxc")
        assert name in message
        assert reason in message
        assert len(message) < 400
        assert not (tmp_path / "x.pxc").exists()
    save_noise(tmp_path / "in", "good.png", "zebra.png")
    for place, option in (("files", "--out"), ("all.pxa", "--archive")):
        result = done("compress", tmp_path / "in", *model, option, tmp_path / place, "--skip-broken")
        assert f"left out {len(reasons)} of {len(reasons) + 2} pictures" in result.stderr
        assert result.stderr.count("left out: ") == len(reasons)
        done("decompress", tmp_path / place, *model, "--out", tmp_path / f"back-{Path(place).stem}")
        assert names_in(tmp_path / f"back-{Path(place).stem}") == ["good.png", "zebra.png"]
        for name in ("good.png", "zebra.png"):
            assert np.array_equal(pixels(tmp_path / f"back-{Path(place).stem}" / name), pixels(tmp_path / "in" / name))
    for option, place in (("--out", "none"), ("--archive", "none.pxa")):
        message = refused("compress", tmp_path / "in" / "text.png", *model, option, tmp_path / place, "--skip-broken")
        assert "none of 1 files" in message
        assert not (tmp_path / place).exists()


def test_pictures_before_a_broken_one_are_kept(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: without --skip-broken, pictures before the broken one are done and counted, whatever their sizes."""
    folder = save_noise(tmp_path / "in", "a.png", "b.png")
    Image.fromarray(noise(4, 5, seed=7)).save(folder / "c.png")
    (folder / "d.png").write_text("no picture")
    save_noise(folder, "e.png")
    message = refused("compress", folder, "--model", models["color"], "--out", tmp_path / "out")
    assert "'d.png'" in message
    assert "3 of 5 pictures are done" in message
    assert names_in(tmp_path / "out") == ["a.pxc", "b.pxc", "c.pxc"]
    assert "'d.png'" in refused("compress", folder, "--model", models["color"], "--archive", tmp_path / "all.pxa")
    assert not (tmp_path / "all.pxa").exists()


# Parts of pictures


def test_views(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: --view K and --thumbnail are the views that the model makes of a picture, from files and archives."""
    file = packed(models, tmp_path, "a.png") / "a.pxc"
    archive = packed_archive(models, tmp_path, "a.png")
    model = load(models["color"])
    x = torch.from_numpy(pixels(tmp_path / "in" / "a.png")).permute(2, 0, 1)[None]
    views = [view[0].permute(1, 2, 0).numpy() for view in model.config.chain.views(x)]
    assert not read_file(file.read_bytes()).png
    for source in (file, archive):
        for option, view in ((("--view", 0), 0), (("--view", 1), 1), (("--view", 2), 2), (("--thumbnail",), 2)):
            out = tmp_path / "view.png"
            said = done("decompress", source, "--model", models["color"], *option, "--out", out, "--overwrite").stderr
            assert np.array_equal(pixels(out), views[view])
            assert "cut off" not in said
        message = refused("decompress", source, "--model", models["color"], "--view", 3, "--out", tmp_path / "x.png")
        assert "views 0 to 2" in message
    for options in (("--view", -1), ("--view", 1, "--thumbnail")):
        assert "--view" in refused("decompress", file, *options, "--out", tmp_path / "x.png")
    assert not (tmp_path / "x.png").exists()


def test_a_cut_file_is_a_smaller_picture(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: what arrived is shown, and a note, info and verify say that the rest is missing."""
    file = packed(models, tmp_path, "a.png") / "a.pxc"
    whole = file.read_bytes()
    model = ("--model", models["color"])
    for view, length in ((1, len(whole) - 1), (2, len(whole) - len(read_file(whole).views[2]) - 20)):
        file.write_bytes(whole[:length])
        result = done("decompress", file, *model, "--out", tmp_path / "small.png", "--overwrite")
        height, width = -(-5 // 2**view), -(-7 // 2**view)
        assert f"a.pxc is cut off: this is its view {view}, of {width}x{height}" in result.stderr
        (right,) = [decompress(whole, load(models["color"]), view=view)]
        assert np.array_equal(pixels(tmp_path / "small.png"), right)
        assert f"cut off, views missing: {view}" in done("info", file).stdout
        assert json.loads(done("info", file, "--json").stdout)[0]["missing_views"] == view
        verified = inside("verify", file, *model)
        assert verified.returncode == 2
        assert verified.stdout == f"a.pxc: it is cut off after view {view}\n"
        assert (
            "cut off"
            not in done("decompress", file, *model, "--thumbnail", "--out", tmp_path / "t.png", "--overwrite").stderr
        )
    for length in (0, 5, 40):
        file.write_bytes(whole[:length])
        refused("decompress", file, *model, "--out", tmp_path / "none.png")
        refused("info", file)
    assert not (tmp_path / "none.png").exists()


def test_info_needs_no_model(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: the header is shown as text and as JSON, for files of any model, without control characters."""
    folder = packed(models, tmp_path, "a.png", "b/c.png")
    Image.new("L", (50, 60)).save(tmp_path / "flat.png")
    done("compress", tmp_path / "flat.png", "--model", models["color"], "--out", folder / "flat.pxc")
    content = (folder / "a.pxc").read_bytes()
    file = read_file(content)
    listed = json.loads(done("info", folder, "--json").stdout)
    assert [row["name"] for row in listed] == ["a.pxc", "b/c.pxc", "flat.pxc"]
    one = listed[0]
    assert (one["width"], one["height"], one["channels"], one["model"]) == (7, 5, 3, "color")
    assert one["model_hash"] == file.coding.model.hex()
    assert one["bytes_of_views"] == [len(view) for view in file.views]
    assert one["bits_per_dim"] == pytest.approx(8 * sum(map(len, file.views)) / 105)
    assert (one["consistent"], one["label"], one["png"], one["missing_views"]) == (True, None, False, 0)
    assert (listed[2]["width"], listed[2]["height"], listed[2]["channels"]) == (50, 60, 1)
    assert (
        listed[2]["bytes_of_views"] == [len(read_file((folder / "flat.pxc").read_bytes()).png or b"")]
        or not listed[2]["png"]
    )
    shown = done("info", folder).stdout.splitlines()
    assert len(shown) == 3
    assert shown[0].startswith("a.pxc: 7x5 color, by color (")
    chunks = list(_chunks(content))
    chunks[0] = chunks[0][0], chunks[0][1].replace(b"\x05color", b"\x05\x1b[2J\n")
    (tmp_path / "hostile.pxc").write_bytes(content[:8] + b"".join(write_chunk(*each) for each in chunks))
    hostile = done("info", tmp_path / "hostile.pxc").stdout
    assert hostile.count("\n") == 1
    assert "\x1b" not in hostile


def _chunks(content: bytes) -> Iterator[tuple[bytes, bytes]]:
    scan = Scan(content, "file")
    scan.take(len(SIGNATURE))
    while scan.left:
        yield scan.chunk()


def test_verify_finds_what_is_not_whole(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: every picture has its line; one that is damaged or cut makes exit code 2, and the others are still seen."""
    folder = packed(models, tmp_path, "a.png", "b.png", "c.png")
    model = ("--model", models["color"])
    assert done("verify", folder, *model).stdout == "a.pxc: whole, 7x5\nb.pxc: whole, 5x4\nc.pxc: whole, 7x5\n"
    damaged = bytearray((folder / "b.pxc").read_bytes())
    damaged[-9] ^= 1
    (folder / "b.pxc").write_bytes(damaged)
    result = inside("verify", folder, *model)
    assert result.returncode == 2
    assert sorted(line.partition(":")[0] for line in result.stdout.splitlines()) == ["a.pxc", "b.pxc", "c.pxc"]
    assert "b.pxc: its chunk 'V' at byte" in result.stdout
    assert result.stderr == "pixelcnn: 1 of 3 pictures are not whole, for the reasons above\n"
    archive = packed_archive(models, tmp_path, "a.png", "b.png", "c.png")
    content = bytearray(archive.read_bytes())
    content[-12] ^= 1
    archive.write_bytes(content)
    result = inside("verify", archive, *model)
    assert result.returncode == 2
    assert "a.png: whole, 7x5\nb.png: whole, 5x4\nc.png: " in result.stdout
    assert "c.png: whole" not in result.stdout
    other = inside("verify", folder / "a.pxc", "--model", models["another"])
    assert other.returncode == 2
    assert "pass that model" in other.stdout


def test_an_archive_without_its_end(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: without --skip-broken it is an error, and with it the pictures that are whole come back."""
    archive = packed_archive(models, tmp_path, "a.png", "b.png", "c.png")
    archive.write_bytes(archive.read_bytes()[:-1])
    model = ("--model", models["color"])
    message = refused("decompress", archive, *model, "--out", tmp_path / "back")
    assert "'c.png'" in message
    assert "cut off" in message
    assert not (tmp_path / "back").exists()
    result = done("decompress", archive, *model, "--out", tmp_path / "back", "--skip-broken")
    assert names_in(tmp_path / "back") == ["a.png", "b.png"]
    assert "left out 1 of 3 pictures" in result.stderr
    for name in ("a.png", "b.png"):
        assert np.array_equal(pixels(tmp_path / "back" / name), pixels(tmp_path / "in" / name))
    verified = inside("verify", archive, *model)
    assert verified.returncode == 2
    assert verified.stdout.count("whole") == 2
    done("decompress", archive, *model, "--only", "b.png", "--out", tmp_path / "b.png")
    assert np.array_equal(pixels(tmp_path / "b.png"), pixels(tmp_path / "in" / "b.png"))


def test_broken_files_are_left_out_and_counted(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: decompress stops at the first broken file, and with --skip-broken does the rest."""
    folder = packed(models, tmp_path, "a.png", "b.png", "c.png")
    damaged = bytearray((folder / "b.pxc").read_bytes())
    damaged[30] ^= 1
    (folder / "b.pxc").write_bytes(damaged)
    (folder / "note.txt").write_text("other files of a folder are not read")
    model = ("--model", models["color"])
    message = refused("decompress", folder, *model, "--out", tmp_path / "out")
    assert "'b.pxc': its chunk 'H'" in message
    result = done("decompress", folder, *model, "--out", tmp_path / "out", "--skip-broken")
    assert names_in(tmp_path / "out") == ["a.png", "c.png"]
    assert "left out 1 of 3 pictures" in result.stderr
    message = refused("decompress", folder / "b.pxc", *model, "--out", tmp_path / "b.png", "--skip-broken")
    assert "none of 1 files" in message
    assert "no .pxc or .pxa file" in refused("decompress", tmp_path / "in", *model, "--out", tmp_path / "none")


@pytest.mark.parametrize("name", ["../x.png", "/tmp/x.png", "a/../../x.png", "C:x.png", "a\\x.png", "con.png"])
def test_hostile_archives_write_nothing(models: dict[str, Path], tmp_path: Path, name: str) -> None:
    """Law: an archive with a name that leads out of the folder is refused by every command."""
    archive = packed_archive(models, tmp_path, "a.png")
    kept = contents(tmp_path)
    content = archive.read_bytes()
    scan = Scan(content, "archive")
    scan.take(len(SIGNATURE))
    parts = [scan.chunk() for _ in range(3)]
    parts[1] = parts[1][0], deflate(name.encode())
    archive.write_bytes(SIGNATURE + b"".join(write_chunk(*each) for each in parts) + content[scan.at :])
    out = tmp_path / "deep" / "out"
    for command, *options in (("decompress", "--out", out), ("decompress", "--skip-broken", "--out", out), ("info",)):
        assert "none of 1 files" in (message := refused(command, archive, *options)) or "plain relative path" in message
    assert inside("verify", archive, "--model", models["color"]).returncode == 2
    archive.write_bytes(content)
    assert contents(tmp_path) == kept


# Models


def test_other_models(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: only the model that compressed a picture gives it back; a model of other levels compresses none."""
    file = packed(models, tmp_path, "a.png") / "a.pxc"
    archive = packed_archive(models, tmp_path, "a.png")
    out = ("--out", tmp_path / "x.png")
    for source in (file, archive):
        for name in ("another", "gray", "classes"):
            message = refused("decompress", source, "--model", models[name], *out)
            assert "'color'" in message
            assert "pass that model" in message
        assert "not among the shipped models" in refused("decompress", source, *out)
        assert "levels=16" in refused("decompress", source, "--model", models["16 levels"], *out)
    assert "levels=16" in refused("compress", tmp_path / "in", "--model", models["16 levels"], "--out", tmp_path / "x")
    assert "'nowhere'" in refused("compress", tmp_path / "in", "--model", "nowhere", "--out", tmp_path / "x")
    assert not (tmp_path / "x.png").exists()
    assert not (tmp_path / "x").exists()


def test_labels(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: a model with classes takes the label of the pictures, which is in the file; others take none."""
    save_noise(tmp_path / "in", "a.png")
    model = ("--model", models["classes"])
    done("compress", tmp_path / "in", *model, "--label", 1, "--out", tmp_path / "packed")
    assert json.loads(done("info", tmp_path / "packed", "--json").stdout)[0]["label"] == 1
    assert "class 1" in done("info", tmp_path / "packed").stdout
    done("decompress", tmp_path / "packed", *model, "--out", tmp_path / "a.png")
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(tmp_path / "in" / "a.png"))
    for options in (model, (*model, "--label", 2), ("--model", models["color"], "--label", 0)):
        assert "labels" in refused("compress", tmp_path / "in", *options, "--out", tmp_path / "x")


def test_free_and_consistent_files_say_so(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: a file says how its model was used, so that it comes back without being told; free takes more bits."""
    save_noise(tmp_path / "in", "a.png")
    sizes = {}
    for option in ("--consistent", "--free"):
        file = tmp_path / f"{option}.pxc"
        done("compress", tmp_path / "in", "--model", models["color"], option, "--out", file)
        row = json.loads(done("info", file, "--json").stdout)[0]
        assert row["consistent"] == (option == "--consistent")
        sizes[option] = sum(row["bytes_of_views"])
        done("decompress", file, "--model", models["color"], "--out", tmp_path / f"{option}.png")
        assert np.array_equal(pixels(tmp_path / f"{option}.png"), pixels(tmp_path / "in" / "a.png"))
    assert sizes["--consistent"] < sizes["--free"]


# Places for results


def test_nothing_is_replaced_without_overwrite(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: files, folders and archives that exist stay; with --overwrite only results are replaced."""
    folder = save_noise(tmp_path / "in", "a.png")
    model = ("--model", models["color"])
    (tmp_path / "out").mkdir()
    for name in ("out/a.pxc", "out/other.txt", "a.pxc", "all.pxa", "a.png"):
        (tmp_path / name).write_text("precious")
    kept = contents(tmp_path)
    commands = [
        ("compress", folder, *model, "--out", tmp_path / "out"),
        ("compress", folder, *model, "--out", tmp_path / "a.pxc"),
        ("compress", folder, *model, "--archive", tmp_path / "all.pxa"),
    ]
    for command in commands:
        assert "already exists: use --overwrite" in refused(*command)
    assert contents(tmp_path) == kept
    for command in commands:
        done(*command, "--overwrite")
    changed = {name for name, content in contents(tmp_path).items() if content != kept[name]}
    assert changed == {"out/a.pxc", "a.pxc", "all.pxa"}
    back = ("decompress", tmp_path / "a.pxc", *model, "--out", tmp_path / "a.png")
    assert "already exists" in refused(*back)
    assert (tmp_path / "a.png").read_text() == "precious"
    done(*back, "--overwrite")
    assert np.array_equal(pixels(tmp_path / "a.png"), pixels(folder / "a.png"))


def test_inputs_are_never_replaced(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: not even with --overwrite, by another name or through links; and results are not read as pictures."""
    folder = save_noise(tmp_path / "in", "a.png", "b.png")
    (folder / "a.png").rename(folder / "c.pxc")  # pictures under other names
    (folder / "b.png").rename(folder / "d.pxa")
    (folder / "link.pxa").symlink_to(folder / "d.pxa")
    (folder / "hard.pxa").hardlink_to(folder / "d.pxa")
    kept, model = contents(tmp_path), ("--model", models["color"], "--overwrite")
    for picture, option, place in (
        ("c.pxc", "--out", "c.pxc"),
        ("c.pxc", "--out", "."),
        ("d.pxa", "--archive", "d.pxa"),
        ("d.pxa", "--archive", "link.pxa"),
        ("d.pxa", "--archive", "hard.pxa"),
    ):
        assert "name another" in refused("compress", folder / picture, *model, option, folder / place), place
    assert contents(tmp_path) == kept
    (folder / "hard.pxa").unlink()
    (folder / "link.pxa").unlink()
    assert "name another folder" in refused("compress", folder, *model, "--out", folder)
    for _ in range(2):
        done("compress", folder, *model, "--out", folder / "packed")
        assert names_in(folder / "packed") == ["c.pxc", "d.pxc"]
        done(
            "compress",
            folder / "c.pxc",
            folder / "packed",
            folder / "d.pxa",
            *model,
            "--skip-broken",
            "--archive",
            folder / "all.pxa",
        )
        (folder / "all.pxa").unlink()
    file = folder / "packed" / "c.pxc"
    (tmp_path / "x.png").write_bytes(content := file.read_bytes())
    assert "name another" in refused("decompress", tmp_path / "x.png", *model, "--out", tmp_path / "x.png")
    assert (tmp_path / "x.png").read_bytes() == content


def test_places_that_make_no_sense(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: each is refused before anything is read, by a line that names the option."""
    folder = save_noise(tmp_path / "in", "a.png", "b.png")
    file = packed(models, tmp_path, "a.png") / "a.pxc"
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.pxa").mkdir()
    for options, message in (
        ((), "either --out FOLDER or --archive"),
        (("--out", tmp_path / "x", "--archive", tmp_path / "x.pxa"), "either --out FOLDER or --archive"),
        (("--archive", tmp_path / "x.zip"), "--archive"),
        (("--archive", tmp_path / "x"), "--archive"),
        (("--archive", tmp_path / "folder.pxa"), "--archive"),
        (("--archive", tmp_path / "file" / "x.pxa"), "--archive"),
        (("--out", tmp_path / "x.pxa"), "name a .pxc file or a folder"),
        (("--out", tmp_path / "x.png"), "name a .pxc file or a folder"),
        (("--out", tmp_path / "x.zip"), "name a .pxc file or a folder"),
        (("--out", tmp_path / "x.pxc"), "several pictures"),
        (("--out", "-"), "several pictures"),
        (("--out", tmp_path / "file"), "is a file"),
    ):
        assert message in refused("compress", folder, "--model", models["color"], *options), options
    for options, message in (
        (("--out", tmp_path / "x.pxc"), "name a .png file or a folder"),
        (("--out", tmp_path / "x.pxa"), "name a .png file or a folder"),
        (("--out", tmp_path / "x.jpg"), "lossless PNG"),
        (("--out", tmp_path / "file"), "is a file"),
        ((), "--out"),
    ):
        assert message in refused("decompress", file, "--model", models["color"], *options), options
    both = ("decompress", file.parent, "--model", models["color"])
    assert "several pictures" in refused(*both, "--out", tmp_path / "x.png")
    assert not [name for name in names_in(tmp_path) if name.startswith("x")]


def test_names_that_other_systems_lack(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: an archive takes no picture that could not be written everywhere, and files of their own do."""
    names = ["a:b.png", "what?.png", "con.png", "end /x.png", b"\xff.png".decode(errors="surrogateescape")]
    model, folder = ("--model", models["color"]), save_noise(tmp_path / "in", *names, "ok.png")
    for name in names:
        message = refused("compress", folder / name, folder / "ok.png", *model, "--archive", tmp_path / "x.pxa")
        assert "no plain relative path" in message
    assert not (tmp_path / "x.pxa").exists()
    done("compress", folder, *model, "--out", tmp_path / "packed")
    done("decompress", tmp_path / "packed", *model, "--out", tmp_path / "back")
    for name in names:
        assert np.array_equal(pixels(tmp_path / "back" / name), pixels(folder / name))


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """Let no file grow beyond this, so that a write fails halfway as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))


def test_a_full_disk_leaves_nothing_over(models: dict[str, Path], tmp_path: Path) -> None:
    """Law: what was there stays, nothing is half written, and the line says what to do."""
    folder = save_noise(tmp_path / "in", "a.png")
    Image.fromarray(noise(20, 20)).save(folder / "b.png")
    model = ("--model", models["color"])
    done("compress", folder, *model, "--out", tmp_path / "packed")
    (tmp_path / "all.pxa").write_text("old")
    kept = contents(tmp_path)
    with full_disk(300):
        for command in (
            ("compress", folder / "b.png", *model, "--out", tmp_path / "b.pxc"),
            ("compress", folder, *model, "--archive", tmp_path / "all.pxa", "--overwrite"),
            ("decompress", tmp_path / "packed" / "b.pxc", *model, "--out", tmp_path / "b.png"),
        ):
            assert "free some space" in refused(*command)
    assert contents(tmp_path) == kept
    with full_disk(300):
        message = refused("compress", folder, *model, "--out", tmp_path / "again")
    assert "1 of 2 pictures are done" in message
    assert contents(tmp_path / "again") == {"a.pxc": kept["packed/a.pxc"]}
