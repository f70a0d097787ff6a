"""Files from strangers: a model, a state or a run is either read or refused by a ValueError of one short line.

Law, whatever the files hold: no other exception, no hang, and nothing large is allocated.
"""

import json
import os
import random
import struct
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch
from conftest import inside
from torch.optim.swa_utils import AveragedModel

from pixelcnn.common.files import write_json
from pixelcnn.common.strict_json import MOST_JSON, parse_json
from pixelcnn.models.files import WEIGHTS
from pixelcnn.models.files import _WithoutValues as WithoutValues
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.presets import PyramidPixelCNN
from pixelcnn.models.shipped import CONFIG
from pixelcnn.training.runs import RUN, claim_folder, data_of
from pixelcnn.training.same import AnotherRunError
from pixelcnn.training.state import TrainingState, restore_state
from pixelcnn.zoo.recipes import RECIPES, find_recipe

MUTATIONS = 80  # of each file
SECONDS = 5.0  # in which a file is refused, on a busy machine
LONGEST = 1_000
CONTENT: dict[str, Any] = {"channels": 3, "filters": 2, "blocks": 1, "scales": 1, "embedding_blocks": 1}


def tiny_model() -> ImageModel:
    torch.manual_seed(0)
    return PyramidPixelCNN(1, filters=2, blocks=1, embedding_blocks=1)


def make_state(model: ImageModel) -> TrainingState:
    factor = model.factors[0]
    optimizer = torch.optim.Adam(factor.parameters())
    torch.stack([parameter.sum() for parameter in factor.parameters()]).sum().backward()
    optimizer.step()
    averaged = AveragedModel(factor)
    return TrainingState(factor, averaged, [optimizer], step=3, seconds=1.5)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    save(tiny_model(), tmp_path)
    return tmp_path


def assert_read_or_refused(read: Callable[[], object], path: Path) -> bool:
    """Return whether it is read; otherwise check the error."""
    start, error = time.perf_counter(), None
    try:
        read()
    except ValueError as raised:
        error = raised
    assert time.perf_counter() - start < SECONDS
    if error is not None:
        assert type(error) in (ValueError, AnotherRunError)
        assert "\n" not in str(error)
        assert len(str(error)) < LONGEST
        assert path.name in str(error)
    return error is None


def mutations(content: bytes, number: int, head: int) -> Iterator[bytes]:
    """Change, remove, double and insert bytes, half of them near the beginning, and cut files short."""
    chance = random.Random(0)
    for i in range(number):
        end = min(len(content), head) if i % 2 else len(content)
        place, length = chance.randrange(end), chance.choice((1, 1, 2, 8, 100))
        new = bytes(chance.randrange(256) for _ in range(length))
        part = content[place : place + length]
        new = (new, b"", 2 * part, new + part, b"9" * length, b"[" * length)[chance.randrange(6)]
        yield content[:place] if i % 10 == 9 else content[:place] + new + content[place + length :]


