"""A job from start to end: checks, units, an engine, and the manifest."""

__all__ = ["run"]

from collections.abc import Sequence
from fractions import Fraction
from pathlib import Path
from typing import Any

from pixelcnn.common.progress import progress_bar
from pixelcnn.data.given import PICTURE_LEVELS
from pixelcnn.models.exact import model_hash
from pixelcnn.models.image_model import ImageModel
from pixelcnn.models.load import load
from pixelcnn.tasks.cluster.engines import Engine, run_units
from pixelcnn.tasks.cluster.output import Output
from pixelcnn.tasks.cluster.units import Span, cut
from pixelcnn.tasks.cluster.verbs import Verb
from pixelcnn.tasks.cluster.work import Job, Report, versions


def run(
    verb: Verb, model: str | Path | ImageModel, spans: Sequence[Span], out: Path, engine: Engine, notes: Sequence[str]
) -> dict[str, Any]:
    """Ask a question about all pictures, write the results to a folder, and return the manifest."""
    rows = engine.rows or -(-verb.rows // verb.together) * verb.together
    if rows % verb.together:
        raise ValueError(f"rows={rows}: use a multiple of {verb.together}, the pictures that are taken together")
    loaded = model if isinstance(model, ImageModel) else load(model)
    if loaded.levels != PICTURE_LEVELS:
        raise ValueError(f"a model with levels={loaded.levels}: pictures have {PICTURE_LEVELS}; use another model")
    verb.start(loaded)  # it raises an error here that every worker would raise
    units = list(cut(spans, rows))
    if not units:
        raise ValueError("the tables hold no pictures: name other files")
    output, folder = Output(out), Path(out).absolute()
    output.check(overwrite=engine.overwrite)
    reports: dict[int, Report] = {}
    with progress_bar(visible=engine.progress, fields="{task.fields[note]}") as bar:
        task, failed = bar.add_task(type(verb).__name__.lower(), total=sum(map(len, units)), note=""), 0
        for report in run_units(engine, Job(verb, loaded, folder, engine.device), units, output.begin):
            reports[report["part"]] = report
            failed += len(report["failed"])
            bar.update(task, advance=report["file"]["rows"], note=f"{failed} left out" if failed else "")
    manifest = _manifest(verb, loaded, [reports[unit.part] for unit in units], rows, notes)
    output.finish(manifest)
    return manifest


def _manifest(
    verb: Verb, model: ImageModel, reports: Sequence[Report], rows: int, notes: Sequence[str]
) -> dict[str, Any]:
    failed = [each for report in reports for each in report["failed"]]
    number = sum(report["file"]["rows"] for report in reports)
    if len(failed) == number:
        raise ValueError(f"none of {number} pictures can be used, the first because {failed[0]['error']}: name others")
    return {
        "verb": type(verb).__name__.lower(),
        "options": {**verb.describe(), "consistent": model.consistent},
        "model": model_hash(model).hex(),
        "versions": versions(),
        "pictures": number,
        "failed": failed,
        "notes": [*notes],
        "totals": _totals(verb, reports),
        "rows": rows,
        "files": [report["file"] for report in reports],
    }


def _totals(verb: Verb, reports: Sequence[Report]) -> dict[str, Any]:
    """Add up exact sums, whose total does not depend on how the pictures were divided."""
    totals: dict[str, Any] = {}
    for column in verb.sums:
        found = [report["sums"][column] for report in reports if report["sums"][column]]
        sums = [sum(map(Fraction, each), Fraction()) for each in zip(*found, strict=True)]
        plain = [float(each) if column.startswith("bits") else int(each) for each in sums]
        totals[column] = plain if column.endswith("_of_views") else plain[0]
    if "bits" in totals:
        totals["bits_per_dim"] = totals["bits"] / totals["dimensions"]
    return totals
