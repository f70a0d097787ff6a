"""Auxiliary variables: simpler views of an image, and the bounds that a view sets on the pixels of the image."""

__all__ = [
    "Auxiliary",
    "CellAuxiliary",
    "Chain",
    "Downsample",
    "QuantizedGrayscale",
    "check_auxiliary",
    "register_auxiliary",
]

from typing import TYPE_CHECKING

from pixelcnn.common.lazy import lazy_names

if TYPE_CHECKING:
    from pixelcnn.auxiliary.base import Auxiliary, register_auxiliary
    from pixelcnn.auxiliary.cells import CellAuxiliary
    from pixelcnn.auxiliary.chain import Chain
    from pixelcnn.auxiliary.check import check_auxiliary
    from pixelcnn.auxiliary.downsample import Downsample
    from pixelcnn.auxiliary.grayscale import QuantizedGrayscale

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "base": ["Auxiliary", "register_auxiliary"],
        "cells": ["CellAuxiliary"],
        "chain": ["Chain"],
        "check": ["check_auxiliary"],
        "downsample": ["Downsample"],
        "grayscale": ["QuantizedGrayscale"],
    },
)
