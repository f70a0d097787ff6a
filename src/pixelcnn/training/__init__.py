"""Training, one factor at a time, in a single loop."""

__all__ = [
    "RUN",
    "AnotherRunError",
    "InterruptedTraining",
    "Run",
    "Training",
    "check_model_folder",
    "data_of",
    "merge_runs",
    "train",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.training.interrupt import InterruptedTraining
    from pixelcnn.training.loop import train
    from pixelcnn.training.merging import check_model_folder, merge_runs
    from pixelcnn.training.options import Run, Training
    from pixelcnn.training.runs import data_of
    from pixelcnn.training.same import RUN, AnotherRunError

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "interrupt": ["InterruptedTraining"],
        "loop": ["train"],
        "merging": ["check_model_folder", "merge_runs"],
        "options": ["Run", "Training"],
        "runs": ["data_of"],
        "same": ["RUN", "AnotherRunError"],
    },
)
