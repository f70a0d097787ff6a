"""Pictures that people bring, and the pictures, charts and pages that we make for them."""

__all__ = [
    "Pictures",
    "box_mask",
    "find_pictures",
    "read_mask",
    "save_picture",
    "sheet",
    "to_picture",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.pictures.inputs import Pictures, find_pictures
    from pixelcnn.pictures.masks import box_mask, read_mask
    from pixelcnn.pictures.sheets import save_picture, sheet, to_picture

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "inputs": ["Pictures", "find_pictures"],
        "masks": ["box_mask", "read_mask"],
        "sheets": ["save_picture", "sheet", "to_picture"],
    },
)
