"""The commands `import` and `merge`, which make models of weights that are trained already."""

__all__ = ["import_model", "merge"]

import sys
from pathlib import Path
from typing import Annotated

import typer

import pixelcnn
import pixelcnn.training
from pixelcnn.apps.cli.help import MAKE
from pixelcnn.apps.cli.options import Overwrite, command


@command(MAKE, "import")
def import_model(
    file: Annotated[
        Path,
        typer.Argument(metavar="FILE", help="A state dict of the PyTorch port, or an .npz of TensorFlow variables."),
    ],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    overwrite: Overwrite = False,
) -> None:
    """Import a PixelCNN++ that another program trained. The model computes the same likelihoods."""
    pixelcnn.training.check_model_folder(out, inputs=[file], overwrite=overwrite)
    model = pixelcnn.import_checkpoint(file)
    pixelcnn.save(model, out)
    config = model.config.to_json()
    sizes = ", ".join(f"{name} {config[name]}" for name in ("channels", "components", "filters", "blocks"))
    print(f"pixelcnn: imported {sum(p.numel() for p in model.parameters()):,} weights; {sizes}", file=sys.stderr)
    print(out)


@command(MAKE)
def merge(
    folders: Annotated[list[Path], typer.Argument(metavar="FOLDERS", help="Runs, and at most one model.")],
    out: Annotated[Path, typer.Option(help="Folder for the model.")],
    overwrite: Overwrite = False,
) -> None:
    """Make one model of factors trained in separate folders.

    Each factor comes from the run that has trained it. A model among the folders gives those that no run has trained.
    """
    origins = pixelcnn.training.merge_runs(folders, out, overwrite=overwrite)
    for k, origin in enumerate(origins):
        print(f"pixelcnn: factor {k} from {origin}", file=sys.stderr)
    print(out)
