"""What leaving a layer out of INT8 costs: measured where it can be, predicted elsewhere, and said which."""

from __future__ import annotations

import platform

import pytest
from onnx_graphs import bounds_of, float_graph, node, normal, samples_of

from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.layer_cost import layer_costs
from edgewright_converters.quantise.onnx_static import quantise_onnx
from edgewright_profiles import HardwareProfile, load_profile, profile_names


def two_layers() -> FloatGraph:
    """A convolution of some work, and a head of next to none."""
    nodes = [
        node("Conv", "x w0 b0", "c", pads=[1, 1, 1, 1]),
        node("Relu", "c", "r"),
        node("GlobalAveragePool", "r", "p"),
        node("Flatten", "p", "f"),
        node("Gemm", "f w1 b1", "y", transB=1),
    ]
    weights = {"w0": normal(32, 32, 3, 3), "b0": normal(32), "w1": normal(5, 32), "b1": normal(5)}
    return float_graph(nodes, {"x": (1, 32, 32, 32)}, ["y"], weights)


def host_profile() -> HardwareProfile:
    return next(p for p in map(load_profile, profile_names()) if p.soc.isa == platform.machine())


def other_profile() -> HardwareProfile:
    return next(
        p for p in map(load_profile, ("raspberry-pi-5", "x86-64-gateway")) if p.soc.isa != platform.machine()
    )


@pytest.mark.parametrize("here", [True, False])
def test_layer_with_more_work_costs_more_in_float_and_it_is_said_how_that_is_known(here: bool) -> None:
    graph = two_layers()
    samples = samples_of(graph, 2)
    static = quantise_onnx(graph.exported(), bounds_of(graph, samples), "uint8")
    found = layer_costs(graph, static, [host_profile() if here else other_profile()], samples[0])
    assert found.how == ("measured on host" if here else "predicted")
    assert set(found.seconds) == {layer.name for layer in graph.layers}
    assert abs(found.seconds["c"]) > abs(found.seconds["y"])
    assert all(abs(seconds) < 1 for seconds in found.seconds.values())


def test_on_a_gpu_with_float16_what_leaves_int8_is_counted_in_float16() -> None:
    graph = two_layers()
    samples = samples_of(graph, 2)
    static = quantise_onnx(graph.exported(), bounds_of(graph, samples), "int8", symmetric=True)
    profile = load_profile("jetson-orin-nano-tensorrt")
    (gpu,) = profile.accelerators
    without = gpu.model_copy(update={"float16_macs_per_s": None})
    half = layer_costs(graph, static, [profile], samples[0])
    single = layer_costs(graph, static, [profile.model_copy(update={"accelerators": (without,)})], samples[0])
    assert half.how == single.how == "predicted"
    assert 0 < half.seconds["c"] < single.seconds["c"]
