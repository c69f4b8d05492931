"""A roofline: an operator takes as long as its arithmetic or its memory traffic, whichever is longer.

Williams, Waterman and Patterson 2009, "Roofline: an insightful visual performance model for multicore
architectures". The bound at full peak is physical; how much of the peak kernels reach is not known for a
device until it is calibrated there, so the prediction comes with a wide interval and says `uncalibrated`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from edgewright_profiles.profile import HardwareProfile, Precision

Kind = Literal["conv", "depthwise_conv", "matmul", "elementwise"]

ACHIEVED: dict[Kind, float] = {"conv": 0.4, "matmul": 0.3, "depthwise_conv": 0.1, "elementwise": 1.0}
"""Share of the arithmetic peak that kernels reach. An assumption: single-thread XNNPACK and MLAS kernels are
commonly seen between a quarter and two thirds of peak in dense convolutions; depthwise ones have too little
reuse for it."""
ACHIEVED_BANDWIDTH = 0.6
"""Share of the peak memory bandwidth that one process reaches. An assumption; STREAM on small Arm boards is
commonly between a half and three quarters."""
OVERHEAD_S = 2e-6
"""Seconds to dispatch one operator. An assumption, of the order seen on x86 for both runtimes."""
SPREAD = 3.0
"""The high estimate over the middle one: what an uncalibrated roofline is commonly off by at worst."""


@dataclass(frozen=True)
class OperatorWork:
    """What one operator does; bytes are in the precision that is predicted for."""

    name: str
    kind: Kind
    macs: int
    weight_bytes: int
    activation_bytes: int


@dataclass(frozen=True)
class PredictedLatency:
    """A predicted time for one inference, seconds; `low_seconds` is the physical bound."""

    seconds: float
    low_seconds: float
    high_seconds: float
    memory_bound_share: float
    how: str = "predicted"
    method: str = "roofline, uncalibrated"

    def __str__(self) -> str:
        low, middle, high = (f"{s * 1e3:.3g}" for s in (self.low_seconds, self.seconds, self.high_seconds))
        return f"predicted {middle} ms ({low}–{high} ms, uncalibrated roofline)"


def predict_latency(
    profile: HardwareProfile, work: Sequence[OperatorWork], precision: Precision, threads: int = 1
) -> PredictedLatency:
    """Predict one inference on the `threads` fastest cores of a profile."""
    peak = profile.peak_macs_per_s(precision, threads)
    bandwidth = profile.memory.bandwidth_bytes_per_s
    low = middle = memory_bound = 0.0
    for operator in work:
        traffic = (operator.weight_bytes + operator.activation_bytes) / bandwidth
        low += max(operator.macs / peak, traffic)
        arithmetic = operator.macs / (peak * ACHIEVED[operator.kind])
        achieved_traffic = traffic / ACHIEVED_BANDWIDTH
        middle += max(arithmetic, achieved_traffic) + OVERHEAD_S
        memory_bound += achieved_traffic if achieved_traffic > arithmetic else 0.0
    share = memory_bound / middle if middle else 0.0
    return PredictedLatency(middle, low, middle * SPREAD, share)
