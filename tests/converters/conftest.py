"""Puts this folder on the path, so that `toy_models:FUNCTION` is found as a user's own module would be."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.append(str(Path(__file__).parent))


@pytest.fixture(autouse=True)
def _same_numbers_for_every_test() -> None:
    """Whatever was run before: random weights are drawn anew from the start."""
    import onnx_graphs

    onnx_graphs.RNG = np.random.default_rng(7)
