"""The gate's questions about the device's own toolchain: would it take this file, and how much of it where?

TensorRT, NNAPI and the Edge TPU's compiler are not run here. Their published rules are held against the file, and
every check says so; what a profile demands of an accelerator makes a miss a failure.
"""

from __future__ import annotations

from dataclasses import replace

from edgewright.artifact.manifest import GateCheck, Verdict
from edgewright_converters.operators import ExecutedOperator
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.tensorrt_rules import WEIGHTED, TensorRtFile, in_words
from edgewright_converters.tflite_delegates import mac_share, placements
from edgewright_converters.tflite_structure import TfliteStructure, tflite_structure
from edgewright_profiles import Accelerator, Delegate, HardwareProfile, load_delegate

_LAYERS = {"FusedConv": "Conv", "FusedGemm": "Gemm", "FusedMatMul": "MatMul"}


def rule_checks(model: QuantisedModel, profile: HardwareProfile) -> tuple[GateCheck, ...]:
    """What the toolchains of the profile's accelerators would make of the file, and its form."""
    checks: list[GateCheck] = []
    structure = tflite_structure(model.data) if model.format == "tflite" else None
    demanded = False
    for accelerator in profile.accelerators:
        if accelerator.delegate is None:
            continue
        delegate = load_delegate(accelerator.delegate.name)
        if delegate.format != model.format:
            continue
        if structure is None:
            checks.append(_tensorrt(TensorRtFile.of(model.data), delegate))
        else:
            checks.append(_placed(structure, delegate, accelerator))
            demanded |= accelerator.delegate.least_mac_share is not None and not delegate.float_runs
    if structure is not None and model.precision == "int8":
        checks.insert(0, _integer_form(structure, demanded=demanded))
    return tuple(checks)


def as_executed_there(
    operators: tuple[ExecutedOperator, ...], model: QuantisedModel, profile: HardwareProfile
) -> tuple[ExecutedOperator, ...]:
    """The operators as the profile's own runtime would execute them: for TensorRT that follows from the file.

    ONNX Runtime computes such a file in float between roundings, and its times say nothing about a GPU.
    """
    if profile.accelerator_for(model.format) is None or model.format != "onnx":
        return operators
    integer = TensorRtFile.of(model.data).integer
    return tuple(
        replace(
            operator,
            type=_LAYERS.get(operator.type, operator.type),
            integer=operator.name in integer or operator.integer,
            seconds=None,
        )
        for operator in operators
    )


def _tensorrt(file: TensorRtFile, delegate: Delegate) -> GateCheck:
    breaches = file.breaches(delegate)
    version = f"TensorRT {delegate.version}"
    executed = "TensorRT itself did not run: the file was executed by ONNX Runtime on the CPU"
    layers = sum(node.op_type in WEIGHTED for node in file.proto.graph.node)
    says = (
        f"{len(file.integer)} of {layers} layers are quantised as {version} takes them, and no rule is broken"
    )
    if breaches:
        says = f"{version} would refuse or slow down the file: {in_words(breaches)}"
    return GateCheck(
        name="target-rules",
        verdict="fail" if breaches else "pass",
        actual=float(len(breaches)),
        limit=0.0,
        unit="broken rules",
        how="not measured",
        says=f"{says}; {executed}",
        remedy="ask for --precision int8, or for a profile that runs it on the CPU" if breaches else None,
    )


def _placed(structure: TfliteStructure, delegate: Delegate, accelerator: Accelerator) -> GateCheck:
    assert accelerator.delegate is not None
    found = placements(structure, delegate)
    share, least = mac_share(found), accelerator.delegate.least_mac_share
    left = [placed for placed in found if placed.refusal]
    verdict: Verdict = "pass" if not left else "inconclusive"
    if least is not None:
        verdict = "pass" if share >= least else "fail"
    says = f"{share:.1%} of the multiply-accumulates would run on the {accelerator.name}"
    if left:
        named = "; ".join(f"{p.operator.kind} {p.operator.name}: {p.refusal}" for p in left[:3])
        says += f"; {len(left)} of {len(found)} operators stay on the CPU: {named}"
        says += f"; and {len(left) - 3} more" if len(left) > 3 else ""
    return GateCheck(
        name=delegate.name,
        verdict=verdict,
        actual=share,
        limit=least,
        unit="share of multiply-accumulates",
        how="predicted",
        says=f"{says}; by published rules, {delegate.title} was not run",
        remedy="replace the operators that are named, the first of them above all" if left else None,
    )


def _integer_form(structure: TfliteStructure, *, demanded: bool) -> GateCheck:
    """Integers in and out, and no transposes left by layout."""
    floats = [t.name for t in (*structure.inputs, *structure.outputs) if t.dtype.startswith("float")]
    turned = [operator.name for operator in structure.layout_transposes]
    faults = []
    if floats:
        faults.append(f"{len(floats)} inputs or outputs are float: {', '.join(floats[:3])}")
    if turned:
        faults.append(f"{len(turned)} transposes are left by layout: {', '.join(turned[:3])}")
    verdict: Verdict = "pass" if not faults else "fail" if demanded and floats else "inconclusive"
    return GateCheck(
        name="target-rules",
        verdict=verdict,
        actual=float(len(floats) + len(turned)),
        limit=0.0,
        unit="faults of form",
        how="measured on host",
        says="; ".join(faults) or "integers in and out, and no transpose left by layout",
        remedy="see which operators the gate names as left in float" if floats else None,
    )
