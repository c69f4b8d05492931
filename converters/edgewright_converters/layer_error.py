"""`LayerError`: how far each activation of a quantised model is off as its runtime computes it, against float's.

Nothing is simulated: the integers are those that the runtime's own kernels hand from one operator to the next.
ONNX Runtime gives them out where a QuantizeLinear's result is made an output of the graph, which leaves the fused
integer kernels before it as they are. LiteRT keeps them on request, in its built-in kernels (XNNPACK keeps none).
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import numpy_helper

from edgewright.runtime.onnxruntime import inference_session, session_options
from edgewright.runtime.quantised_io import raw_input
from edgewright_converters.comparison import decibels
from edgewright_converters.execution import Execution
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.tflite_graph import activations, open_tflite

Array = NDArray[Any]
Sample = Mapping[str, Array]
"""One sample by source name."""


@dataclass(frozen=True)
class Stored:
    """An activation as the runtime holds it, in real values."""

    values: Array
    fits: tuple[float, float] | None = None
    """Between which real values something rounds onto the grid, not beyond it; None for a tensor of floats."""


@dataclass(frozen=True)
class LayerError:
    """One activation against float's, over all samples."""

    name: str
    sqnr_db: float
    """Signal to quantisation noise; it holds the noise of all layers before, too."""
    clipped: float | None
    """The share of float's values that lie beyond the grid; None for a tensor that is not of integers."""


def layer_errors(
    runs: Iterable[tuple[Mapping[str, Array], Mapping[str, Stored]]],
) -> tuple[LayerError, ...]:
    """Compare, sample by sample, float's activations with those of a quantised model that have the same name.

    In the order in which float makes them; an activation that the quantised model does not have is left out.
    """
    sums: dict[str, _Sums] = {}
    for reference, stored in runs:
        for name, value in reference.items():
            mine = stored.get(name)
            if mine is not None and mine.values.size == value.size:
                sums.setdefault(name, _Sums()).add(value, mine)
    return tuple(
        LayerError(
            name, decibels(found.signal, found.noise), found.beyond / found.count if found.integer else None
        )
        for name, found in sums.items()
    )


@dataclass
class _Sums:
    signal: float = 0.0
    noise: float = 0.0
    integer: bool = False
    beyond: int = 0
    count: int = 0

    def add(self, reference: Array, stored: Stored) -> None:
        # Single precision keeps a thousandth of a decibel, at a quarter of the time.
        difference = reference - stored.values.reshape(reference.shape)
        self.signal += float(np.vdot(reference, reference))
        self.noise += float(np.vdot(difference, difference))
        self.count += reference.size
        if stored.fits is not None:
            low, high = stored.fits
            self.integer = True
            self.beyond += int(((reference < low) | (reference > high)).sum())


def stored_activations(model: QuantisedModel, samples: Iterable[Sample]) -> Iterator[dict[str, Stored]]:
    """The activations of a quantised model by their names in the float graph, for one sample after another.

    Use one sample's before the next is taken.
    """
    return _onnx(model, samples) if model.format == "onnx" else _tflite(model, samples)


Grid = tuple[float, int]
"""Scale and zero point."""


@dataclass(frozen=True)
class Exposed:
    """A model with more outputs: by output, the activation that it is, and its grid where it is of integers."""

    data: bytes
    outputs: Mapping[str, tuple[str, Grid | None]]


def exposed(model: QuantisedModel) -> Exposed:
    """An ONNX model that gives out every activation that it stores.

    Those are the results of its QuantizeLinear nodes; a model that has none computes in float between its
    operators, and every tensor is one.
    """
    proto = onnx.load_from_string(model.data)
    graph = proto.graph
    constants = {i.name: i for i in graph.initializer}
    given = {value.name for value in graph.output}
    outputs: dict[str, tuple[str, Grid | None]] = {}
    for node in graph.node:
        if node.op_type != "QuantizeLinear" or not set(node.input[1:]) <= constants.keys():
            continue
        scale, zero_point = (numpy_helper.to_array(constants[name]) for name in node.input[1:3])
        if scale.size == 1:
            stored = node.output[0]
            # Behind an output the quantiser renames the float tensor; the integers have its name.
            name = stored if stored in given else node.input[0].removesuffix("_QuantizeLinear_Input")
            outputs[stored] = name, (float(scale.item()), int(zero_point.item()))
    if not outputs:
        outputs = {name: (name, None) for node in graph.node for name in node.output if name}
    # An output may be left in float.
    outputs.update({name: (name, None) for name in given if name not in outputs})
    graph.output.extend(onnx.ValueInfoProto(name=name) for name in outputs if name not in given)
    return Exposed(proto.SerializeToString(), outputs)


def _onnx(model: QuantisedModel, samples: Iterable[Sample]) -> Iterator[dict[str, Stored]]:
    more = exposed(model)
    session = inference_session(more.data, session_options(threads=1))
    for sample in samples:
        feed = {spec.runtime_name: raw_input(sample[spec.name], spec) for spec in model.inputs}
        made = {
            spec.runtime_name: _stored(
                feed[spec.runtime_name], (spec.quantisation.scale, spec.quantisation.zero_point)
            )
            for spec in model.inputs
            if spec.quantisation is not None
        }
        results = session.run(list(more.outputs), feed)
        for (name, grid), value in zip(more.outputs.values(), results, strict=True):
            made[name] = _stored(value, grid)
        yield made


def _tflite(model: QuantisedModel, samples: Iterable[Sample]) -> Iterator[dict[str, Stored]]:
    opened = open_tflite(model)
    for made in activations(model, samples, opened):
        yield {opened.names[index]: _stored(value, opened.grids.get(index)) for index, value in made.items()}


def _stored(value: Array, grid: Grid | None) -> Stored:
    if grid is None:
        return Stored(value)
    scale, zero_point = grid
    limits = np.iinfo(value.dtype)
    fits = ((limits.min - zero_point - 0.5) * scale, (limits.max - zero_point + 0.5) * scale)
    return Stored((value.astype(np.float32) - zero_point) * np.float32(scale), fits)


def float_activations(
    graph: FloatGraph | ExportedGraph, samples: Iterable[Sample]
) -> Iterator[dict[str, Array]]:
    """The activations of a float ONNX or TFLite graph, for one sample after another.

    What is fused into the operator before it is none: no target stores it.
    """
    if isinstance(graph, ExportedGraph):
        opened = open_tflite(graph)
        made_by = {index: place for place, op in enumerate(opened.operators) for index in op.outputs}
        for made in activations(graph, samples, opened):
            in_order = sorted(made, key=lambda index: made_by.get(index, -1))
            yield {opened.names[index]: made[index] for index in in_order}
        return
    execution = Execution(graph)
    for sample in samples:
        seen: dict[str, Array] = {}

        def keep(name: str, value: Array, seen: dict[str, Array] = seen) -> None:
            if name in graph.quantised_tensors:
                seen[name] = value

        execution.run(graph.feed(sample), keep)
        yield seen
