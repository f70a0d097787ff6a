"""The zoo: every model matches its card, and if `pixelcnn-zoo` is missing or has another version, all else works."""

import hashlib
import json
import re
import subprocess
import sys
import tomllib
import zlib
from importlib import import_module
from pathlib import Path

import pytest
import torch
from conftest import inside
from safetensors.torch import load_file

from pixelcnn import __version__
from pixelcnn.apps import demo
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.models import shipped
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.models.shipped import (
    CARD,
    CONFIG,
    FIELDS,
    RESEARCH_ONLY,
    list_models,
    shipped_names,
    why_missing,
    zoo_card,
    zoo_folder,
)

ROOT = Path(__file__).parents[1]


@pytest.fixture
def model() -> ImageModel:
    return ImageModel(auxiliaries=[Downsample(2)], filters=3, blocks=1, scales=1, embedding_blocks=1, size=8).eval()


@pytest.fixture
def tiny(model: ImageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A model inside a package, with its card."""
    folder = tmp_path / "zoo" / "tiny"
    save(model, folder, torch.bfloat16)
    digests = {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in (CONFIG, WEIGHTS)}
    (folder / CARD).write_text(json.dumps(zoo_card("photos-pyramid") | {"title": "Tiny", "sha256": digests}))
    monkeypatch.setattr(shipped, "ZOO", tmp_path / "zoo")
    return folder


@pytest.fixture(params=["missing", "0.0.1"])
def reason(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The message if `pixelcnn-zoo` is missing or has another version."""
    if request.param == "missing":
        monkeypatch.setitem(sys.modules, "pixelcnn_zoo", None)
        return "comes with pixelcnn-zoo, which is not installed: pip install pixelcnn-zoo"
    monkeypatch.setattr(import_module("pixelcnn_zoo"), "__version__", request.param)
    return f"pixelcnn-zoo 0.0.1 does not go with pixelcnn {__version__}: pip install pixelcnn-zoo=={__version__}"


def test_a_shipped_model_is_its_weights_in_bf16(model: ImageModel, tiny: Path) -> None:
    """Law: every weight is that of the model, rounded to bfloat16, and loaded as float32."""
    loaded = load("tiny")
    assert loaded.card == zoo_card("tiny")
    for name, weight in loaded.state_dict().items():
        assert weight.dtype == torch.float32
        assert torch.equal(weight, model.state_dict()[name].bfloat16().float())
    assert {weight.dtype for weight in load_file(tiny / WEIGHTS).values()} == {torch.bfloat16}


@pytest.mark.parametrize("name", [CONFIG, WEIGHTS])
@pytest.mark.parametrize("damage", ["one byte", "missing"])
def test_a_shipped_file_whose_hash_differs_is_refused(tiny: Path, name: str, damage: str) -> None:
    content = bytearray((tiny / name).read_bytes())
    if damage == "missing" and name == WEIGHTS:
        (tiny / name).unlink()
    else:
        content[-2] ^= 1
        (tiny / name).write_bytes(content)
    with pytest.raises(ValueError, match=r"is not the file that was shipped .*install pixelcnn again"):
        load("tiny")


def test_a_damaged_card_is_refused(tiny: Path) -> None:
    card = zoo_card("tiny")
    for name in (None, *FIELDS):
        (tiny / CARD).write_text(json.dumps({key: card[key] for key in card if key != name}) if name else "{")
        with pytest.raises(ValueError, match=r"card\.json is damaged .*install pixelcnn again"):
            load("tiny")


@pytest.mark.parametrize("name", shipped_names())
def test_every_model_of_the_zoo_matches_its_card(name: str) -> None:
    """The files have the card's hashes, and the card has the model's size."""
    card, model = zoo_card(name), load(name)
    assert card["parameters"] == sum(parameter.numel() for parameter in model.parameters())
    assert model.size == (card["size"], card["size"])
    assert set(card["sha256"]) == {CONFIG, WEIGHTS}
    assert card["bits_per_dim"]["total"] == pytest.approx(sum(card["bits_per_dim"]["factors"]))
    assert list(card["codecs"]) == ["PNG", "WebP", "JPEG XL"]
    assert len(card["minutes"]) == len(card["steps"]) == len(model.factors)


def test_all_models_together_are_at_most_40_megabytes_in_wheels() -> None:
    """Wheels are compressed, at a higher level than here."""
    weights = [(zoo_folder(name) / WEIGHTS).read_bytes() for name in shipped_names()]
    assert sum(len(zlib.compress(each, 1)) for each in weights) <= 40e6


def test_research_models_are_in_the_other_distribution() -> None:
    """Law: the two folders hold the models that the code lists, and the package has no license for research alone."""
    assert sorted(path.parent.name for path in (ROOT / "zoo").glob(f"src/*/*/{CONFIG}")) == sorted(RESEARCH_ONLY)
    assert sorted(path.parent.name for path in shipped.ZOO.glob(f"*/{CONFIG}")) == ["photos-pyramid"]
    assert list_models() == shipped_names() == sorted([*RESEARCH_ONLY, "photos-pyramid"])
    assert "research" not in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["license"]


def test_without_the_zoo_the_rest_works_and_says_how_to_get_it(reason: str) -> None:
    """Its models give one line and exit code 2; `pixelcnn models` lists the others, and says which are missing."""
    assert list_models() == ["photos-pyramid"]
    assert load("photos-pyramid").size == (128, 128)
    for name in RESEARCH_ONLY:
        with pytest.raises(ValueError, match="pixelcnn-zoo") as error:
            load(name)
        assert reason in str(error.value)
        assert repr(name) in str(error.value)
    refused = inside("sample", "faces128-pyramid", "--out", "never.png")
    assert refused.returncode == 2
    assert reason in refused.stderr
    assert refused.stderr.count("\n") == 1
    listing = json.loads(inside("models", "--json").stdout)
    assert list(listing["models"]) == ["photos-pyramid"]
    assert listing["missing"] == {name: why_missing(name) for name in RESEARCH_ONLY}
    assert inside("models").stdout.count("pixelcnn-zoo") >= len(RESEARCH_ONLY)


@pytest.mark.parametrize("reason", ["missing"], indirect=True)
def test_a_near_name_is_suggested_whether_it_is_installed_or_not(reason: str) -> None:
    with pytest.raises(ValueError, match="did you mean 'faces128-pyramid'"):
        load("face128-pyramid")


@pytest.mark.parametrize("reason", ["missing"], indirect=True)
def test_without_the_zoo_the_demonstration_leaves_its_sections_out(
    reason: str, model: ImageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    save(model, tmp_path / "photographs")
    monkeypatch.setattr(demo, "ENLARGER", str(tmp_path / "photographs"))
    page = demo.run_demo(tmp_path / "run", minutes=0.002, size=4, progress=False).read_text()
    assert "<h2>Faces</h2>" not in page
    assert "colorized" not in page
    assert "Enlarged photographs" in page
    said = capsys.readouterr().err.splitlines()
    assert len(said) == 2
    assert all(reason in line for line in said)


def test_a_name_that_is_not_in_the_zoo_is_refused() -> None:
    with pytest.raises(ValueError, match="no shipped model 'nothing': there are cifar10-classes, cifar10-grayscale"):
        zoo_card("nothing")


def test_a_folder_hides_a_shipped_model_only_if_it_holds_one(
    model: ImageModel, tiny: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A folder of results with the name of a model is not mistaken for it."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").mkdir()
    assert load("tiny").config == model.config
    other = PyramidPixelCNN(1, filters=2, blocks=1, embedding_blocks=1)
    save(other, tmp_path / "tiny")
    assert load("tiny").config == other.config


UNREACHABLE = """
import os, socket, sys, time
silent = socket.socket()
silent.bind(("127.0.0.1", 0))
if sys.argv[1] == "silent":
    silent.listen(50)  # it takes connections, and never answers
os.environ["HF_ENDPOINT"] = f"http://127.0.0.1:{silent.getsockname()[1]}"
import pixelcnn.models.files
pixelcnn.models.files.PATIENCE = 0.3
for name in ("photos-pyramid", "photo-pyramid", "no-such-model", "nobody/nothing"):
    start = time.monotonic()
    try:
        pixelcnn.ImageModel.from_pretrained(name)
        said = "loaded"
    except ValueError as error:
        said = str(error)
    print(name, time.monotonic() - start, said, sep=";")
"""


@pytest.mark.parametrize("kind", ["closed", pytest.param("silent", marks=pytest.mark.slow)])
def test_an_unreachable_hub_is_not_asked_or_not_for_long(kind: str) -> None:
    """Names without a slash never go to the hub; an id of the hub fails in seconds, and says why."""
    found = subprocess.run([sys.executable, "-c", UNREACHABLE, kind], capture_output=True, text=True, check=True)
    lines = [line.split(";", 2) for line in found.stdout.splitlines()]
    times, said = {each[0]: float(each[1]) for each in lines}, {each[0]: each[2] for each in lines}
    assert said["photos-pyramid"] == "loaded"
    assert said["photo-pyramid"] == "no model 'photo-pyramid': did you mean 'photos-pyramid'?"
    assert "use one of cifar10-classes, cifar10-grayscale, faces128-pyramid" in said["no-such-model"]
    assert re.match(
        r"'nobody/nothing' was not found here or on the hub \(\w+: .*\): use a folder", said["nobody/nothing"]
    )
    assert times["photos-pyramid"] < 3
    assert times["photo-pyramid"] < 1
    assert times["nobody/nothing"] < 10


def test_a_copy_from_before_is_used_without_the_hub(
    model: ImageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the hub does not answer, what was fetched before is loaded, unless it should be fetched again."""
    save(model, tmp_path)
    asked = []

    def fetch(name: str, **options: object) -> str:
        asked.append(options["local_files_only"])
        return str(tmp_path)

    def fail(*_: object, **__: object) -> None:
        raise TimeoutError("timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", fetch)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", fail)
    assert load("nobody/nothing").config == model.config
    assert asked == [True]
    with pytest.raises(ValueError, match=r"not found here or on the hub \(TimeoutError: timed out\)"):
        load("nobody/nothing", force_download=True)
    monkeypatch.setattr("huggingface_hub.HfApi.model_info", lambda *_, **__: None)
    load("nobody/nothing", force_download=True)
    assert asked == [True, False]
