"""Images from anywhere, as integer tensors of one size."""

__all__ = [
    "Images",
    "NothingHeldOutError",
    "StreamedImages",
    "UnfetchedError",
    "changed_since",
    "load_images",
    "load_unseen",
    "stream_images",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.data.fingerprints import changed_since
    from pixelcnn.data.images import Images, load_images, load_unseen
    from pixelcnn.data.sources import NothingHeldOutError, UnfetchedError
    from pixelcnn.data.streams import StreamedImages, stream_images

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "fingerprints": ["changed_since"],
        "images": ["Images", "load_images", "load_unseen"],
        "sources": ["NothingHeldOutError", "UnfetchedError"],
        "streams": ["StreamedImages", "stream_images"],
    },
)
