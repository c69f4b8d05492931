"""How a photo becomes a model's input, the same for the converter that calibrates and the device that runs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ImagePreprocessing
from edgewright.errors import DataError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def preprocess(file: Path, how: ImagePreprocessing) -> NDArray[Any]:
    """Read an image as RGB, resize it (bilinear), normalise it: float32, channels first, no batch axis.

    Raises `DataError` for a file that is not an image.
    """
    from PIL import Image, UnidentifiedImageError

    try:
        with Image.open(file) as image:
            resized = image.convert("RGB").resize((how.width, how.height), Image.Resampling.BILINEAR)
    except (UnidentifiedImageError, OSError, ValueError):
        raise DataError("is not an image that can be read", where=str(file)) from None
    pixels = np.asarray(resized, dtype=np.float32)
    normalised = (pixels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
