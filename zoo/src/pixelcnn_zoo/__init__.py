"""Weights for `pixelcnn`, for non-commercial research only: `pixelcnn.load(name)` finds the folders in here.

The weights belong to the `pixelcnn` of the same version.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
