"""Training, one factor at a time, in a single loop."""

__all__ = [
    "RUN",
    "Run",
    "Training",
    "data_of",
    "train",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.training.loop import train
    from pixelcnn.training.options import Run, Training
    from pixelcnn.training.runs import RUN, data_of

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "loop": ["train"],
        "options": ["Run", "Training"],
        "runs": ["RUN", "data_of"],
    },
)
