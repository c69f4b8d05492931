"""What the gate says about toolchains that are not here: demanded or told, and never as if they had run."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from onnx_graphs import bounds_of, conv_chain, samples_of
from torch import nn

from edgewright.artifact.manifest import GateCheck
from edgewright_converters.export import export
from edgewright_converters.operators import executed_operators, int8_mac_share
from edgewright_converters.pipeline import convert
from edgewright_converters.quantise import QuantisedModel, quantise_as
from edgewright_converters.quantise.decision import own_ranges
from edgewright_converters.quantise.onnx_static import quantise_onnx
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.source import load_source
from edgewright_converters.target_rules import as_executed_there, rule_checks
from edgewright_profiles import load_profile

TENSORRT = load_profile("jetson-orin-nano-tensorrt")
IMAGE = np.random.default_rng(3).standard_normal((1, 3, 8, 8)).astype(np.float32)
IMAGES = np.random.default_rng(0).standard_normal((24, 2, 12, 12)).astype(np.float32)


def for_tensorrt() -> tuple[QuantisedModel, Any]:
    graph = conv_chain(unequal=False)
    samples = samples_of(graph)
    model = quantise_onnx(graph.exported(), bounds_of(graph, samples), "int8", symmetric=True)
    return model, executed_operators(model, graph.exported(), samples[0])


def by_name(checks: tuple[GateCheck, ...]) -> dict[str, GateCheck]:
    return {check.name: check for check in checks}


def test_file_that_holds_the_rules_passes_and_says_that_tensorrt_did_not_run() -> None:
    model, _ = for_tensorrt()
    (check,) = rule_checks(model, TENSORRT)
    assert (check.name, check.verdict, check.how) == ("target-rules", "pass", "not measured")
    assert "2 of 2 layers" in check.says and "TensorRT itself did not run" in check.says


def test_file_that_breaks_a_rule_fails_and_names_it() -> None:
    model, _ = for_tensorrt()
    proto = onnx.load_from_string(model.data)
    proto.opset_import[0].version = 25
    (check,) = rule_checks(replace(model, data=proto.SerializeToString()), TENSORRT)
    assert check.verdict == "fail" and "opset 25" in check.says and check.remedy


def test_layers_count_as_integer_where_tensorrt_makes_them_so_and_their_times_as_unknown() -> None:
    model, operators = for_tensorrt()
    assert int8_mac_share(operators) != 1.0
    there = as_executed_there(operators, model, TENSORRT)
    assert int8_mac_share(there) == 1.0 and all(operator.seconds is None for operator in there)
    assert as_executed_there(operators, model, load_profile("jetson-orin-nano")) == operators


def test_onnx_file_for_cores_alone_is_asked_nothing() -> None:
    model, _ = for_tensorrt()
    assert rule_checks(model, load_profile("raspberry-pi-5")) == ()


def tflite(model: nn.Module, precision: str = "int8") -> QuantisedModel:
    torch.manual_seed(0)
    source = load_source(model.eval())
    sample = {source.input_names[0]: IMAGE}
    graph = export(source, [sample], source.run(sample), "tflite")
    return (
        quantise_tflite(graph, own_ranges(graph, [sample]))
        if precision == "int8"
        else quantise_as(graph, "float32")
    )


@pytest.mark.slow
def test_share_that_the_profile_demands_decides_and_else_it_is_told() -> None:
    def net(middle: nn.Module) -> nn.Module:
        return nn.Sequential(nn.Conv2d(3, 4, 3), middle, nn.Conv2d(4, 8, 3), nn.AdaptiveAvgPool2d(1))

    coral, phone = load_profile("coral-dev-board"), load_profile("android-flagship")
    plain, swish = tflite(net(nn.ReLU())), tflite(net(nn.Hardswish()))
    assert by_name(rule_checks(plain, coral))["edge-tpu"].verdict == "pass"
    check = by_name(rule_checks(swish, coral))["edge-tpu"]
    assert (check.verdict, check.how, check.limit) == ("fail", "predicted", 0.9)
    assert check.actual is not None and 0 < check.actual < 0.9
    assert "HARD_SWISH" in check.says and "was not run" in check.says
    assert by_name(rule_checks(swish, phone))["nnapi"].verdict in ("pass", "inconclusive")
    assert by_name(rule_checks(plain, coral))["target-rules"].verdict == "pass"
    assert [c.name for c in rule_checks(plain, load_profile("raspberry-pi-5"))] == ["target-rules"]


@pytest.mark.slow
def test_float_file_is_not_for_the_edge_tpu() -> None:
    check = by_name(rule_checks(tflite(nn.Conv2d(3, 4, 3), "float32"), load_profile("coral-dev-board")))
    assert check["edge-tpu"].verdict == "fail" and "is float32" in check["edge-tpu"].says


@pytest.mark.slow
def test_conversion_for_tensorrt_passes_its_rules_and_predicts_on_the_gpu(tmp_path: Path) -> None:
    report = convert(
        "toy_models:small",
        calibration={"x": IMAGES[:12]},
        evaluation={"x": IMAGES[12:]},
        profile="jetson-orin-nano-tensorrt",
        output=tmp_path / "registry",
    )
    (manifest,) = report.artifacts
    assert manifest.precision == "int8" and manifest.gate is not None
    checks = by_name(manifest.gate.checks)
    assert checks["target-rules"].verdict == "pass"
    assert manifest.gate.int8_mac_share == 1.0 and manifest.gate.operator_time == "predicted"
    assert (checks["int8-share"].how, checks["speed"].how) == ("predicted", "not measured")
    assert "Ampere GPU" in checks["speed"].says and "Ampere GPU" in checks["latency"].says
    assert [spec.dtype for spec in (*manifest.inputs, *manifest.outputs)] == ["float32", "float32"]


@pytest.mark.slow
def test_conversion_for_the_coral_board_runs_on_its_edge_tpu_as_far_as_the_rules_say(tmp_path: Path) -> None:
    report = convert(
        "toy_models:small",
        calibration={"x": IMAGES[:12]},
        evaluation={"x": IMAGES[12:]},
        profile="coral-dev-board",
        precision="int8",
        output=tmp_path / "registry",
    )
    (manifest,) = report.artifacts
    assert manifest.gate is not None
    checks = by_name(manifest.gate.checks)
    assert checks["target-rules"].says == "integers in and out, and no transpose left by layout"
    assert checks["edge-tpu"].actual == 1.0
