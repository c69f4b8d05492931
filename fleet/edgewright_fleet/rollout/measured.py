"""`Measured`: what a device measured of one release, added up from its telemetry; and how two of them
compare."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, field
from typing import Annotated, ClassVar, Literal

from pydantic import BaseModel, ConfigDict, Field, TypeAdapter

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT
from edgewright.telemetry.reading import Reading
from edgewright.telemetry.sequences import Ranges, received
from edgewright.telemetry.sketch import DataSketch
from edgewright.telemetry.sketch import merged as merged_sketches
from edgewright_fleet.rollout.packed import PackedHistogram, packed

KEPT_BOOTS = 8
"""How many past boots of a device are told apart; a message is not late by more restarts than this."""

_EMPTY = PackedHistogram()

Metric = Literal["p50", "p99", "energy"]
Verdict = Literal["pass", "fail", "inconclusive"]
METRICS: tuple[Metric, ...] = ("p50", "p99", "energy")


@dataclass(frozen=True, slots=True)
class Measured:
    """What a device measured of one release; the histogram holds the inferences that succeeded, in seconds."""

    __pydantic_config__: ClassVar[ConfigDict] = CONTRACT
    latency: PackedHistogram = field(default_factory=lambda: _EMPTY)
    errors: Annotated[int, Field(ge=0)] = 0
    throttled: Annotated[
        int,
        Field(ge=0, description="inferences that succeeded while the device was throttled; not in `latency`"),
    ] = 0
    energy_j: Annotated[float, Field(description="measured, above idle, of `energy_inferences`")] = 0.0
    energy_inferences: Annotated[int, Field(ge=0)] = 0
    temperature_c: Annotated[float | None, Field(description="the hottest of its windows")] = None
    sketch: DataSketch | None = None
    seen: Annotated[
        tuple[tuple[str, Ranges], ...],
        Field(description="boots with the sequences of their windows in it; the last heard of is last"),
    ] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "latency", packed(self.latency))

    @property
    def inferences(self) -> int:
        return self.latency.count + self.throttled + self.errors

    def plus(self, window: Reading) -> Measured:
        """With one more window of the release; itself where that window is in it already."""
        had = next((ranges for boot, ranges in self.seen if boot == window.boot), ())
        has = received(had, window.sequence)
        if has is had:
            return self
        others = tuple(entry for entry in self.seen if entry[0] != window.boot)
        energy_j = window.energy_above_idle_j
        counted = 0 if energy_j is None else window.inferences
        return Measured(
            latency=self.latency.plus(window.latency),
            errors=self.errors + window.errors,
            throttled=self.throttled + window.throttled,
            energy_j=self.energy_j + (energy_j if energy_j is not None and counted else 0.0),
            energy_inferences=self.energy_inferences + counted,
            temperature_c=_hotter(self.temperature_c, window.temperature_c),
            sketch=_more(self.sketch, window.sketch),
            seen=(*others, (sys.intern(window.boot), has))[-KEPT_BOOTS:],
        )

    def figure(self, metric: Metric) -> float | None:
        """Seconds, or joules an inference; None where nothing was measured."""
        if metric == "energy":
            return self.energy_j / self.energy_inferences if self.energy_inferences else None
        quantile = 0.5 if metric == "p50" else 0.99
        return self.latency.quantile(quantile) if self.latency.count else None


SUMS: TypeAdapter[Measured | None] = TypeAdapter(Measured | None)
"""As a store keeps them."""


class Comparison(BaseModel):
    """A device on the new release against itself on the old, once, when it had measured enough; natural
    logarithms.

    Its control ran the old release over the same time, as did no other device's: each value is one
    independent observation of the tests over devices.
    """

    model_config = CONTRACT
    control: Name | None = Field(default=None, description="None: no device was left that could be one")
    own: dict[Metric, float] = Field(default_factory=dict, description="after over before")
    drift: dict[Metric, float] = Field(default_factory=dict, description="the same of the control, meanwhile")

    def effect(self, metric: Metric) -> float | None:
        """What the release did, the drift of the control taken off; None where it was not measured."""
        own = self.own.get(metric)
        return None if own is None else own - self.drift.get(metric, 0.0)


def compare(
    before: Measured, after: Measured, control: tuple[Name, Measured, Measured] | None = None
) -> Comparison:
    """One device's comparison; `control` is a name with what it measured before and since."""
    own = log_ratios(before, after)
    if control is None:
        return Comparison(own=own)
    name, then, since = control
    return Comparison(control=name, own=own, drift=log_ratios(then, since))


def log_ratios(before: Measured, after: Measured) -> dict[Metric, float]:
    """Of each metric that both measured, and that was more than nought before."""
    ratios: dict[Metric, float] = {}
    for metric in METRICS:
        old, new = before.figure(metric), after.figure(metric)
        if old is not None and new is not None and 0 < old < math.inf:
            ratio = min(max(new / old, 1e-9), 1e9)  # finite, so that it is a number in JSON
            ratios[metric] = math.log(ratio)
    return ratios


def _hotter(first: float | None, second: float | None) -> float | None:
    return second if first is None else first if second is None else max(first, second)


def _more(had: DataSketch | None, new: DataSketch | None) -> DataSketch | None:
    if had is None or new is None:
        return new or had
    try:
        return merged_sketches(had, new)
    except ValueError:
        return new  # of another shape: the device's software has changed
