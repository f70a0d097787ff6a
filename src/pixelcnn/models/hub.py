"""The methods of the Hugging Face hub: `from_pretrained`, `save_pretrained`, `push_to_hub`."""

__all__ = ["HubModel"]

from abc import abstractmethod
from pathlib import Path
from typing import Any, Self

import torch
from huggingface_hub import ModelCard, PyTorchModelHubMixin
from torch import nn

from pixelcnn.common.devices import device_of, find_device, naming_memory
from pixelcnn.common.files import read_json, write_atomically
from pixelcnn.models.cards import model_card
from pixelcnn.models.config import ModelConfig
from pixelcnn.models.files import HubOptions, find_folder, read_model, write_model
from pixelcnn.models.shipped import CARD, check_shipped, is_shipped


class HubModel(nn.Module, PyTorchModelHubMixin, library_name="pixelcnn", tags=["image-generation", "pixelcnn"]):
    """A model that can be loaded from the hub, saved in its layout, and pushed to it.

    Attributes:
        config: everything about the model except its weights.
        card: the scores and the origin of a model that was loaded from a folder with a `card.json`. Empty if unknown,
            and once the model is trained further.
    """

    config: ModelConfig
    card: dict[str, Any]

    @property
    def device(self) -> torch.device:
        """The device of the weights. Everything that the model is given is moved there."""
        return device_of(self)

    @classmethod
    @abstractmethod
    def from_config(cls, config: dict[str, Any]) -> Self:
        """Make a model with fresh weights from its configuration, in the types of JSON."""

    @classmethod
    def from_pretrained(  # pyright: ignore[reportIncompatibleMethodOverride]  (it takes no model arguments but one)
        cls,
        pretrained_model_name_or_path: str | Path,
        *,
        consistent: bool | None = None,
        map_location: str | torch.device = "cpu",
        **hub: Any,
    ) -> Self:
        """Load a model as `pixelcnn.load` does.

        Args:
            pretrained_model_name_or_path: a folder, the name of a shipped model, or a hub id.
            consistent: overrides the configuration. Nothing else can be overridden, since the weights depend on it.
            map_location: the device; "auto" is the accelerator if there is one, else the CPU.
            hub: how to fetch the model from the hub, see `HubOptions`.
        """
        name, device = str(pretrained_model_name_or_path), find_device(map_location)
        folder = find_folder(name, HubOptions(**hub))
        if is_shipped(name):
            check_shipped(name)

        def build(config: dict[str, Any]) -> Self:
            return cls.from_config(config if consistent is None else config | {"consistent": consistent})

        model = read_model(folder, build)
        with naming_memory(device, "end other programs that use it, or use another device"):
            model = model.to(device).eval()
        model.card = read_json(folder / CARD) if (folder / CARD).is_file() else {}
        return model

    def save_pretrained(
        self,
        save_directory: str | Path,
        *,
        config: None = None,
        repo_id: str | None = None,
        push_to_hub: bool = False,
        model_card_kwargs: dict[str, Any] | None = None,
        **push_to_hub_kwargs: Any,
    ) -> str | None:
        """Save the model as `pixelcnn.save` does, with a card if there is none; see `huggingface_hub.ModelHubMixin`.

        The method of the mixin would delete an earlier `config.json` before it knows whether there is room for another.

        Raises:
            ValueError: if a configuration is given, since the model has its own.
        """
        if config is not None:
            raise ValueError(f"config={config!r}: the model has its own configuration; leave it out")
        folder = Path(save_directory)
        write_model(folder, self.config.to_json(), self.state_dict(), torch.float32)
        if not (folder / "README.md").exists():
            card = self.generate_model_card(**(model_card_kwargs or {}))
            write_atomically(folder / "README.md", str(card).encode())
        if not push_to_hub:
            return None
        return self.push_to_hub(repo_id or folder.name, model_card_kwargs=model_card_kwargs, **push_to_hub_kwargs)

    def generate_model_card(self, **fields: Any) -> ModelCard:  # pyright: ignore[reportIncompatibleMethodOverride]
        """Make the card that `save_pretrained` and `push_to_hub` put next to the model.

        Args:
            fields: of the front matter, such as `license="mit"` or `datasets=["owner/name"]`. The two methods take
                them as `model_card_kwargs`.
        """
        return model_card(self.config, sum(parameter.numel() for parameter in self.parameters()), self.card, **fields)
