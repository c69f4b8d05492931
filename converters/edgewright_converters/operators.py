"""`ExecutedOperator`: what the runtime really executes of a quantised model, in integers or in float.

A file may ask for integers and the runtime still compute in float: ONNX Runtime does where it does not fuse an
operator with the conversions around it. So its profiler is asked, which also gives each operator's time. LiteRT
executes what the file says, and tells Python no times. An operator that cannot be found counts as float.
Dynamic INT8 takes float and multiplies integers, which the kernel's type tells. Small weights alone are no INT8.
"""

from __future__ import annotations

import json
import math
import re
import tempfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import TensorSpec
from edgewright.durable_file import temporary_folder_full
from edgewright_converters.cost import operator_work
from edgewright_converters.export import ExportedGraph
from edgewright_converters.quantise import QuantisedModel
from edgewright_converters.silence import silenced
from edgewright_profiles.cost import Kind, OperatorWork

Array = NDArray[Any]
PROFILED_RUNS = 20
CONVERSIONS = frozenset(
    {"QuantizeLinear", "DequantizeLinear", "DynamicQuantizeLinear", "QUANTIZE", "DEQUANTIZE"}
)
"""Crossings between integers and float: neither work in float, nor work of the model."""
DYNAMIC = frozenset({"DynamicQuantizeMatMul", "DynamicQuantizeLSTM", "MatMulInteger", "MatMulIntegerToFloat"})
"""ONNX Runtime's kernels that quantise their float input and multiply integers (ContribOperators.md)."""
_QUANTISED_NAME = re.compile(r"_(quant|Q\d+)$")
"""What the quantisers add to the name of a node that they replace."""


@dataclass(frozen=True)
class ExecutedOperator:
    """One operator as it is executed; `work` holds the float graph's bytes at one byte an element."""

    name: str
    type: str
    work: OperatorWork
    integer: bool
    seconds: float | None = None
    """Median time in one inference, measured on this host; None where the runtime does not tell."""

    @property
    def conversion(self) -> bool:
        return self.type in CONVERSIONS


def executed_operators(
    quantised: QuantisedModel, graph: ExportedGraph, inputs: Mapping[str, Array]
) -> tuple[ExecutedOperator, ...]:
    """The operators of a quantised model, whose float form is `graph`, on one raw sample by input name."""
    if quantised.format == "onnx":
        return _onnx(quantised, graph, inputs)
    with silenced():
        return _tflite(quantised.data, dynamic=quantised.precision == "int8-dynamic")


def int8_mac_share(operators: tuple[ExecutedOperator, ...]) -> float | None:
    """The share of multiply-accumulates that run in integers; None for a model that has none."""
    total = sum(operator.work.macs for operator in operators)
    return sum(o.work.macs for o in operators if o.integer) / total if total else None


def _onnx(
    quantised: QuantisedModel, graph: ExportedGraph, inputs: Mapping[str, Array]
) -> tuple[ExecutedOperator, ...]:
    kernels = _profile(quantised.data, quantised.inputs, inputs)
    work = {operator.name: operator for operator in operator_work(graph, 1)}
    executed = []
    for name, (kind, integer, seconds) in kernels.items():
        source = name if name in work else _QUANTISED_NAME.sub("", name)
        known = work.pop(source, None) or OperatorWork(name, "elementwise", 0, 0, 0)
        executed.append(ExecutedOperator(name, kind, known, integer, seconds))
    # What was fused under another name is in no kernel of its own; only multiply-accumulates must not be lost.
    executed += [ExecutedOperator(w.name, "unknown", w, False) for w in work.values() if w.macs]
    return tuple(executed)


def kernel_seconds(
    data: bytes, specs: tuple[TensorSpec, ...], inputs: Mapping[str, Array]
) -> dict[str, float]:
    """Median seconds of each ONNX Runtime kernel by the node that it computes, on this host and one thread."""
    found = _profile(data, specs, inputs)
    return {_QUANTISED_NAME.sub("", name): seconds for name, (_, _, seconds) in found.items()}


