"""`Prediction`: what a device says about one input, for whoever listens to its topic or reads its file."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timezone
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import BaseModel, Field

from edgewright.artifact.manifest import ArtifactManifest, Name
from edgewright.contract import CONTRACT

MAX_VALUES = 1000
"""Of the outputs of a model that is no classifier: a prediction is a message, not a transport of tensors."""
LATEST_S = 253_402_300_799.0
"""The end of the year 9999, which `datetime` goes to; a file may claim a later time."""


class Prediction(BaseModel):
    """The answer of one model version to one input."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    device: Name
    model: Name
    version: Name
    captured: datetime = Field(description="when the input was captured, by the device's clock")
    top: int | None = Field(default=None, ge=0, description="the class with the greatest score")
    label: str | None = Field(default=None, description="its name, where the manifest has names")
    confidence: float | None = Field(default=None, ge=0, le=1, description="its probability by the model")
    values: dict[str, tuple[float | None, ...]] | None = Field(
        default=None,
        description="real outputs, flat, of a model that is no classifier, unless they are more than 1000; "
        "null is a value that is not finite",
    )


def predict(
    device: str, manifest: ArtifactManifest, outputs: Mapping[str, NDArray[Any]], captured_s: float
) -> Prediction:
    """The prediction in a model's real outputs; `captured_s` is in seconds since 1970."""
    about: dict[str, Any] = {
        "device": device,
        "model": manifest.name,
        "version": manifest.version,
        "captured": datetime.fromtimestamp(min(max(captured_s, 0.0), LATEST_S), timezone.utc),
    }
    scores = outputs.get(manifest.postprocessing.output) if manifest.postprocessing else None
    if scores is not None and scores.ndim and scores.size:
        top, confidence = top_class(scores.reshape(-1, scores.shape[-1])[0])
        labels = manifest.labels or ()
        about |= {"top": top, "confidence": confidence, "label": labels[top] if top < len(labels) else None}
    elif sum(output.size for output in outputs.values()) <= MAX_VALUES:
        about["values"] = {name: _finite(output) for name, output in outputs.items()}
    return Prediction(**about)


def top_class(scores: NDArray[Any]) -> tuple[int, float]:
    """The greatest score's class and its probability."""
    shares = probabilities(scores)
    top = int(shares.argmax())
    return top, min(float(shares[top]), 1.0)


def probabilities(scores: NDArray[Any]) -> NDArray[np.float64]:
    """A score a class as probabilities.

    Scores that are probabilities already (none negative, adding up to 1 within the rounding of 8 bits) are taken
    as they are; others are logits.
    """
    scores = np.nan_to_num(scores.astype(np.float64))
    if scores.min() >= 0.0 and abs(scores.sum() - 1.0) < 0.05:
        return scores
    # A difference beyond what a double holds is a probability of nought.
    with np.errstate(over="ignore", under="ignore"):
        shares = np.exp(scores - scores.max())
        probabilities: NDArray[np.float64] = shares / shares.sum()
        return probabilities


def _finite(output: NDArray[Any]) -> tuple[float | None, ...]:
    return tuple(value if np.isfinite(value) else None for value in map(float, output.ravel()))
