"""`Trial`: a candidate as the target's runtime executes it on a few calibration samples; `Goal`: when it is good.

Trials steer the ladder. What they measure is on calibration data and is never shown as the artifact's accuracy;
`verify` measures that on the evaluation data.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import DataKind, Difference, ModelFormat, Precision
from edgewright.latency_benchmark import interleaved_seconds
from edgewright_converters.calibration import Sample, SampleSet
from edgewright_converters.comparison import MAX_DB
from edgewright_converters.export import ExportedGraph
from edgewright_converters.held_out import MOST
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.statistics import proportion
from edgewright_converters.verify import Reference, compare, open_specs

Array = NDArray[Any]
LATENCY_SECONDS = 0.1

ENOUGH_DB = 30.0
"""Noise of a thousandth of the signal's power: nothing that takes minutes, or time on the device, is tried."""
AMPLE_DB = 40.0
"""Repairs that cost nothing to run go on until the noise is a tenth of that. The few samples of a trial do not
show what is left: of a vision transformer's 10,000 top classes 83 changed at 32.2 dB (none of the trial's 64), 57
at 33.3 dB, 41 at 33.7 dB and 35 at 34.0 dB; of a residual CNN's 86 at 34.2 dB and 38 at 38.9 dB, for three more
seconds of repairs."""
POOR_DB = 15.0
"""Noise of a thirtieth of the signal's power: INT8 that is worse is repaired at the cost of time, or given up."""
POOR_SHARE = 0.1
"""Of the top classes changed, at least; the same for a classifier without labels."""


@dataclass(frozen=True)
class Trial:
    """What one candidate came to on the calibration samples it was tried on."""

    format: ModelFormat
    precision: Precision
    sqnr_db: float
    """Of the worst output; the noise of several candidates is averaged."""
    changed: int | None
    """Samples whose top class is not that of float; None for a model that is no classifier."""
    samples: int
    model_bytes: int
    seconds: float
    """Median time of an inference on this host, one thread."""
    float_seconds: float
    """The same of the float model in the same runtime, measured in turn."""
    change: Difference | None = None
    """Of the accuracy, where the samples have labels; the better one of several, so that a miss is a clear one."""

    @property
    def changed_share(self) -> float | None:
        return None if self.changed is None else self.changed / self.samples

    @property
    def speedup(self) -> float:
        return self.float_seconds / self.seconds


@dataclass(frozen=True)
class Tryout:
    """Tries one candidate after another on the same samples, against float outputs that are computed once."""

    groups: tuple[tuple[Sample, ...], ...]
    """One for each part of the calibration samples that a decision is fitted without."""
    outputs: Mapping[int, Mapping[str, Array]]
    """Of the float model, by the identity of the sample's inputs."""
    data: DataKind = "calibration"

    @classmethod
    def on(cls, reference: Reference, samples: Sequence[SampleSet], data: DataKind = "calibration") -> Tryout:
        """Hold samples from all over each set."""
        most = max(1, MOST // len(samples))
        held = tuple(tuple(group.spread(most)) for group in samples)
        outputs = {id(s.inputs): reference(s.inputs) for group in held for s in group}
        return cls(held, outputs, data)

    def run(self, candidates: Sequence[QuantisedModel], graph: ExportedGraph) -> Trial:
        """Execute each candidate on its group of samples, or the only one on all, and time the first in turn with
        its float graph."""
        groups = self.groups
        if len(candidates) == 1:
            groups = (tuple(sample for group in groups for sample in group),)
        reports = [
            compare([candidate], group, lambda inputs: self.outputs[id(inputs)], self.data)[0].accuracy
            for candidate, group in zip(candidates, groups, strict=True)
        ]
        first = candidates[0]
        with tempfile.TemporaryDirectory() as folder:
            models = [
                open_specs(Path(folder) / "float32", graph),
                open_specs(Path(folder) / "candidate", first),
            ]
            times = interleaved_seconds(models, seconds=LATENCY_SECONDS)
        float_seconds, seconds = (float(np.median(taken)) for taken in times)
        agreements = [report.agreement for report in reports if report.agreement is not None]
        changes = [report.change for report in reports if report.change is not None]
        noise = [10 ** (-min(report.sqnr_db.values(), default=MAX_DB) / 10) for report in reports]
        return Trial(
            first.format,
            first.precision,
            -10 * math.log10(float(np.mean(noise))),
            round(sum((1 - a.value) * a.samples for a in agreements)) if agreements else None,
            sum(report.samples for report in reports),
            len(first.data),
            seconds,
            float_seconds,
            max(changes, key=lambda change: change.high, default=None),
        )


@dataclass(frozen=True)
class Goal:
    """When the ladder may stop. A top class that is kept keeps its rightness, so the share of changed ones bounds
    the drop of accuracy; half of the allowed drop leaves room for samples not seen."""

    max_drop: float
    """Points."""
    min_sqnr_db: float | None = None

    def met(self, trial: Trial) -> bool:
        """Good enough, on the samples tried."""
        share = trial.changed_share
        if share is None:
            return trial.sqnr_db >= (ENOUGH_DB if self.min_sqnr_db is None else self.min_sqnr_db + 1.0)
        held = trial.sqnr_db >= max(ENOUGH_DB, self.min_sqnr_db or 0.0)
        return held and share <= self.max_drop / 200

    def ample(self, trial: Trial) -> bool:
        """So good that further repairs are not worth the seconds that they take here. Who asks for decibels has
        said what is enough."""
        return self.met(trial) and (self.min_sqnr_db is not None or trial.sqnr_db >= AMPLE_DB)

    def clearly_missed(self, trial: Trial) -> bool:
        """So far off that layers left in float are worth their time: not explained by the few samples tried."""
        if self.met(trial):
            return False
        if self.min_sqnr_db is not None and trial.sqnr_db < self.min_sqnr_db:
            return True
        if trial.change is not None:
            return trial.change.high < -self.max_drop / 100
        # Without labels a changed class is no loss yet: it may have been wrong before, or a near tie.
        poor = self.min_sqnr_db is None and trial.sqnr_db < POOR_DB
        allowed = max(POOR_SHARE, self.max_drop / 200)
        return poor or (trial.changed is not None and proportion(trial.changed, trial.samples).low > allowed)