def _profile(
    data: bytes, specs: tuple[TensorSpec, ...], inputs: Mapping[str, Array]
) -> dict[str, tuple[str, bool, float]]:
    """By kernel: its type, whether it takes integers, and its median seconds."""
    import onnxruntime as ort

    from edgewright.runtime.onnxruntime import inference_session, session_options

    with tempfile.TemporaryDirectory() as folder:
        options = session_options(threads=1)
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        # What is fused is decided at this level; the one above rewrites memory layouts, and names with them.
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_EXTENDED
        session = inference_session(data, options)
        feed = {spec.runtime_name: inputs[spec.name] for spec in specs}
        for _ in range(PROFILED_RUNS):
            session.run(None, feed)
        written = Path(session.end_profiling()).read_text(encoding="utf-8")
    try:
        events = json.loads(written)
    except ValueError:
        raise temporary_folder_full() from None
    kinds: dict[str, tuple[str, bool]] = {}
    times: dict[str, list[float]] = {}
    for event in events:
        if event.get("cat") != "Node" or not event["name"].endswith("_kernel_time"):
            continue
        name = event["name"].removesuffix("_kernel_time")
        arguments = event["args"]
        taken = [dtype for tensor in arguments["input_type_shape"] for dtype in tensor]
        kind = arguments["op_name"]
        integer = bool(taken) and not taken[0].startswith(("float", "double"))
        kinds[name] = (kind, integer or kind in DYNAMIC)
        times.setdefault(name, []).append(event["dur"] * 1e-6)
    return {name: (*kinds[name], float(np.median(times[name]))) for name in kinds}


def _tflite(data: bytes, *, dynamic: bool) -> tuple[ExecutedOperator, ...]:
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    # Without a delegate every operator of the file is listed, not the one that XNNPACK fuses them into.
    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    executed = []
    for operator in interpreter._get_ops_details():
        taken = [tensors[index] for index in operator["inputs"] if index in tensors]
        given = [tensors[index] for index in operator["outputs"] if index in tensors]
        name = given[0]["name"].rsplit("/", 1)[-1] if given else operator["op_name"]
        kind, macs = tflite_macs(operator["op_name"], taken, given)
        # The weights are the second input of what multiplies; all else is activations.
        weights = math.prod(taken[1]["shape"].tolist()) if kind != "elementwise" else 0
        activations = sum(math.prod(t["shape"].tolist()) for t in (*taken, *given)) - weights
        integer = all(np.issubdtype(t["dtype"], np.integer) for t in (*taken[:2], *given))
        # Float in and integer weights is a dynamic kernel: where static INT8 was asked for it is no INT8.
        integer |= dynamic and kind != "elementwise" and np.issubdtype(taken[1]["dtype"], np.integer)
        work = OperatorWork(name, kind, macs, weights, activations)
        executed.append(ExecutedOperator(name, operator["op_name"], work, integer))
    return tuple(executed)


def tflite_macs(op: str, taken: list[dict[str, Any]], given: list[dict[str, Any]]) -> tuple[Kind, int]:
    """As `cost.operator_work` counts them, from TFLite's own weight layouts (channels last)."""
    if op in ("CONV_2D", "DEPTHWISE_CONV_2D", "CONV_3D", "FULLY_CONNECTED", "BATCH_MATMUL"):
        outputs = sum(math.prod(t["shape"].tolist()) for t in given)
        second = taken[1]["shape"].tolist()
        if op == "CONV_2D":  # output channels, height, width, input channels
            return "conv", outputs * math.prod(second[1:])
        if op == "DEPTHWISE_CONV_2D":  # 1, height, width, channels
            return "depthwise_conv", outputs * math.prod(second[1:3])
        if op == "CONV_3D":  # depth, height, width, input channels, output channels
            return "conv", outputs * math.prod(second[:-1])
        if op == "FULLY_CONNECTED":  # outputs, inputs
            return "matmul", outputs * second[-1]
        # The contracted axis is what the left side has beside its batches and rows, adjoint or not.
        left, out = taken[0]["shape"].tolist(), given[0]["shape"].tolist()
        return "matmul", outputs * math.prod(left) // max(1, math.prod(left[:-2]) * out[-2])
    if op == "TRANSPOSE_CONV" and len(taken) > 2:  # output shape, weights as CONV_2D's, input
        kernel = taken[1]["shape"].tolist()
        return "conv", math.prod(taken[2]["shape"].tolist()) * math.prod(kernel[:-1])
    return "elementwise", 0
