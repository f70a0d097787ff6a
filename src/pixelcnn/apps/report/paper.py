"""The figures of the papers."""

__all__ = ["PUBLISHED", "PUBLISHED_COLOURS", "PUBLISHED_PARTS", "PUBLISHED_RESOLUTIONS"]


# Bits per dimension of CIFAR-10 test images, and whether they are an upper bound; as recalled where marked.
PUBLISHED = [
    ("Deep Diffusion (as recalled)", 5.40, True),
    ("NICE", 4.48, False),
    ("DRAW (as recalled)", 4.13, True),
    ("Deep GMMs (as recalled)", 4.00, False),
    ("Conv DRAW", 3.58, True),
    ("Real NVP", 3.49, False),
    ("Pyramid PixelCNN, the paper (as recalled)", 3.32, True),
    ("MatNet + AR", 3.24, True),
    ("PixelCNN", 3.14, False),
    ("VAE with IAF", 3.11, True),
    ("Gated PixelCNN", 3.03, False),
    ("PixelRNN", 3.00, False),
    ("Grayscale PixelCNN, the paper", 2.98, True),
    ("DenseNet VLAE", 2.95, True),
    ("PixelCNN++", 2.92, False),
]
PUBLISHED_RESOLUTIONS = {8: 4.58, 16: 4.30, 32: 3.33, 64: 2.61, 128: 1.52}
PUBLISHED_PARTS = {"train": "0.442", "test": "0.459"}
PUBLISHED_COLOURS = "2.52"
