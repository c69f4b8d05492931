"""`ConversionData`: what a conversion calibrates on and judges by, read and held against the model.

Where there is no calibration data, inputs are generated (`data_free`), and all that is measured on them says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from numpy.typing import NDArray

from edgewright.artifact.manifest import DataKind
from edgewright.errors import DataError
from edgewright_converters import data_free
from edgewright_converters.batches import Data
from edgewright_converters.calibration import SampleSet, load_samples, unexercised
from edgewright_converters.comparison import classification_output
from edgewright_converters.fine_tuning.training_data import TrainingData, share_out
from edgewright_converters.held_out import MOST, Part, parts
from edgewright_converters.repeatability import check_repeatable
from edgewright_converters.source import SourceModel
from edgewright_converters.source_check import check_takes

Array = NDArray[Any]


@dataclass(frozen=True)
class ConversionData:
    """Samples, and what the model makes of the first."""

    model: SourceModel
    """Takes the inputs that the samples have."""
    samples: SampleSet
    """For calibration."""
    judged: SampleSet
    """For the artifact's figures; `samples` where there is nothing else."""
    kind: DataKind
    """Of `judged`."""
    unseen: data_free.Generated | None
    """What stands in for calibration data; None where there is some."""
    examples: tuple[Mapping[str, Array], ...]
    outputs: Mapping[str, Array]
    """Of the model for the first example."""
    warnings: tuple[str, ...]
    training: TrainingData | None = None
    """To fine-tune on; it holds nothing of `judged`, and nothing that judges a rung."""

    @property
    def parts(self) -> Sequence[Part]:
        """How the calibration samples are shared out between fitting and judging a rung."""
        return parts(self.samples) if self.unseen is None else ()


def read_data(
    model: SourceModel,
    calibration: Data | None,
    evaluation: Data | None,
    input_shapes: Mapping[str, Sequence[int]] | None,
    input_range: tuple[float, float] | None,
    training: Data | None = None,
) -> ConversionData:
    """Read the data sets. Raises `DataError` where they do not fit the model, `ConversionError` for a model that
    is no function of its inputs."""
    unseen: data_free.Generated | None = None
    warnings: tuple[str, ...] = ()
    if calibration is None:
        unseen = data_free.generate(model, input_shapes, input_range)
        samples = unseen.samples
    else:
        samples = load_samples(calibration, model.input_names, model.optional_names)
        warnings = unexercised(samples)
    model = model.taking(samples.input_names)
    examples = tuple(sample.inputs for sample in samples.head(2))
    outputs = check_takes(model, examples[0])
    for example in examples[1:]:
        check_takes(model, example, "second")
    judged = samples if evaluation is None else load_samples(evaluation, model.input_names)
    if judged is not samples:
        check_takes(model, judged.head(1)[0].inputs)
    for labelled in (samples, judged):
        _check_labels(labelled, outputs)
    check_repeatable(model, examples)
    kind: DataKind = "evaluation"
    if evaluation is None or (calibration is not None and _same(evaluation, calibration)):
        kind = "calibration" if unseen is None else "generated"
    taught = None
    if training is not None:
        taught = _training(training, model, samples, judged if kind == "evaluation" else None, outputs)
    return ConversionData(model, samples, judged, kind, unseen, examples, outputs, warnings, taught)


def _training(
    training: Data,
    model: SourceModel,
    calibration: SampleSet,
    evaluation: SampleSet | None,
    outputs: Mapping[str, Array],
) -> TrainingData:
    samples = load_samples(training, model.input_names)
    given, expected = samples.head(1)[0].inputs, calibration.head(1)[0].inputs
    for name, array in expected.items():
        if (given[name].dtype, given[name].shape) != (array.dtype, array.shape):
            one, other = (f"{a.dtype}{list(a.shape[1:])}" for a in (given[name], array))
            problem = f"'{name}' is {one} here, and {other} in the calibration data"
            raise DataError(problem, where=samples.where, remedy="prepare both alike")
    _check_labels(samples, outputs)
    steering = (sample for part in parts(calibration) for sample in part.judged.spread(MOST))
    return share_out(samples, steering, evaluation)


def _check_labels(samples: SampleSet, outputs: Mapping[str, Array]) -> None:
    if samples.labels is None:
        return
    scores = classification_output(outputs)
    if scores is None:
        problem = "has labels, but the model's output is no single score a class"
        raise DataError(problem, where=samples.where, remedy="leave 'y' out")
    classes = outputs[scores].shape[1]
    if samples.classes is not None and len(samples.classes) != classes:
        problem = f"has {len(samples.classes)} class folders, but the model scores {classes} classes"
        raise DataError(problem, where=samples.where, remedy="make a folder for each, or lay the images flat")
    if int(samples.labels.max()) >= classes:
        problem = f"label {int(samples.labels.max())} is out of range: the model scores {classes} classes"
        remedy = f"give class indices from 0 to {classes - 1}, in the model's order"
        raise DataError(problem, where=samples.where, remedy=remedy)


def _same(one: Data, other: Data) -> bool:
    """Whether two data sets are one: then a second name for it proves no more."""
    if isinstance(one, (str, Path)) and isinstance(other, (str, Path)):
        return Path(one).resolve() == Path(other).resolve()
    return one is other
