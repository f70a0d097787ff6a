"""Tasks for a trained model: score images, draw results, and compress many pictures."""

__all__ = [
    "ARCHIVE",
    "COMPRESSED",
    "Evaluation",
    "archive_pictures",
    "check_inputs_stay",
    "check_out",
    "codec_bits_per_dim",
    "compress_pictures",
    "draw_alternatives",
    "evaluate",
    "is_file_name",
    "open_packed",
    "pixel_distribution",
    "plan_results",
    "read_originals",
    "restore_packed",
    "score_pictures",
    "surprisal",
    "write_picture",
    "write_result",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.tasks.batches import draw_alternatives, score_pictures
    from pixelcnn.tasks.inspecting import pixel_distribution
    from pixelcnn.tasks.lossless import codec_bits_per_dim
    from pixelcnn.tasks.packing import (
        ARCHIVE,
        COMPRESSED,
        archive_pictures,
        compress_pictures,
        open_packed,
        read_originals,
        restore_packed,
    )
    from pixelcnn.tasks.results import (
        check_inputs_stay,
        check_out,
        is_file_name,
        plan_results,
        write_picture,
        write_result,
    )
    from pixelcnn.tasks.scoring import Evaluation, evaluate, surprisal

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "batches": ["draw_alternatives", "score_pictures"],
        "inspecting": ["pixel_distribution"],
        "lossless": ["codec_bits_per_dim"],
        "packing": [
            "ARCHIVE",
            "COMPRESSED",
            "archive_pictures",
            "compress_pictures",
            "open_packed",
            "read_originals",
            "restore_packed",
        ],
        "results": ["check_inputs_stay", "check_out", "is_file_name", "plan_results", "write_picture", "write_result"],
        "scoring": ["Evaluation", "evaluate", "surprisal"],
    },
)
