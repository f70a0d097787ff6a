"""Tasks for a trained model: score images, and draw results for many pictures."""

__all__ = [
    "Evaluation",
    "check_out",
    "codec_bits_per_dim",
    "draw_alternatives",
    "evaluate",
    "is_file_name",
    "plan_results",
    "score_pictures",
    "surprisal",
    "write_picture",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.tasks.batches import draw_alternatives, score_pictures
    from pixelcnn.tasks.lossless import codec_bits_per_dim
    from pixelcnn.tasks.results import check_out, is_file_name, plan_results, write_picture
    from pixelcnn.tasks.scoring import Evaluation, evaluate, surprisal

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "batches": ["draw_alternatives", "score_pictures"],
        "lossless": ["codec_bits_per_dim"],
        "results": ["check_out", "is_file_name", "plan_results", "write_picture"],
        "scoring": ["Evaluation", "evaluate", "surprisal"],
    },
)
