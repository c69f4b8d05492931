"""Fine-tuning outside a conversion, for a training of one's own: a user's loop, or the retraining of a model.

    student = ew.quantisation_aware(net, calibration)      # computes what the INT8 artifact will
    for x, y in loader:
        with torch.no_grad():
            expected = net(x)
        loss = ew.distillation_loss(student(x)["output"], expected, y)
        ...                                                # any optimiser, DDP around `student` too
    ew.convert(student.tuned(), calibration=calibration, …)

`fine_tune` is that loop, ready made. Nothing here says whether the result is better: `convert` measures it.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch

from edgewright.errors import ConversionError
from edgewright_converters.batches import Data
from edgewright_converters.calibration import load_samples
from edgewright_converters.comparison import classification_output
from edgewright_converters.execution import Execution
from edgewright_converters.fine_tuning.student import Student
from edgewright_converters.fine_tuning.training import OnProgress, Training, TrainingLimits, train
from edgewright_converters.graphs import float_graphs
from edgewright_converters.observation import histograms, observe
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.source import load_source
from edgewright_converters.source_check import check_takes
from edgewright_converters.torch_graph import TorchGraph, check_trainable

CALIBRATION_SAMPLES = 256


@dataclass(frozen=True)
class FineTuned:
    """`module` takes and gives what the source does, in float, with weights that suit INT8; `convert` takes it."""

    module: TorchGraph
    training: Training


def quantisation_aware(
    source: str | Path | torch.nn.Module, calibration: Data, *, weights: str | Path | None = None
) -> Student:
    """The model as a module that computes as INT8 does, and has gradients.

    Its forward takes the inputs in order, with any number of samples, and gives tensors by output name. Its
    parameters are the weights with batch norm folded in, and the steps of the activations' grids, which start
    from `calibration`. `source` and `weights` are those of `convert`. Raises `EdgewrightError`, as for an operator
    that has no gradient here.
    """
    model = load_source(source, weights)
    samples = load_samples(calibration, model.input_names, model.optional_names)
    model = model.taking(samples.input_names)
    examples = tuple(sample.inputs for sample in samples.head(2))
    graph = float_graphs(model, examples, check_takes(model, examples[0]), ("onnx",)).graph
    if graph is None:
        raise ConversionError("has no ONNX form, which is what is trained", where=model.label)
    check_trainable(graph, graph.feed(examples[0]))
    held = [graph.feed(sample.inputs) for sample in samples.spread(CALIBRATION_SAMPLES)]
    execution = Execution(graph)
    statistics = observe(execution, held, samples.where)
    return Student(Decision(graph, choose_ranges(statistics, histograms(execution, held, statistics))))


def fine_tune(
    source: str | Path | torch.nn.Module,
    training_data: Data,
    *,
    calibration: Data | None = None,
    weights: str | Path | None = None,
    limits: TrainingLimits | None = None,
    on_progress: OnProgress | None = None,
) -> FineTuned:
    """Teach the INT8 form of a model by its float form, and by labels where `training_data` has some ('y').

    Ranges start from `calibration`, by default from the training data. `limits` bounds steps and seconds and has
    the seed; `on_progress` is told the steps done and to do, the loss and the seconds left. Raises
    `EdgewrightError`.
    """
    student = quantisation_aware(
        source, calibration if calibration is not None else training_data, weights=weights
    )
    samples = load_samples(training_data, student.input_names)
    with torch.no_grad():
        first = [torch.from_numpy(samples.head(1)[0].inputs[name]) for name in student.input_names]
        teacher = TorchGraph(student.graph)
        outputs = {name: value.numpy() for name, value in teacher(*first).items()}
    scores = classification_output(outputs)
    done = train(
        student, teacher, samples, range(samples.count), scores, limits or TrainingLimits(), on_progress
    )
    return FineTuned(student.tuned(), done)
