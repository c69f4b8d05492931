"""Conversion without calibration data: what stands in for the data, and the decision that follows from it.

After Nagel et al. 2019, "Data-Free Quantization Through Weight Equalization and Bias Correction": ranges and means
follow from batch norm. Nothing here is chosen by trial, for there is nothing to try it on: what the generated
inputs show of a candidate is noted, and decides nothing. What was left out, and why, is in the README.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import ConversionError, DataError
from edgewright_converters.accuracy_gate import BROKEN_SQNR_DB
from edgewright_converters.ascent import Attempt, Try
from edgewright_converters.batch_norm import SeenNorm, channel_normals, seen_norms
from edgewright_converters.calibration import SampleSet
from edgewright_converters.execution import Execution
from edgewright_converters.expectation import expect
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.generated_inputs import STANDARD, InputScale, explained_scale, generated
from edgewright_converters.ladder import Climb
from edgewright_converters.quantise.activation_range import choose_ranges
from edgewright_converters.quantise.analytic_bias import analytically_corrected
from edgewright_converters.quantise.decision import Decision
from edgewright_converters.rungs import ANALYTIC, EXPECTATION, Rung
from edgewright_converters.source import InputForm, SourceModel
from edgewright_converters.source_check import check_takes
from edgewright_converters.trace import exported_program
from edgewright_converters.trial import Goal

Array = NDArray[Any]
GOAL = Goal(max_drop=100.0, min_sqnr_db=BROKEN_SQNR_DB)
"""INT8 is given up where generated inputs show it slow or broken; how near it is to float they cannot show."""


@dataclass(frozen=True)
class Generated:
    """Generated inputs for a model, and what its batch norms see of an input."""

    samples: SampleSet
    look: Callable[[Mapping[str, Array]], Sequence[SeenNorm]]


def generate(
    model: SourceModel,
    shapes: Mapping[str, Sequence[int]] | None = None,
    value_range: tuple[float, float] | None = None,
) -> Generated:
    """Inputs of the shapes that the source tells or `shapes` give; floats over `value_range` where it is known.

    Raises `DataError` where a shape is not known, or the model does not take such inputs.
    """
    forms = _forms(model, shapes or {})
    if value_range is not None and not (np.isfinite(value_range).all() and value_range[0] < value_range[1]):
        low, high = value_range
        raise DataError(
            f"the input range {low:g} to {high:g} is none", remedy="give two numbers, the lower first"
        )
    scale = STANDARD if value_range is None else InputScale.over(*value_range)
    first = generated(forms, scale).head(1)[0].inputs
    check_takes(model, first)
    if model.onnx_path is not None:
        return Generated(generated(forms, scale), lambda sample: ())
    traced, program = exported_program(model, [first])

    def look(sample: Mapping[str, Array]) -> Sequence[SeenNorm]:
        return seen_norms(program, sample, traced.input_names)

    if value_range is None:
        scale = explained_scale(look, forms)
    return Generated(generated(forms, scale), look)


def decide(
    graph: FloatGraph | None,
    model: SourceModel,
    given: Generated,
    attempt: Try,
    on_rung: Callable[[Rung], None],
) -> Climb:
    """The decision without data. Raises `ConversionError` where no batch norm tells what to expect."""
    first = given.samples.head(1)[0].inputs
    seen = given.look(first)
    execution = Execution(graph) if graph is not None else None
    normals = channel_normals(seen, execution, first) if execution is not None and seen else {}
    if execution is None or not normals:
        why = (
            "in an ONNX file they are folded away" if model.onnx_path is not None else "it has no batch norm"
        )
        raise ConversionError(
            f"static INT8 without data takes batch-norm statistics, and {why}",
            where=model.label,
            remedy="give --calibration, or a --precision that needs none (int8-dynamic, int8-weights, float16)",
        )
    attempts: list[Attempt] = []

    def note(rung: Rung, decision: Decision, begun: float) -> None:
        attempts.append(Attempt(rung.name, attempt([decision]), True, time.perf_counter() - begun))

    begun = time.perf_counter()
    on_rung(EXPECTATION)
    held = [execution.graph.feed(sample.inputs) for sample in given.samples]
    expected = expect(execution, normals, held)
    ranges = choose_ranges(expected.statistics, {})
    note(EXPECTATION, Decision(execution.graph, ranges), begun)
    begun = time.perf_counter()
    on_rung(ANALYTIC)
    decision = Decision(analytically_corrected(execution.graph, expected.means), ranges)
    note(ANALYTIC, decision, begun)
    return Climb(decision, tuple(attempts), False, expected.statistics, execution.graph)


def _forms(model: SourceModel, shapes: Mapping[str, Sequence[int]]) -> dict[str, InputForm]:
    names = model.input_names
    given = dict(shapes)
    if "" in given and len(names) == 1:
        given[names[0]] = given.pop("")
    unknown = sorted(set(given) - set(names))
    if unknown:
        problem = f"an input shape is given for '{unknown[0]}'; the model takes {', '.join(names)}"
        raise DataError(problem, where=model.label)
    forms = {}
    for name in names:
        form = model.input_forms.get(name)
        if name in given:
            form = InputForm(tuple(given[name]), form.dtype if form else "float32")
        if form is None:
            raise DataError(
                f"without calibration data the shape of its input '{name}' is not known",
                where=model.label,
                remedy=f"give --input-shape {name}=1,3,224,224 as it is, or --calibration",
            )
        if not form.shape or form.shape[0] != 1 or min(form.shape) < 1:
            shown = ",".join(map(str, form.shape))
            problem = f"input '{name}' has the shape {shown}, which is no batch of one"
            raise DataError(problem, where=model.label, remedy="begin the shape with 1")
        forms[name] = form
    return forms
