"""`QuantisedModel`: a quantised model in its target's format, before it is verified."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from edgewright.artifact.manifest import ModelFormat, Precision, TensorSpec

ActivationDtype = Literal["uint8", "int8"]


@dataclass(frozen=True)
class QuantisedModel:
    """A serialised model; `inputs` and `outputs` say how the file stores what callers pass and get."""

    format: ModelFormat
    precision: Precision
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]
