"""`LayerCosts`: how much longer an inference takes with a layer left out of INT8, which mixed precision counts by.

Measured where this host runs the format as the device does: ONNX Runtime's profiler gives the time of each
kernel, of the float and of the INT8 model. LiteRT gives none to Python, and another architecture or an
accelerator is not here: there it is predicted on the profile. What the crossings between the two types take
is in neither.
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from edgewright.runtime.quantised_io import raw_input
from edgewright_converters.cost import operator_work
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.operators import kernel_seconds
from edgewright_converters.prediction import seconds_of
from edgewright_converters.quantise import QuantisedModel
from edgewright_profiles import HardwareProfile

Array = NDArray[Any]


@dataclass(frozen=True)
class LayerCosts:
    """Seconds by layer; below nought where INT8 is the slower of the two."""

    seconds: Mapping[str, float]
    how: Literal["measured on host", "predicted"]


def layer_costs(
    graph: FloatGraph,
    static: QuantisedModel,
    profiles: Sequence[HardwareProfile],
    inputs: Mapping[str, Array],
) -> LayerCosts:
    """The cost of each layer of `graph`, whose INT8 form is `static`, on one sample by input name."""
    here = all(p.soc.isa == platform.machine() and p.accelerator_for(static.format) is None for p in profiles)
    if static.format == "onnx" and here:
        return _measured(graph, static, inputs)
    profile = profiles[0]
    work = {operator.name: operator for operator in operator_work(graph.exported(), 1)}
    return LayerCosts(
        {
            layer.name: seconds_of(work[layer.name], profile, static.format, integer=False)
            - seconds_of(work[layer.name], profile, static.format, integer=True)
            for layer in graph.layers
            if layer.name in work
        },
        "predicted",
    )


def _measured(graph: FloatGraph, static: QuantisedModel, inputs: Mapping[str, Array]) -> LayerCosts:
    exported = graph.exported()
    floats = kernel_seconds(exported.data, exported.inputs, inputs)
    raw = {spec.name: raw_input(inputs[spec.name], spec) for spec in static.inputs}
    integers = kernel_seconds(static.data, static.inputs, raw)
    return LayerCosts(
        {
            layer.name: floats[layer.name] - integers[layer.name]
            for layer in graph.layers
            if layer.name in floats and layer.name in integers
        },
        "measured on host",
    )
