"""Weights for `pixelcnn`, for non-commercial research only: `pixelcnn.load(name)` finds the folders in here.

A package of weights fits the `pixelcnn` of its own version.
"""

__all__ = ["__version__"]

__version__ = "0.1.0"
