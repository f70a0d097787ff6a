"""The verb of the command line that takes checkpoints of other programs: `import`."""

__all__ = ["import_model"]

import sys
from pathlib import Path
from typing import Annotated

import typer

from pixelcnn.cli import Overwrite, app


@app.command("import")
def import_model(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A state dict of the PyTorch port, or an .npz of variables."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    overwrite: Overwrite = False,
) -> None:
    """Make a model of a trained PixelCNN++ of another program; it computes the same likelihoods."""
    from pixelcnn.checkpoint import CONFIG, RUN, WEIGHTS, read_config, save
    from pixelcnn.config import build_model
    from pixelcnn.imports import import_checkpoint

    if out.exists() and not out.is_dir():
        raise ValueError(f"{str(out)!r} is a file: name a folder")
    if out.exists() and any(out.iterdir()) and not overwrite:
        raise ValueError(f"{str(out)!r} is not empty: use --overwrite to replace the model in it, or another folder")
    if (out / RUN).exists():
        raise ValueError(f"{str(out)!r} holds a training run: name another folder")
    if file.resolve() in [(out / name).resolve() for name in (CONFIG, WEIGHTS)]:
        raise ValueError(f"{str(file)!r} would be replaced by what is made of it: name another folder")
    if out.exists() and any(out.iterdir()):
        try:
            build_model(read_config(out))
        except ValueError:
            raise ValueError(f"{str(out)!r} is not empty, and holds no model: name another folder") from None
    model = import_checkpoint(file)
    save(model, out)
    sizes = ", ".join(f"{name} {model.config[name]}" for name in ("channels", "components", "filters", "blocks"))
    print(f"pixelcnn: imported {sum(p.numel() for p in model.parameters()):,} weights; {sizes}", file=sys.stderr)
    print(out)
