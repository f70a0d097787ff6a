"""Models in folders: the same bits come back, and everything that can be wrong gives one clear error."""

import errno
import json
import os
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

import pixelcnn
from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.auxiliary.grayscale import QuantizedGrayscale
from pixelcnn.common.files import write_atomically
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PixelCNN, PyramidPixelCNN
from pixelcnn.models.shipped import CONFIG
from pixelcnn.training.options import Run
from pixelcnn.training.runs import claim_folder


@pytest.fixture
def model() -> ImageModel:
    chain = [Downsample(2), QuantizedGrayscale(3)]
    return ImageModel(auxiliaries=chain, filters=(4, 5, 6), blocks=(1, 2, 1), scales=(1, 1, 2), classes=2).eval()


@pytest.fixture
def folder(model: ImageModel, tmp_path: Path) -> Path:
    save(model, tmp_path / "model")
    return tmp_path / "model"


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    config = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({name: value for name, value in config.items() if value is not None}))


def test_same_bits_back(model: ImageModel, folder: Path) -> None:
    x, labels = torch.randint(0, 256, (3, 3, 5, 7)), torch.tensor([0, 1, 1])
    loaded = load(folder)
    assert loaded.config == model.config
    assert torch.equal(loaded.log_prob(x, labels), model.log_prob(x, labels))
    assert not loaded.training


@pytest.mark.parametrize("consistent", [True, False])
def test_a_loaded_model_is_as_consistent_as_it_was(model: ImageModel, tmp_path: Path, consistent: bool) -> None:
    """The setting is kept, and a config without the field means consistent."""
    model.consistent = consistent
    save(model, tmp_path)
    x, labels = torch.randint(0, 256, (2, 3, 4, 6)), torch.tensor([0, 1])
    assert load(tmp_path).consistent == consistent
    assert torch.equal(load(tmp_path).log_prob(x, labels), model.log_prob(x, labels))
    edit(tmp_path, consistent=None)  # as before the field existed
    model.consistent = True
    assert load(tmp_path).consistent
    assert torch.equal(load(tmp_path).log_prob(x, labels), model.log_prob(x, labels))


def test_hugging_face_layout(model: ImageModel, tmp_path: Path) -> None:
    """`save_pretrained` and `from_pretrained` write and read the same folder as `save` and `load`."""
    model.save_pretrained(tmp_path / "hub")
    assert {path.name for path in (tmp_path / "hub").iterdir()} == {"config.json", "model.safetensors", "README.md"}
    for loaded in (ImageModel.from_pretrained(tmp_path / "hub"), pixelcnn.load(tmp_path / "hub")):
        assert loaded.config == model.config
        assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), model.parameters(), strict=True))


def test_a_subclass_only_chooses_arguments(tmp_path: Path) -> None:
    save(PyramidPixelCNN(2, filters=4, blocks=1, embedding_blocks=1), tmp_path)
    assert load(tmp_path).config == PyramidPixelCNN(2, filters=4, blocks=1, embedding_blocks=1).config


