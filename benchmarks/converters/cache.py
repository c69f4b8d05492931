"""Where the benchmark keeps what it makes, outside the checkout: weights, data, environments, artifacts."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path


def cache_folder() -> Path:
    """`$XDG_CACHE_HOME/edgewright/benchmarks`, by default below `~/.cache`."""
    root = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(root) / "edgewright" / "benchmarks"


@dataclass(frozen=True)
class PreparedModel:
    """The files that every tool of one model starts from and is judged by.

    `calibration` and `evaluation` are `.npz` with `x` and, where the model has labels, `y`; `scores` are the
    float model's on the evaluation data. `quick` models are trained and judged on little, and kept apart.
    """

    name: str
    quick: bool

    @property
    def folder(self) -> Path:
        return cache_folder() / "models" / (f"{self.name}-quick" if self.quick else self.name)

    @property
    def weights(self) -> Path:
        return self.folder / "weights.pt"

    @property
    def onnx(self) -> Path:
        return self.folder / "float.onnx"

    @property
    def tflite(self) -> Path:
        return self.folder / "float.tflite"

    @property
    def calibration(self) -> Path:
        return self.folder / "calibration.npz"

    @property
    def evaluation(self) -> Path:
        return self.folder / "evaluation.npz"

    @property
    def scores(self) -> Path:
        return self.folder / "scores.npy"

    @property
    def artifacts(self) -> Path:
        return self.folder / "artifacts"
