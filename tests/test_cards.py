"""Model cards: front matter that the library of the hub can read, and nothing but known facts."""

import json
from pathlib import Path

import pytest
from huggingface_hub import HfApi, ModelCard

from pixelcnn.auxiliary.downsample import Downsample
from pixelcnn.models.cards import card_data
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load, save
from pixelcnn.models.shipped import CARD, RESEARCH_ONLY, shipped_names, zoo_card, zoo_folder

SCORE = {"total": 1.0, "images": 3, "source": "a b (test) at 32x32"}
UNKNOWN = "[More Information Needed]"


@pytest.fixture
def model() -> ImageModel:
    return ImageModel(auxiliaries=[Downsample(2)], filters=3, blocks=1, scales=1, embedding_blocks=1, size=(9, 8))


@pytest.mark.parametrize("name", shipped_names())
def test_the_cards_of_the_zoo_have_front_matter(name: str) -> None:
    """Law: it says what card.json says."""
    data, card = ModelCard.load(zoo_folder(name) / "README.md").data.to_dict(), zoo_card(name)
    assert data["license"] == ("other" if name in RESEARCH_ONLY else "cc-by-sa-4.0")
    assert data["datasets"] == card["datasets"]
    assert data["library_name"] == "pixelcnn"
    assert data["pipeline_tag"] == "unconditional-image-generation"
    assert data["metrics"] == ["bits_per_dim"]
    (index,) = data["model-index"]
    assert index["name"] == name
    assert len(index["results"]) == 1 + len(card["other_scores"])
    (metric,) = index["results"][0]["metrics"]
    assert metric["value"] == pytest.approx(card["bits_per_dim"]["total"], abs=1e-4)


def test_a_pushed_model_has_a_card_of_known_facts(
    model: ImageModel, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`push_to_hub` (with its upload intercepted) makes the card; facts that only its author knows are arguments."""
    monkeypatch.setattr(HfApi, "create_repo", lambda self, repo_id, **_: type("Repo", (), {"repo_id": repo_id}))
    pushed = []

    def upload(self: HfApi, folder_path: Path, **_: object) -> None:
        pushed.append((Path(folder_path) / "README.md").read_text())

    monkeypatch.setattr(HfApi, "upload_folder", upload)
    model.push_to_hub("you/faces", model_card_kwargs={"license": "mit", "datasets": ["you/photos"]})
    (text,) = pushed
    data = ModelCard(text).data.to_dict()
    assert (data["license"], data["datasets"], data["library_name"]) == ("mit", ["you/photos"], "pixelcnn")
    assert not {"model-index", "metrics"} & data.keys()
    assert UNKNOWN not in text
    assert "Downsample(factor=2)" in text
    assert "8x9" in text
    assert "Bits per dimension" not in text


def test_scores_are_kept_until_the_weights_change(tmp_path: Path) -> None:
    """A model that was loaded with a card keeps its scores and terms; the model of a view has none."""
    loaded = load("photos-pyramid")
    loaded.save_pretrained(tmp_path)
    text = (tmp_path / "README.md").read_text()
    data, card = ModelCard(text).data.to_dict(), zoo_card("photos-pyramid")
    assert data["license"] == "cc-by-sa-4.0"
    assert data["model-index"][0]["results"][0]["metrics"][0]["value"] == pytest.approx(
        card["bits_per_dim"]["total"], abs=1e-4
    )
    assert data["model-index"][0]["results"][0]["dataset"]["split"] == "test"
    (result,) = card_data("x", {"scores": {"test": SCORE}}).eval_results or []
    assert result.dataset_split == "test"
    assert "128x128" in text
    assert "model-index" not in loaded.of_view(1).generate_model_card().data.to_dict()


@pytest.mark.parametrize("card", [{"scores": 3}, {"scores": {"test": {"total": 1}}}, {"other_scores": 3}])
def test_a_malformed_card_is_refused_when_it_is_needed(model: ImageModel, tmp_path: Path, card: object) -> None:
    save(model, tmp_path / "model")
    (tmp_path / "model" / CARD).write_text(json.dumps(card))
    with pytest.raises(ValueError, match=r"card\.json"):
        load(tmp_path / "model").save_pretrained(tmp_path / "copy")
