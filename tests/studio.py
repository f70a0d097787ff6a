"""A studio in a process of its own, and small models and runs for it."""

import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Any, Self

import torch

from pixelcnn.models.image_model import ImageModel


class Served:
    """A studio in a process of its own; a context that ends it."""

    def __init__(self, *arguments: object) -> None:
        command = [sys.executable, "-m", "pixelcnn", "studio", "--no-browser", *map(str, arguments)]
        self.process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
        assert self.process.stderr is not None
        line = self.process.stderr.readline()
        found = re.search(r"http://(\S+)", line)
        assert found, line
        self.host = found[1]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()
        assert self.process.stderr is not None
        self.process.stderr.close()


def fresh(model: ImageModel) -> ImageModel:
    """Give a model weights that draw something."""
    torch.manual_seed(0)
    x = torch.randint(0, 256, (8, model.formats[0][0], 16, 16))
    for factor, link in zip(model.factors, model.links(x), strict=True):
        factor.initialize(*link)
    model.size = 16
    return model.eval()


def write_history(folder: Path, points: list[dict[str, Any]]) -> None:
    """Write the history of a factor, whose last line is being written."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = "".join(json.dumps(point) + "\n" for point in points)
    (folder / "history.jsonl").write_text(lines + '{"step": 9, "sec')