HOSTILE = {
    "ten million blocks": {"blocks": 10**7},
    "ten million blocks in a list": {"blocks": [10**7, 1]},
    "as a real number": {"blocks": 1e7},
    "blocks below every limit, together above": {"blocks": 200, "scales": 12},
    "filters": {"filters": 10**6},
    "a number of 5,000 digits": '{"filters": ' + "9" * 5_000 + "}",
    "a number of 4,000 digits": '{"filters": ' + "9" * 4_000 + "}",
    "too many parameters": {"filters": 10_000},
    "scales": {"scales": 10**9},
    "classes": {"classes": 10**12},
    "levels": {"levels": 10**12},
    "a side of the images": {"size": [8, 10**12]},
    "components": {"components": 10**12},
    "embedding": {"embedding_filters": 10**9, "embedding_blocks": 10**9, "embedding_scales": 10**9},
    "a chain": {"auxiliaries": [{"name": "Downsample", "factor": 2}] * 10_000},
    "a factor": {"auxiliaries": [{"name": "Downsample", "factor": 10**9}]},
    "bits": {"auxiliaries": [{"name": "QuantizedGrayscale", "bits": 10**9}]},
    "names of another type": {"auxiliaries": [{"name": ["Downsample"]}, {"name": None}]},
    "fields of an auxiliary": {"auxiliaries": [{"name": "Downsample", "self": 2}]},
    "a long list": {"filters": [1] * 100_000},
    "a long name": {"x" * 500_000: 1},
    "a name of half a character": '{"\\ud800": 1}',
    "lists in lists": "[" * 100_000,
    "objects in objects": '{"filters":' * 100_000,
    "nested a little": '{"filters": ' + "[" * 900 + "]" * 900 + "}",
    "NaN": '{"dropout": NaN}',
    "Infinity": '{"dropout": -Infinity}',
    "infinity by another name": '{"dropout": 1e999}',
    "twice": '{"filters": 4, "filters": 2}',
    "twice, inside": '{"auxiliaries": [{"name": "Downsample", "factor": 2, "factor": 3}]}',
    "ten megabytes": '{"filters": 2, "x": "' + "x" * 10**7 + '"}',
    "ten megabytes of nothing": " " * 10**7,
    "not text": b"\xff\xfe\x00\x80",
    "wrong types": {"filters": {"a": 1}, "blocks": None, "scales": True, "auxiliaries": "x", "dropout": []},
    "negative": {"filters": -(10**9)},
    "no hash": {"weights_sha256": ["x"]},
}


@pytest.mark.parametrize("name", HOSTILE)
@pytest.mark.parametrize("place", ["config.json", "the weights' own"])
def test_a_hostile_config_is_refused_at_once(folder: Path, name: str, place: str) -> None:
    content = HOSTILE[name]
    if isinstance(content, dict):
        content = json.dumps(CONTENT | content)
    content = content.encode() if isinstance(content, str) else content
    if place == CONFIG:
        weights = safetensors.torch.load_file(folder / WEIGHTS)
        (folder / CONFIG).write_bytes(content)
        (folder / WEIGHTS).write_bytes(with_notes(weights, {}))
        read, path = lambda: load(folder), folder / CONFIG
    else:
        note = content.decode(errors="replace")
        notes = (
            {"pixelcnn": json.dumps({"config": note, "sha256": ""})} if len(note) < MOST_JSON else {"pixelcnn": note}
        )
        (folder / WEIGHTS).write_bytes(with_notes(safetensors.torch.load_file(folder / WEIGHTS), notes))
        read, path = lambda: load(folder), folder / WEIGHTS
    assert not assert_read_or_refused(read, path if name not in ("no hash",) else folder / WEIGHTS)


def with_notes(weights: dict[str, torch.Tensor], notes: dict[str, str]) -> bytes:
    return safetensors.torch.save(weights, notes)


@pytest.mark.parametrize("name", RECIPES)
def test_every_recipe_is_far_below_the_limits(name: str) -> None:
    """Each recipe can be loaded even with about ten times the parameters."""
    with torch.device("meta"), WithoutValues():
        config = find_recipe(name).model().config.to_json()
        filters = [3 * each for each in config["filters"]]
        ImageModel.from_config(config | {"filters": filters, "blocks": [2 * each for each in config["blocks"]]})


def test_mutated_configs(folder: Path) -> None:
    content = (folder / CONFIG).read_bytes()
    read = 0
    for mutated in mutations(content, MUTATIONS, 100):
        (folder / CONFIG).write_bytes(mutated)
        try:
            read += assert_read_or_refused(lambda: load(folder), folder / CONFIG)
        except AssertionError:  # the config is valid, but the weights do not fit it
            read += assert_read_or_refused(lambda: load(folder), folder / WEIGHTS)
    assert 0 < read < MUTATIONS


def test_mutated_weights(folder: Path) -> None:
    """Weights that are read are the weights that were written."""
    content, expected = (folder / WEIGHTS).read_bytes(), load(folder).state_dict()
    for mutated in mutations(content, MUTATIONS, 6_000):
        (folder / WEIGHTS).write_bytes(mutated)
        loaded: list[ImageModel] = []
        if assert_read_or_refused(lambda loaded=loaded: loaded.append(load(folder)), folder / WEIGHTS):
            assert all(torch.equal(weight, expected[name]) for name, weight in loaded[0].state_dict().items())


