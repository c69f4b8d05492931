"""`DriftTest`: the settings of the sequential test of drift; what its false-alarm rate means and why it holds.

For each block of a device (a sketch; five minutes) and each block before it at which its data may have changed,
there is a likelihood ratio: of the data since then under a mixture of new distributions, over the same data
under the distribution of all data before. A ratio that began at block j is a martingale with mean 1 while
nothing changes, and so their sum over j, less the number of blocks, is one with mean 0. The first time T at
which the sum reaches A has thus a mean of at least A blocks, however often one looks (Shiryaev–Roberts: Pollak
1985, "Optimal Detection of a Change in Distribution"; as e-detectors: Shin, Ramdas and Rinaldo 2023,
"E-detectors: a nonparametric framework for sequential change detection"). After an alarm the test starts anew,
so that the long-run rate is at most one in A blocks. Streams (classes, confidence, inputs) reach A over their
weight each, and as the weights add up to 1, so do their rates, whatever depends on what. Starts that are not
followed any more only make the sum smaller.

What that rests on: the data before a change is the reference, finite and never known exactly, which is why the
denominator is the predictive distribution given all of it (Pólya's urn with Jeffreys' prior; a Gaussian of
unknown mean). The martingale is exact for samples that are independent and a mix that was drawn from the prior,
and the bound holds on average over such mixes; for single mixes, skewed ones among them, it is simulated
(`benchmarks.fleet.drift`). Frames of a camera are not independent: counts are divided by an over-dispersion that
is estimated from differences between successive blocks (a design effect), for which the bound is no theorem any
more, and simulated as well. It holds for correlations that are short beside a block. A mix that follows the hour
of the day does change: `history.follow` looks at such devices by whole days.
"""

from __future__ import annotations

import math
from typing import Literal

from pydantic import BaseModel, Field, model_validator

from edgewright.contract import CONTRACT

BLOCKS_PER_YEAR = 365 * 24 * 12
"""Sketches of five minutes, 105,120; a device that sends fewer is looked at less often, and has fewer false
alarms."""
StreamName = Literal["classes", "confidence", "inputs"]
WEIGHTS: dict[StreamName, float] = {"classes": 0.6, "confidence": 0.2, "inputs": 0.2}


class DriftTest(BaseModel):
    """When a device's data has changed."""

    model_config = CONTRACT
    device_years: float = Field(
        default=1.0, gt=0, description="mean time between false alarms of one device, at least"
    )
    shift: float = Field(
        default=0.1,
        gt=0,
        lt=0.5,
        description="share of the answers that lies elsewhere (total variation) to which the test is tuned; it "
        "finds others later than one tuned to them would",
    )
    input_shift: float = Field(
        default=0.25, gt=0, description="the same of an input's mean, in standard deviations over samples"
    )
    weights: dict[StreamName, float] = Field(
        default=WEIGHTS,
        description="of the false alarms, how many each stream may raise; a stream that is not named raises none",
    )
    least_psi: float = Field(
        default=0.02,
        ge=0,
        description="least population stability index, less what chance gives, that is called drift. 0.02 is a "
        "shift of 7 % or less of the answers; what is smaller may be certain and is still not worth a training",
    )
    settle_blocks: int = Field(
        default=12, ge=3, description="blocks that make a reference before a change is looked for: an hour"
    )

    @model_validator(mode="after")
    def _weights_are_shares(self) -> DriftTest:
        if not self.weights or min(self.weights.values()) <= 0 or sum(self.weights.values()) > 1 + 1e-9:
            raise ValueError("weights: each above 0, and together at most 1")
        return self

    def threshold(self, stream: StreamName) -> float:
        """The log of the sum of likelihood ratios at which a stream has changed."""
        return math.log(self.device_years * BLOCKS_PER_YEAR / self.weights[stream])
