"""Model cards, as on the Hugging Face hub: front matter in YAML for machines, then a page for people.

A card says only what is known. For a model from a folder with a `card.json`, such as a shipped one, that includes its
scores and the terms of its data. For any other model, it is the configuration.

Reference: https://huggingface.co/docs/hub/model-cards.
"""

__all__ = ["card_data", "model_card"]

from collections.abc import Mapping
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from pixelcnn.models.config import ModelConfig

TASK = "unconditional-image-generation"
METRIC = "bits_per_dim"
TAGS = ("exact-likelihood", "image-generation", "pixelcnn")


def card_data(name: str, card: Mapping[str, Any], **fields: Any) -> ModelCardData:
    """Make the front matter: license, data sets, and bits per dimension on held-out images.

    Args:
        name: of the model.
        card: content of a `card.json`; fields that it lacks are left out.
        fields: more fields, or replacements.

    Raises:
        ValueError: if a field of the card does not have the form that it has in shipped models.
    """
    known: dict[str, Any] = {
        "library_name": "pixelcnn",
        "pipeline_tag": TASK,
        "tags": list(TAGS),
        "license": card.get("license"),
        "license_name": card.get("license_name"),
        "datasets": card.get("datasets"),
    }
    try:
        scores = [card.get("scores", {}).get("test"), *card.get("other_scores", [])]
        results = [_result(score) for score in scores if score is not None]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise ValueError(f"card.json of {name!r}: {error!r}; remove it, or get it again") from None
    if results:
        known |= {"metrics": [METRIC], "model_name": name, "eval_results": results}
    return ModelCardData(**known | fields)


def _result(score: Mapping[str, Any]) -> EvalResult:
    where = f", view {score['view']}" if score.get("view") else ""
    source, _, rest = score["source"].rpartition(" (")  # such as "photos (test) at 128x128"
    return EvalResult(
        task_type=TASK,
        dataset_type=source,
        dataset_name=f"{score['images']} images of {score['source']}{where}",
        dataset_split=rest.partition(")")[0],
        metric_type=METRIC,
        metric_name="bits per dimension",
        metric_value=round(float(score["total"]), 4),
    )


def model_card(config: ModelConfig, parameters: int, card: Mapping[str, Any], **fields: Any) -> ModelCard:
    """Make the card of a model.

    Args:
        config: of the model.
        parameters: the number of parameters.
        card: content of its `card.json`; empty if it has none.
        fields: of the front matter, such as `license="mit"`.

    Raises:
        ValueError: if the `card.json` does not have the form that it has in shipped models.
    """
    title = card.get("title") or "An exact-likelihood image model"
    data = card_data(title, card, **fields)
    use = USE.format(labels=", labels=0" if config.classes else "")
    parts = [f"---\n{data.to_yaml()}\n---", f"# {title}", _description(config, parameters, card.get("terms")), use]
    if data.eval_results:
        lines = "\n".join(f"| {each.dataset_name} | {each.metric_value:.3f} |" for each in data.eval_results)
        parts.append(f"## Bits per dimension\n\n| held-out images | bits per dimension |\n|---|---|\n{lines}")
    return ModelCard("\n\n".join(parts) + "\n")


USE = """## Use

With the Python package `pixelcnn`:

```python
import pixelcnn

model = pixelcnn.load("OWNER/NAME")  # this repository, or a folder with its files
images = model.sample(4{labels})
```"""


def _description(config: ModelConfig, parameters: int, terms: str | None) -> str:
    """Describe the chain, the number of parameters and the images in a table."""
    channels, levels = config.chain.formats[0]
    chain = ", ".join(map(repr, config.auxiliaries)) or "none, as in PixelCNN++"
    exact = "exact" if config.consistent or not config.auxiliaries else "a lower bound"
    rows = {
        "parameters": f"{parameters / 1e6:.2f} million",
        "images": f"{channels} channel{'s' if channels > 1 else ''} of {levels} levels",
        "trained at": f"{config.sides[1]}x{config.sides[0]}" if config.sides else None,
        "auxiliary variables": f"`{chain}`" if config.auxiliaries else chain,
        "classes": config.classes or None,
        "log-likelihood": exact,
        "terms of the data": terms,
    }
    return "\n".join(["| | |", "|---|---|", *(f"| {name} | {value} |" for name, value in rows.items() if value)])
