"""How a photo becomes a model's input, the same for the converter that calibrates and the device that runs."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ImagePreprocessing
from edgewright.durable_file import storage_error
from edgewright.errors import DataError, RuntimeUnavailableError

IMAGE_SUFFIXES = frozenset({".bmp", ".jpeg", ".jpg", ".png", ".webp"})


def preprocess(
    picture: Path | bytes | NDArray[np.uint8], how: ImagePreprocessing, *, max_pixels: int | None = None
) -> NDArray[Any]:
    """Take an image as RGB, resize it (bilinear), normalise it: float32, channels first, no batch axis.

    It is a file, a file's content, or pixels as height × width × RGB. `max_pixels` refuses a larger file before
    it is unpacked. Raises `DataError` for what is not an image, `RuntimeUnavailableError` without Pillow.
    """
    try:
        from PIL import Image
    except ImportError:
        raise RuntimeUnavailableError(
            "images need Pillow, which is not installed", remedy="pip install 'edgewright[agent-images]'"
        ) from None

    where = str(picture) if isinstance(picture, Path) else ""
    try:
        if isinstance(picture, np.ndarray):
            opened = Image.fromarray(picture)
        else:
            opened = Image.open(io.BytesIO(picture) if isinstance(picture, bytes) else picture)
        with opened as image:
            if max_pixels is not None and image.width * image.height > max_pixels:
                size = f"{image.width} × {image.height}"
                raise DataError(f"has {size} pixels, more than the {max_pixels} that are taken", where=where)
            resized = image.convert("RGB").resize((how.width, how.height), Image.Resampling.BILINEAR)
    except DataError:
        raise
    except PermissionError as error:
        raise storage_error(error, Path(where)) from None
    except Exception:  # noqa: BLE001 - decoders raise whatever they stumble over: struct.error, SyntaxError …
        remedy = "take it out, or save it again as a PNG or JPEG"
        raise DataError("is not an image that can be read", where=where, remedy=remedy) from None
    pixels = np.asarray(resized, dtype=np.float32)
    with np.errstate(over="ignore"):  # an infinity is found where the numbers are checked
        normalised = (pixels - np.array(how.mean, np.float32)) / np.array(how.std, np.float32)
    return np.ascontiguousarray(normalised.transpose(2, 0, 1))