def test_the_range_of_log_scales_is_kept(tmp_path: Path) -> None:
    """A range is kept in the file; a config from before it existed means the default, and its run can be resumed."""
    torch.manual_seed(0)
    x, chosen = torch.randint(0, 256, (2, 3, 4, 6)), PixelCNN(filters=4, blocks=1, log_scales=(-1, 3))
    save(chosen, tmp_path)
    assert json.loads((tmp_path / CONFIG).read_text())["log_scales"] == [-1, 3]
    assert torch.equal(load(tmp_path).log_prob(x), chosen.eval().log_prob(x))
    model = PixelCNN(filters=4, blocks=1)
    model.load_state_dict(chosen.state_dict())
    run = tmp_path / "run"
    with claim_folder(run, model, {"training": {}}, [0], resume=False, overwrite=False):
        assert json.loads((run / CONFIG).read_text())["log_scales"] == [None, -2]
    edit(run, log_scales=None)
    assert load(run).config == model.config
    assert torch.equal(load(run).log_prob(x), model.eval().log_prob(x))
    assert not torch.equal(model.log_prob(x), chosen.log_prob(x))
    with claim_folder(run, model, {"training": {}}, [0], resume=True, overwrite=False):
        pass
    with (
        pytest.raises(ValueError, match=r"another run: log_scales is \[None, -2.0\] there and \[-1.0, 3.0\] here"),
        claim_folder(run, chosen, {"training": {}}, [0], resume=True, overwrite=False),
    ):
        pass


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"filtres": 3}, "unknown field 'filtres', did you mean 'filters'"),
        ({"zzz": 3}, "unknown field 'zzz'; the fields are"),
        ({"filters": "many"}, "filters='many'"),
        ({"filters": [4, 5]}, "one for each of the 3"),
        ({"blocks": 0}, "blocks=0"),
        ({"levels": 1}, "levels=1"),
        ({"channels": 2}, "channels=2"),
        ({"dropout": 1.5}, "dropout=1.5"),
        ({"dropout": "x"}, "dropout='x'"),
        ({"classes": -1}, "classes=-1"),
        ({"consistent": "x"}, "consistent='x'"),
        ({"log_scales": -7}, "log_scales=-7"),
        ({"log_scales": [-2, -7]}, r"log_scales=\[-2, -7\]"),
        ({"log_scales": [float("nan"), None]}, "NaN is not a finite number"),
        ({"log_scales": {"lowest": -7}}, r"log_scales=\{"),
        ({"size": "x"}, "size='x'"),
        ({"size": 0}, "size=0"),
        ({"size": [8]}, r"size=\[8\]"),
        ({"size": [8, 0]}, "size=0"),
        (
            {"auxiliaries": [{"name": "Shrink"}]},
            "the auxiliary 'Shrink' is not known here .*import the module that registers it first",
        ),
        ({"auxiliaries": [{"name": "Downsample", "by": 2}]}, "'by'"),
        ({"auxiliaries": 3}, "auxiliaries"),
        ({"filters": [4, 5, 7]}, "another configuration"),
        ({"classes": 3}, "another configuration"),
    ],
)
def test_wrong_config(folder: Path, changes: dict[str, object], message: str) -> None:
    edit(folder, **changes)
    with pytest.raises(ValueError, match=message) as error:
        load(folder)
    assert str(folder) in str(error.value)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", '{"filters": NaN}'])
def test_a_config_that_is_not_one(folder: Path, text: str) -> None:
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match=r"config\.json"):
        load(folder)


@pytest.mark.parametrize("share", [0.0, 0.001, 0.5, 0.999])
def test_truncated_weights(folder: Path, share: float) -> None:
    path = folder / "model.safetensors"
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    with pytest.raises(ValueError, match=r"model\.safetensors is damaged"):
        load(folder)


@pytest.mark.parametrize("place", [0.5, 0.75, 1.0])
def test_altered_weights(folder: Path, place: float) -> None:
    """A single flipped bit in the weights is found by the checksum in the file."""
    path = folder / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[int(place * (len(content) - 1))] ^= 1
    path.write_bytes(content)
    with pytest.raises(ValueError, match="damaged"):
        load(folder)


def test_weights_of_another_model(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    weights.pop("factors.0.network.last.bias")
    save_file(weights, folder / "model.safetensors")
    with pytest.raises(ValueError, match=r"factors\.0\.network\.last\.bias is none"):
        load(folder)


def test_missing_models(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"no config\.json"):
        load(tmp_path)
    with pytest.raises(ValueError, match="no model 'celestial'"):
        load("celestial")
    (tmp_path / "config.json").write_text('{"filters": 4, "blocks": 1, "scales": 1}')
    with pytest.raises(ValueError, match=r"model\.safetensors is missing"):
        load(tmp_path)


def test_weights_lie_in_memory_as_those_of_a_fresh_model(model: ImageModel, folder: Path) -> None:
    """Convolutions and fused Adam are fastest in that layout."""
    for loaded, fresh in zip(load(folder).parameters(), model.parameters(), strict=True):
        assert loaded.stride() == fresh.stride()
        assert loaded.requires_grad


def other_model() -> ImageModel:
    return PyramidPixelCNN(1, filters=3, blocks=1, embedding_blocks=1)


def stop_after(renames: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Simulate a process that is killed after this many files were renamed."""
    done, replace = [], Path.replace

    def replace_once_more(path: Path, target: Path) -> Path:
        if len(done) == renames:
            raise KeyboardInterrupt
        done.append(target)
        return replace(path, target)

    monkeypatch.setattr(Path, "replace", replace_once_more)


@pytest.mark.parametrize("renames", [0, 1, 2])
@pytest.mark.parametrize("earlier", ["now", "before there were hashes"])
def test_a_folder_is_one_whole_model_whenever_a_save_is_killed(
    model: ImageModel, folder: Path, renames: int, earlier: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Law: killed between any two steps, a folder holds the old model or the new one."""
    if earlier != "now":
        edit(folder, weights_sha256=None)
        save_file(load_file(folder / WEIGHTS), folder / WEIGHTS)
    new = other_model()
    with monkeypatch.context() as patch:
        stop_after(renames, patch)
        if renames == 2:
            save(new, folder)
        else:
            with pytest.raises(KeyboardInterrupt):
                save(new, folder)
    expected = model if renames == 0 else new
    loaded = load(folder)
    assert loaded.config == expected.config
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), expected.parameters(), strict=True))


