"""Published results, which reports compare with."""

__all__ = ["PUBLISHED", "PUBLISHED_COLORS", "PUBLISHED_PARTS", "PUBLISHED_RESOLUTIONS", "UNCONFIRMED"]

UNCONFIRMED = """Published figures marked * are from memory and were not checked against the paper; the others are
confirmed by a second source."""
# Bits per dimension of CIFAR-10 test images, and whether they are an upper bound.
PUBLISHED = [
    ("Deep Diffusion *", 5.40, True),
    ("NICE", 4.48, False),
    ("DRAW *", 4.13, True),
    ("Deep GMMs *", 4.00, False),
    ("Conv DRAW", 3.58, True),
    ("Real NVP", 3.49, False),
    ("Pyramid PixelCNN, the paper *", 3.32, True),
    ("MatNet + AR", 3.24, True),
    ("PixelCNN", 3.14, False),
    ("VAE with IAF", 3.11, True),
    ("Gated PixelCNN", 3.03, False),
    ("PixelRNN", 3.00, False),
    ("Grayscale PixelCNN, the paper", 2.98, True),
    ("DenseNet VLAE", 2.95, True),
    ("PixelCNN++", 2.92, False),
]
# Of CelebA test images and of CIFAR-10 (train and test), all unconfirmed.
PUBLISHED_RESOLUTIONS = {8: 4.58, 16: 4.30, 32: 3.33, 64: 2.61, 128: 1.52}
PUBLISHED_PARTS = {"train": "0.442", "test": "0.459"}
PUBLISHED_COLORS = "2.52"
