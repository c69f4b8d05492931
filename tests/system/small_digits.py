"""Digits that train in seconds: 14×14, in 0–1, as float32 [n, 1, 14, 14] with int64 labels, shuffled."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright_demo.models import load_digits

Array = NDArray[Any]


def small_digits() -> tuple[Array, Array]:
    """1,800 images and their labels."""
    digits = load_digits()
    x = digits.train_x[:1800].reshape(-1, 1, 14, 2, 14, 2).mean(axis=(3, 5))
    return x.astype(np.float32), digits.train_y[:1800]
