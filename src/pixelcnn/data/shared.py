"""Images that several processes share: all of them have to see the same ones."""

__all__ = ["check_same_images"]

from pixelcnn.common.processes import gather, is_main, together
from pixelcnn.data.images import Images
from pixelcnn.data.streams import StreamedImages

MOST_NAMED = 3


def check_same_images(images: Images | StreamedImages) -> None:
    """Raise a ValueError on all processes if they do not see the same images; it names those that differ.

    Example:
        >>> import pixelcnn
        >>> from pixelcnn.data.shared import check_same_images
        >>> check_same_images(pixelcnn.load_images("photos", "test", size=8))
    """
    first, *others = gather(images.fingerprint)
    differing = {rank: each for rank, each in enumerate(others, 1) if each != first}
    with together():
        if differing and is_main():
            named = [f"rank {rank} has {_described(each)}" for rank, each in list(differing.items())[:MOST_NAMED]]
            if len(differing) > MOST_NAMED:
                named.append(f"and {len(differing) - MOST_NAMED} more differ")
            raise ValueError(
                f"the processes see different data: {', '.join(named)}, rank 0 has {_described(first)}; "
                "give all of them the same images"
            )


def _described(fingerprint: dict) -> str:
    counted = " ".join(f"{fingerprint[what]} {what}" for what in ("images", "shards") if what in fingerprint)
    return f"{counted} (blake2b {fingerprint['blake2b'][:8]})"
