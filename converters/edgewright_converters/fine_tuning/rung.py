"""The ladder's rung that trains: a student of the float model, kept only if it is better as the target runs it.

Judged are the artifacts before and after, sample by sample on training data that was not learnt from: the mean of
the paired difference must be on the better side with its whole 95 % interval, and no class may be lost.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright.errors import ConversionError
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import raw_input, real_output
from edgewright_converters.calibration import Sample
from edgewright_converters.fine_tuning.distillation import distillation_loss, output_error
from edgewright_converters.fine_tuning.student import Student
from edgewright_converters.fine_tuning.training import OnProgress, Training, TrainingLimits, train
from edgewright_converters.fine_tuning.training_data import TrainingData
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.statistics import Z_95, paired_difference_of
from edgewright_converters.torch_graph import NotTrainableError, TorchGraph, check_trainable
from edgewright_converters.verify import Reference, open_specs

Array = NDArray[Any]
FineTune = Literal["auto", "always", "never"]


@dataclass(frozen=True)
class Tuned:
    """What fine-tuning came to: None where it could not begin. `says` is a line for the user."""

    decision: Decision | None
    kept: bool
    says: str


@dataclass(frozen=True)
class Tuner:
    """Fine-tunes a decision. `graph` is the float graph as it was exported, the teacher."""

    graph: FloatGraph
    data: TrainingData
    reference: Reference
    """The float model on one sample."""
    quantise: Callable[[Decision], Sequence[QuantisedModel]]
    """In every form that is wanted: what helps one and harms another is not kept."""
    scores: str | None
    """The output of a classifier that holds its scores."""
    limits: TrainingLimits
    always: bool = False
    on_progress: OnProgress | None = None

    def __call__(self, decision: Decision) -> Tuned:
        """Train, execute before and after on the samples held out, and say which is better."""
        first = self.data.samples.head(1)[0]
        try:
            check_trainable(self.graph, self.graph.feed(first.inputs))
            student = Student(decision)
            done = train(
                student,
                TorchGraph(self.graph),
                self.data.samples,
                self.data.learnt,
                self.scores,
                self.limits,
                self.on_progress,
            )
        except NotTrainableError as error:
            return Tuned(None, False, f"fine-tuning was left out: {error.problem}")
        except ConversionError as error:
            return Tuned(None, False, f"fine-tuning was given up: {error.problem}")
        tuned = student.decision()
        pairs = zip(self.quantise(decision), self.quantise(tuned), strict=True)
        judged = [_judged(pair, self.data.judges(), self.reference, self.scores) for pair in pairs]
        # The form that gained nothing speaks for all.
        worst = next((one for one in judged if not one.better), judged[0])
        return Tuned(tuned, worst.better, f"{self._did(done)}, {worst.says}")

    def _did(self, done: Training) -> str:
        labels = (
            "labels and the float model" if self.data.samples.has_labels and self.scores else "float model"
        )
        return (
            f"fine-tuned on {len(self.data.learnt)} samples ({labels} as teacher), {done.steps} steps in "
            f"{done.seconds:.0f} s"
        )


@dataclass(frozen=True)
class _Judged:
    better: bool
    says: str


def _judged(
    models: Sequence[QuantisedModel], samples: Iterable[Sample], reference: Reference, scores: str | None
) -> _Judged:
    """Whether the second model is better than the first as the target's runtime executes both."""
    errors: list[tuple[float, ...]] = []
    right: list[tuple[bool, ...]] = []
    labelled = False
    with tempfile.TemporaryDirectory() as folder:
        running = [open_specs(Path(folder) / str(i), model) for i, model in enumerate(models)]
        for sample in samples:
            expected = reference(sample.inputs)
            made = [_outputs(model, sample.inputs) for model in running]
            errors.append(tuple(_error(one, expected, scores, sample.label) for one in made))
            if scores is not None:
                labelled = sample.label is not None
                truth = sample.label if sample.label is not None else int(expected[scores].argmax())
                right.append(tuple(int(one[scores].argmax()) == truth for one in made))
    gain = np.array([before - after for before, after in errors])
    mean, half = float(gain.mean()), Z_95 * float(gain.std(ddof=1)) / math.sqrt(len(gain))
    base = float(np.mean([before for before, _ in errors])) or 1.0
    says = (
        f"its error on {len(gain)} training samples held out went down by {mean / base:.1%} "
        f"({(mean - half) / base:.1%} to {(mean + half) / base:.1%})"
    )
    better = mean - half > 0
    if right:
        change = paired_difference_of(*np.array(right, bool).T)
        better = better and change.value >= 0
        what = "accuracy" if labelled else "agreement with float"
        says += (
            f" and {what} changed by {change.value * 100:+.2f} points ({change.low * 100:+.2f} to "
            f"{change.high * 100:+.2f})"
        )
    return _Judged(better, f"{'kept' if better else 'not kept'}: in {models[0].format} {says}")


def _outputs(model: Model, inputs: Mapping[str, Array]) -> dict[str, Array]:
    raw = model.run_raw({spec.name: raw_input(inputs[spec.name], spec) for spec in model.inputs})
    return {spec.name: real_output(raw[spec.name], spec) for spec in model.outputs}


def _error(
    made: Mapping[str, Array], expected: Mapping[str, Array], scores: str | None, label: int | None
) -> float:
    """What training makes less, of one sample."""
    student, teacher = (
        {name: torch.from_numpy(np.array(value)) for name, value in outputs.items()}
        for outputs in (made, expected)
    )
    if scores is None:
        return float(output_error(student, teacher))
    labels = None if label is None else torch.tensor([label])
    return float(distillation_loss(student[scores], teacher[scores], labels))