@pytest.mark.parametrize("length", [0, 2, 2**24 - 1, 2**24 + 1, 2**40, 2**64 - 1])
@pytest.mark.parametrize("filler", [b"[", b" ", b"{"])
def test_a_header_of_any_length(folder: Path, length: int, filler: bytes) -> None:
    (folder / WEIGHTS).write_bytes(struct.pack("<Q", length) + filler * min(length, 2**24 + 1))
    assert not assert_read_or_refused(lambda: load(folder), folder / WEIGHTS)


def test_mutated_states(tmp_path: Path) -> None:
    """A state that is read is the one that was written."""
    path, saved = tmp_path / "state.safetensors", make_state(tiny_model())
    content = saved.to_bytes()
    expected = saved.factor.state_dict()
    for mutated in mutations(content, MUTATIONS, 6_000):
        path.write_bytes(mutated)
        state = make_state(tiny_model())
        if assert_read_or_refused(lambda state=state: restore_state(state, path), path):
            assert all(torch.equal(tensor, expected[name]) for name, tensor in state.factor.state_dict().items())
            assert (state.step, state.seconds) == (3, 1.5)


@pytest.mark.parametrize("note", [{"step": "x"}, {"step": "-1"}, {"seconds": "nan"}, {"step": "9" * 30}, {}])
def test_states_with_bad_numbers(tmp_path: Path, note: dict[str, str]) -> None:
    path, state = tmp_path / "state.safetensors", make_state(tiny_model())
    path.write_bytes(state.to_bytes())
    notes = {"step": "3", "seconds": "1.0"} | note if note else {}
    path.write_bytes(with_notes(safetensors.torch.load_file(path), notes))
    assert not assert_read_or_refused(lambda: restore_state(make_state(tiny_model()), path), path)


def test_mutated_runs(folder: Path) -> None:
    """A run is resumed only if it is the same, and its record of the images is read or refused."""
    data = {"source": "photos", "size": 8, "crop": None, "fingerprint": {"images": 4, "blake2b": "00"}}
    run = {"training": {"batch_size": 4}, "data": data}
    write_json(folder / RUN, run)
    content = (folder / RUN).read_bytes()

    def resume() -> None:
        with claim_folder(folder, tiny_model(), run, [0], resume=True, overwrite=False):
            pass

    resume()
    for mutated in mutations(content, MUTATIONS, 60):
        (folder / RUN).write_bytes(mutated)
        if assert_read_or_refused(resume, folder / RUN):
            mutant = parse_json(mutated)
            assert mutant["training"] == run["training"]
            assert [mutant["data"][name] for name in ("size", "crop")] == [8, None]
        assert_read_or_refused(lambda: data_of(folder), folder / RUN)


def test_the_command_line_says_so_in_one_line(folder: Path) -> None:
    (folder / CONFIG).write_text("[" * 100_000)
    result = inside("sample", folder, "--out", folder / "s.png")
    assert result.returncode == 2
    assert result.stderr.startswith("pixelcnn: ")
    assert result.stderr.count("\n") == 1


@pytest.mark.parametrize("size", [10**5, [5, 10**6]])
def test_images_of_any_size_are_refused_before_they_are_planned(folder: Path, size: int | list[int]) -> None:
    """A config sets the size that a model draws by default, which may need more memory than there is."""
    save(PyramidPixelCNN(1, filters=2, blocks=1, embedding_blocks=1, size=size), folder)
    start = time.perf_counter()
    with pytest.raises(MemoryError, match="draw fewer images at once, or smaller ones"):
        load(folder).sample(10**4)
    assert time.perf_counter() - start < SECONDS


def test_a_config_that_is_not_a_file_is_refused(tmp_path: Path) -> None:
    """Reading a named pipe would hang."""
    os.mkfifo(tmp_path / CONFIG)
    with pytest.raises(ValueError, match=r"there is no config\.json in it"):
        load(tmp_path)