@pytest.mark.parametrize("verb", ["save", "save_pretrained"])
def test_a_full_disk_keeps_the_old_model(
    model: ImageModel, folder: Path, verb: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """If the disk is full while the second file is written, nothing changes and nothing is left over."""
    before = {path.name: path.read_bytes() for path in folder.iterdir()}
    calls, fsync = [], os.fsync

    def fill(file: int) -> None:
        calls.append(file)
        if len(calls) == 2:
            raise OSError(errno.ENOSPC, "No space left on device")
        fsync(file)

    monkeypatch.setattr("os.fsync", fill)
    with pytest.raises(OSError, match="No space left on device; nothing was changed: free some space"):
        save(other_model(), folder) if verb == "save" else other_model().save_pretrained(folder)
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == before
    assert load(folder).config == model.config


def test_saving_is_reproducible(model: ImageModel, folder: Path, tmp_path: Path) -> None:
    for i in range(5):
        save(model, tmp_path / str(i))
        assert all(
            (tmp_path / str(i) / name).read_bytes() == (folder / name).read_bytes() for name in (CONFIG, WEIGHTS)
        )


def test_edits_by_hand_take_effect(folder: Path) -> None:
    edit(folder, consistent=False)
    assert not load(folder).consistent


def test_weights_without_a_copy_of_the_config_must_match_its_hash(folder: Path) -> None:
    weights = load_file(folder / WEIGHTS)
    save_file(weights, folder / WEIGHTS)  # without notes
    load(folder)
    weights["factors.0.network.last.bias"] += 1
    save_file(weights, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"does not belong to the config\.json next to it"):
        load(folder)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_neither_saved_nor_loaded(
    model: ImageModel, folder: Path, value: float
) -> None:
    before = (folder / WEIGHTS).read_bytes()
    with torch.no_grad():
        model.factors[1].network.last.bias[0] = value
    with pytest.raises(ValueError, match=r"factors\.1\.network\.last\.bias has values that are not finite"):
        save(model, folder)
    assert (folder / WEIGHTS).read_bytes() == before
    edit(folder, weights_sha256=None)
    save_file({name: weight.contiguous() for name, weight in model.state_dict().items()}, folder / WEIGHTS)
    with pytest.raises(ValueError, match=r"factors\.1\.network\.last\.bias has values that are not finite"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.float64, torch.int32, torch.int8, torch.bool, torch.float8_e4m3fn])
