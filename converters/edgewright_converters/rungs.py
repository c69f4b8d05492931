"""The rungs of the ladder, from the cheapest to the dearest: what each does and costs, and who climbs it.

`ladder` climbs them; the command's `--explain` and the report list them.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

Effort = Literal["quick", "standard", "thorough"]
SECONDS: Mapping[Effort, float] = {"quick": 15.0, "standard": 60.0, "thorough": 900.0}
"""When a ladder starts no further rung; a rung that has begun is finished."""
TRAINING_SECONDS: Mapping[Effort, float] = {"quick": 60.0, "standard": 600.0, "thorough": 3600.0}
"""What fine-tuning may take beside them."""
CALIBRATION_SAMPLES: Mapping[Effort, int] = {"quick": 64, "standard": 256, "thorough": 2048}


@dataclass(frozen=True)
class Rung:
    """One step: its name, what it does in words, what it costs, and the least effort that climbs it."""

    name: str
    what: str
    cost: str
    effort: Effort
    costs_run_time: bool = False


MIN_MAX = Rung(
    "min-max", "per-channel weights, activations over their true minimum and maximum", "1 pass", "quick"
)
LAYERS = Rung(
    "layers alone",
    "where INT8 is slower than float: convolutions and matrix products in INT8, float between them",
    "1 trial",
    "quick",
)
RANGES = Rung(
    "ranges",
    "for each tensor the range (min-max, percentile, MSE, entropy) that leaves the least error",
    "1 pass",
    "quick",
)
EQUALISATION = Rung(
    "equalisation",
    "channels rescaled between layers so that each uses its whole range; high biases absorbed",
    "2 passes",
    "quick",
)
CORRECTION = Rung(
    "bias correction", "the mean and the slope that rounding gave each channel taken out", "1 sweep", "quick"
)
RECONSTRUCTION = Rung(
    "reconstruction",
    "weights fitted and rounded so that each layer gives float's outputs",
    "1 sweep and least squares",
    "standard",
)
ADAPTIVE = Rung(
    "adaptive rounding",
    "which way each weight of the blocks that hurt is rounded learnt with their activations on their grids",
    "1 sensitivity pass, some minutes of gradient descent",
    "thorough",
)
FINE_TUNING = Rung(
    "fine-tuning",
    "weights and ranges trained on --training-data with the rounding in place, the float model as teacher",
    "minutes of gradient descent, in time of its own",
    "quick",
)
MIXED = Rung(
    "mixed precision",
    # Not at 16 bits: no layer is faster so than in float, in either runtime (benchmarks/sixteen_bit.py).
    "the layers whose rounding damages the output most left in float (16-bit activations are slower in both "
    "runtimes; TensorRT takes float16), as few as meet the goal by their time",
    "1 sensitivity pass, some trials",
    "standard",
    costs_run_time=True,
)
RUNGS = (MIN_MAX, LAYERS, RANGES, EQUALISATION, CORRECTION, RECONSTRUCTION, ADAPTIVE, FINE_TUNING, MIXED)
EXPECTATION = Rung(
    "expected ranges", "per-channel weights, activations over what batch norm lets expect", "1 pass", "quick"
)
ANALYTIC = Rung(
    "analytic bias correction",
    "what rounding the weights adds to each channel's expected mean taken out",
    "no pass",
    "quick",
)
DATA_FREE = (EXPECTATION, ANALYTIC)
"""What is climbed in their place where there is no calibration data; each is kept."""
_EFFORTS: tuple[Effort, ...] = ("quick", "standard", "thorough")


def climbed(effort: Effort, *, training: bool = False) -> tuple[Rung, ...]:
    """The rungs that an effort may climb; fine-tuning only where there is `training` data."""
    rungs = (r for r in RUNGS if _EFFORTS.index(r.effort) <= _EFFORTS.index(effort))
    return tuple(r for r in rungs if training or r is not FINE_TUNING)
