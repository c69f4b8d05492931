"""A roofline: an operator takes as long as its arithmetic or its memory traffic, whichever is longer.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore
architectures". It owns the prediction from a profile's data sheet alone. What share of the peaks kernels
reach on a device is not known until it is measured there, so the interval is wide and says `uncalibrated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgewright_profiles.errors import ProfileError
from edgewright_profiles.profile import Accelerator, HardwareProfile, Precision

Kind = Literal["conv", "depthwise_conv", "matmul", "elementwise"]

ACHIEVED: dict[Kind, float] = {"conv": 0.4, "matmul": 0.3, "depthwise_conv": 0.1, "elementwise": 1.0}
"""Share of the arithmetic peak that kernels reach; 1 where an operator has no multiply-accumulates.

Published: XNNPACK's README of February 2020 gives MobileNet v1 in float32, with four threads on a Raspberry Pi 4
at 1.5 GHz and a 32-bit system, as 75 ms: a third of that profile's peak, which is an estimate itself. These shares
predict 65 ms there.
Assumed: the split between kinds (a depthwise convolution uses each loaded value a few times only, so it reaches
much less than a dense one), and that the shares hold for every core and precision. On an x86 host with VNNI, INT8
came out about 2 times as fast as float32 where the peaks say 4, so for INT8 the middle estimate is likelier too
short than too long.
"""
ACHIEVED_BANDWIDTH = 0.6
"""Share of the peak memory bandwidth that a process reaches. An assumption."""
OVERHEAD_S = 2e-6
"""Seconds to dispatch one operator. An assumption."""
SPREAD = 3.0
"""The high estimate over the middle one. An assumption: room for the INT8 shortfall above, a clock held down by
heat, and other work on the device."""


@dataclass(frozen=True)
class OperatorWork:
    """What one operator does; bytes are in the precision that is predicted for."""

    name: str
    kind: Kind
    macs: int
    """Multiply-accumulates."""
    weight_bytes: int
    activation_bytes: int
    """Bytes read and written, weights aside."""


@dataclass(frozen=True)
class PredictedLatency:
    """A predicted time for one inference, in seconds."""

    seconds: float
    low_seconds: float
    """The roofline itself: full clock, full peaks, no overhead. All bytes count as traffic to main memory, so a
    memory-bound model that stays in the caches can beat it."""
    high_seconds: float
    memory_bound_share: float
    """Share of `seconds` spent in operators that wait for memory, 0 to 1."""
    how: Literal["predicted"] = "predicted"
    method: str = "roofline, uncalibrated"

    def __str__(self) -> str:
        low, middle, high = map(_milliseconds, (self.low_seconds, self.seconds, self.high_seconds))
        return f"predicted {middle} ms ({low}–{high} ms, uncalibrated roofline)"


def predict_latency(
    profile: HardwareProfile,
    work: Sequence[OperatorWork],
    precision: Precision,
    threads: int | None = None,
    accelerator: Accelerator | None = None,
) -> PredictedLatency:
    """Predict one inference on the `threads` fastest cores; None takes those of the preferred runtime.

    With an `accelerator` it computes there instead, at the peak that the profile gives it for the precision.
    Operators run one after another, and threads are taken to scale without loss. Raises `ProfileError` for fewer
    threads than one, and for an accelerator whose peak is not known.
    """
    if threads is None:
        threads = profile.runtimes[0].threads
    if threads < 1:
        raise ProfileError(f"{threads} threads run nothing", remedy="give at least 1")
    peak = (
        profile.peak_macs_per_s(precision, threads)
        if accelerator is None
        else accelerator.peak_macs_per_s(precision)
    )
    if peak is None:
        assert accelerator is not None
        raise ProfileError(f"{profile.name}: the {precision} peak of {accelerator.name} is not known")
    bandwidth = profile.memory.bandwidth_bytes_per_s
    low = middle = memory_bound = 0.0
    for operator in work:
        arithmetic = operator.macs / peak
        traffic = (operator.weight_bytes + operator.activation_bytes) / bandwidth
        low += max(arithmetic, traffic)
        achieved_arithmetic = arithmetic / ACHIEVED[operator.kind]
        achieved_traffic = traffic / ACHIEVED_BANDWIDTH
        middle += max(achieved_arithmetic, achieved_traffic) + OVERHEAD_S
        memory_bound += achieved_traffic if achieved_traffic > achieved_arithmetic else 0.0
    share = memory_bound / middle if middle else 0.0
    return PredictedLatency(middle, low, middle * SPREAD, share)


def _milliseconds(seconds: float) -> str:
    milliseconds = seconds * 1e3
    return f"{milliseconds:#.2g}" if milliseconds < 9.95 else f"{milliseconds:.0f}"
