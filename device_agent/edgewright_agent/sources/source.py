"""`Source` and `Sample`: what gives inputs to the inference loop, and one of them.

A source knows no model: what it gives is prepared for the one that serves when its turn comes.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

from numpy.typing import NDArray

from edgewright.errors import DataError
from edgewright.runtime.model import Model

RawInputs = dict[str, NDArray[Any]]


class SourceError(DataError):
    """A source gives nothing; no fault of the model's. The class is the kind of error that is reported."""


class SourceMissingError(SourceError):
    """A camera, broker, file or folder is not there."""


class SourceSilentError(SourceError):
    """A camera or topic is there and says nothing."""


class SampleError(SourceError):
    """One sample cannot be read."""


@dataclass(frozen=True)
class Sample:
    """One sample as it was captured."""

    captured_s: float
    """Seconds since 1970 by this device's clock."""
    prepare: Callable[[Model], RawInputs]
    """Its inputs for a model. Raises `SampleError` where it cannot be read, `DataError` where it does not fit."""
    ready: bool = False
    """Whether it was raw before: preparing it is no work that a duration would tell of."""


class Source(Protocol):
    """Samples, one after the other. One thread asks."""

    def next(self, timeout_s: float) -> Sample | None:
        """The next sample; None where there is none within the time. Raises the error family."""
        ...

    def close(self) -> None:
        """Let go of cameras and connections."""
        ...
