"""Fashion-MNIST as Debian's `dataset-fashion-mnist` installs it (Expat licence), split for training and judging.

The test images judge and nothing else: training stops by a validation split of the training images, and
calibration images are of the training images too.
"""

from __future__ import annotations

import gzip
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import DataError

Array = NDArray[Any]
FOLDER = Path("/usr/share/datasets/fashion-mnist")
VALIDATION_IMAGES = 5000


@dataclass(frozen=True)
class LabelledImages:
    """float32 [n, 1, 28, 28] in 0–1 with int64 labels."""

    x: Array
    y: Array


@dataclass(frozen=True)
class FashionMnist:
    train: LabelledImages
    validation: LabelledImages
    test: LabelledImages


def load_fashion_mnist() -> FashionMnist:
    """All 70,000 images. Raises `DataError` where they are not installed."""
    x, y = _read("train")
    order = np.random.default_rng(0).permutation(len(x))
    held, kept = order[:VALIDATION_IMAGES], order[VALIDATION_IMAGES:]
    return FashionMnist(
        LabelledImages(x[kept], y[kept]), LabelledImages(x[held], y[held]), LabelledImages(*_read("t10k"))
    )


def _read(split: str) -> tuple[Array, Array]:
    # An IDX file: a header of 16 bytes before images, 8 before labels, then unsigned bytes.
    images = _bytes(FOLDER / f"{split}-images-idx3-ubyte.gz")[16:].reshape(-1, 1, 28, 28)
    labels = _bytes(FOLDER / f"{split}-labels-idx1-ubyte.gz")[8:]
    return images.astype(np.float32) / np.float32(255), labels.astype(np.int64)


def _bytes(path: Path) -> Array:
    try:
        with gzip.open(path) as file:
            return np.frombuffer(file.read(), np.uint8)
    except FileNotFoundError:
        raise DataError(
            "Fashion-MNIST is not installed",
            where=str(path),
            remedy="apt-get install dataset-fashion-mnist",
        ) from None
