"""Score, compress, enlarge, colorize, or draw very many pictures: `pixelcnn.cluster`.

Pictures are read from files, folders, and parquet tables, and results are written to parquet files of a fixed number of
rows, with a manifest that has the counts, the sums, and the pictures that could not be used. The work is done by this
process, or by Ray Data on as many machines as there are, with the same bytes in the results.

Example:
    >>> import json, pixelcnn
    >>> from pathlib import Path
    >>> from PIL import Image
    >>> Path("pictures").mkdir()
    >>> for name, color in (("a", "teal"), ("b", "olive")):
    ...     Image.new("RGB", (8, 8), color).save(f"pictures/{name}.png")
    >>> Path("pictures/c.png").write_bytes(b"no picture") and None
    >>> manifest = pixelcnn.cluster.score("pictures", "photos-pyramid", "scores")
    >>> manifest["pictures"], [each["name"] for each in manifest["failed"]]
    (3, ['c.png'])
    >>> manifest["totals"]["bits_per_dim"] < 8
    True
    >>> sorted(file.name for file in Path("scores").iterdir())
    ['_manifest.json', 'part-000000.parquet']
"""

__all__ = ["Drawing", "Engine", "colorize", "compress", "sample", "score", "upscale"]

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from pixelcnn.common.checks import check_whole
from pixelcnn.models.image_model import ImageModel
from pixelcnn.tasks.cluster.drawing import Colorize, Drawing, Sample, Upscale
from pixelcnn.tasks.cluster.engines import Engine
from pixelcnn.tasks.cluster.running import run
from pixelcnn.tasks.cluster.units import Span, find_spans
from pixelcnn.tasks.cluster.verbs import Compress, Score

Paths = str | Path | Sequence[str | Path]
"""Picture files, parquet files, folders of these, or patterns; one or several."""
Model = str | Path | ImageModel
"""A model, or what `pixelcnn.load` takes."""


def score(pictures: Paths, model: Model, out: str | Path, engine: Engine | None = None) -> dict[str, Any]:
    """Score each picture in bits, as `pixelcnn score` does; the rows have the bits of each view too.

    Args:
        pictures: picture files, parquet files with a column of images, folders of these, or patterns; one or several.
        model: a model, or what `pixelcnn.load` takes. It travels to the workers.
        out: a folder for the results, which all machines share.
        engine: how the work is done; None for this process alone.

    Returns:
        The manifest. Its totals have `bits`, `bits_of_views`, `dimensions` and `bits_per_dim` of all pictures.

    Raises:
        ValueError: if there is nothing to read, none of it can be used, `out` exists, a worker has other versions of
            what the results depend on, or no cluster answers.
        OSError: if `out` cannot be written to.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> Image.new("RGB", (8, 8), "teal").save("a.png")
        >>> pixelcnn.cluster.score("a.png", "photos-pyramid", "one")["totals"]["dimensions"]
        192
    """
    found = find_spans(pictures, Path(out))
    return run(Score(), model, found.spans, Path(out), engine or Engine(), found.notes)


def compress(
    pictures: Paths,
    model: Model,
    out: str | Path,
    engine: Engine | None = None,
    *,
    label: int | None = None,
    name: str = "",
) -> dict[str, Any]:
    """Compress each picture without loss: the column `content` has what `pixelcnn compress` writes to a `.pxc` file.

    Args:
        pictures, model, out, engine: as for `score`.
        label: the class of all pictures, for a model with classes.
        name: of the model, a hint in the files.

    Returns:
        The manifest. Its totals have `bytes` and `bytes_before`. Errors are those of `score`.

    Example:
        >>> import pixelcnn, pyarrow.parquet
        >>> from PIL import Image
        >>> Image.new("RGB", (8, 8), "teal").save("b.png")
        >>> _ = pixelcnn.cluster.compress("b.png", "photos-pyramid", "compressed")
        >>> (row,) = pyarrow.parquet.read_table("compressed").to_pylist()
        >>> pixelcnn.decompress(row["content"]).getpixel((0, 0))
        (0, 128, 128)
    """
    found = find_spans(pictures, Path(out))
    return run(Compress(name, label), model, found.spans, Path(out), engine or Engine(), found.notes)


def upscale(
    pictures: Paths,
    model: Model,
    out: str | Path,
    factor: int = 2,
    drawing: Drawing | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Enlarge each picture, as `pixelcnn.upscale` does; the column `image` has the results as PNG.

    The folder of results can be read as pictures again, by this package and by `datasets`.

    Args:
        pictures, model, out, engine: as for `score`.
        factor: how many times larger.
        drawing: how to draw.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> Image.new("RGB", (4, 4), "teal").save("small.png")
        >>> _ = pixelcnn.cluster.upscale("small.png", "photos-pyramid", "large")
        >>> pixelcnn.load_images("large", "all").size
        (8, 8)
    """
    found = find_spans(pictures, Path(out))
    return run(Upscale(drawing or Drawing(), factor), model, found.spans, Path(out), engine or Engine(), found.notes)


def colorize(
    pictures: Paths, model: Model, out: str | Path, drawing: Drawing | None = None, engine: Engine | None = None
) -> dict[str, Any]:
    """Draw colors for each picture, as `pixelcnn.colorize` does; arguments and results are those of `upscale`.

    Example:
        >>> import pixelcnn
        >>> from PIL import Image
        >>> Image.new("L", (4, 4), 100).save("gray.png")
        >>> model = pixelcnn.GrayscalePixelCNN(filters=8, blocks=1, embedding_blocks=1).eval()
        >>> pixelcnn.cluster.colorize("gray.png", model, "colored")["pictures"]
        1
    """
    found = find_spans(pictures, Path(out))
    return run(Colorize(drawing or Drawing()), model, found.spans, Path(out), engine or Engine(), found.notes)


def sample(
    model: Model,
    out: str | Path,
    n: int,
    size: int | tuple[int, int] | None = None,
    drawing: Drawing | None = None,
    engine: Engine | None = None,
) -> dict[str, Any]:
    """Draw n images from a model, image i with the seed `drawing.seed + i`; results are those of `upscale`.

    Args:
        model, out, engine: as for `score`.
        n: number of images.
        size: side of square images, or (H, W); None for the size of the training images, or 32 if that is unknown.
        drawing: how to draw.

    Example:
        >>> import pixelcnn
        >>> pixelcnn.cluster.sample("photos-pyramid", "drawn", n=3, size=8)["pictures"]
        3
    """
    check_whole(n=n)
    drawing = drawing or Drawing()
    spans = [Span("", "", drawing.seed, drawing.seed + n)]
    return run(Sample(drawing, size), model, spans, Path(out), engine or Engine(), [])