def test_weights_of_another_type_are_refused(model: ImageModel, folder: Path, dtype: torch.dtype) -> None:
    with pytest.raises(ValueError, match=f"dtype={dtype}: use one of torch.float32, torch.bfloat16, torch.float16"):
        save(model, folder, dtype)
    weights = load_file(folder / WEIGHTS)
    save_file(
        weights | {"factors.0.network.last.bias": weights["factors.0.network.last.bias"].to(dtype)}, folder / WEIGHTS
    )
    with pytest.raises(ValueError, match=r"factors\.0\.network\.last\.bias is of type \w+; weights are of type F32"):
        load(folder)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_weights_of_half_the_size_are_computed_with_in_float32(
    model: ImageModel, folder: Path, dtype: torch.dtype
) -> None:
    save(model, folder, dtype)
    for name, weight in load(folder).state_dict().items():
        assert torch.equal(weight, model.state_dict()[name].to(dtype).float())


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"revision": "main"}, "revision='main': .* is a local folder, not a model on the hub; leave it out"),
        ({"force_download": True}, "force_download=True"),
        ({"device": "cuda:77"}, "device='cuda:77': there is no such device; use cpu"),
        ({"device": "meta"}, "device='meta'"),
        ({"device": "nonsense"}, "device='nonsense'"),
    ],
)
def test_arguments_are_honored_or_refused(folder: Path, options: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        load(folder, **options)
    if "device" in options:
        options = {"map_location": options["device"]}
    with pytest.raises(ValueError, match=message):
        ImageModel.from_pretrained(folder, **options)


def test_unknown_arguments_are_errors(folder: Path) -> None:
    unknown: dict[str, Any]
    for unknown in ({"nonsense": 1}, {"filters": 3}, {"proxies": {}}, {"strict": False}):
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(unknown))}'"):
            load(folder, **unknown)
        with pytest.raises(TypeError, match=f"unexpected keyword argument '{next(iter(unknown))}'"):
            ImageModel.from_pretrained(folder, **unknown)
    with pytest.raises(ValueError, match="the model has its own configuration"):
        load(folder).save_pretrained(folder, config={"filters": 3})  # pyright: ignore[reportArgumentType]  (the law)


@pytest.mark.parametrize("consistent", [None, True, False])
def test_from_pretrained_takes_what_can_be_chosen(folder: Path, consistent: bool | None) -> None:
    """It takes `consistent`, the device, and the name of a shipped model, as `load` does."""
    for name in (folder, "photos-pyramid"):
        loaded = ImageModel.from_pretrained(name, consistent=consistent, map_location="cpu", local_files_only=True)
        assert loaded.consistent == (consistent is not False)


def test_a_failed_write_changes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "file"
    write_atomically(path, b"old")
    monkeypatch.setattr("os.fsync", lambda _: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError, match="No space left"):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_model_remembers_the_size_it_was_trained_at(tmp_path: Path) -> None:
    """Law: however it is saved, it draws images of that size (H, W), halved for the model of a view."""
    tiny = {"auxiliaries": [Downsample(2)], "filters": 3, "blocks": 1, "scales": 1, "embedding_blocks": 1}
    model = ImageModel(**tiny, size=(9, 6))
    save(model, tmp_path / "saved")
    model.save_pretrained(tmp_path / "hub")
    for loaded in (model, load(tmp_path / "saved"), ImageModel.from_pretrained(tmp_path / "hub")):
        assert loaded.size == (9, 6)
        assert loaded.sample(1).shape == (1, 3, 9, 6)
        assert loaded.sample(1, 4).shape == (1, 3, 4, 4)
        assert [view.shape[2:] for _, view in pixelcnn.sample_views(loaded)] == [(5, 3), (9, 6)]
        assert loaded.of_view(1).size == (5, 3)
    model.size = 8
    assert (model.size, model.side, model.of_view(1).side) == ((8, 8), 8, 4)
    model.size = None
    assert model.of_view(1).size is None
    assert model.sample(1).shape == (1, 3, 32, 32)


def test_training_sets_the_size_and_drops_the_card(tmp_path: Path) -> None:
    """The size is that of the images, not of random crops, and the scores of other weights are dropped."""
    model = ImageModel(filters=3, blocks=1, scales=1, size=5)
    model.card = {"title": "Before"}
    images = pixelcnn.load_images("photos", "test", size=12)
    how = pixelcnn.Training(batch_size=2, random_crop=8)
    trained = pixelcnn.train(model, images, tmp_path / "run", how, steps=1, run=Run(sheet_minutes=0))
    assert trained.card == {}
    assert trained.size == load(tmp_path / "run").size == (12, 12)

    edit(tmp_path / "run", size=None)  # as in a run from before the field existed
    model = ImageModel(filters=3, blocks=1, scales=1)
    pixelcnn.train(model, images, tmp_path / "run", how, steps=2, run=Run(sheet_minutes=0, resume=True))
    assert load(tmp_path / "run").size == (12, 12)
