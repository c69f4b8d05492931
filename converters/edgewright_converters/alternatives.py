"""`alternatives`: which precisions to try after, or in place of, static INT8, in order and each with a reason.

It looks at what the float graph is made of and at what the profile says; nothing is run. Whether one of them
serves is for verification and the gate to say.
"""

from __future__ import annotations

import math
from collections import Counter
from dataclasses import dataclass

from edgewright.artifact.manifest import Precision
from edgewright.figures import size
from edgewright_converters.cost import operator_work
from edgewright_converters.export import ExportedGraph
from edgewright_converters.float_graph import FloatGraph
from edgewright_converters.operators import tflite_macs
from edgewright_converters.silence import silenced
from edgewright_profiles import HardwareProfile

FLOAT_BYTES = 4
INT8_BYTES = 1.125
"""Of a weight and its share of the scale of 32."""


@dataclass(frozen=True)
class Alternative:
    """A precision to try, and why, in one line."""

    precision: Precision
    reason: str


@dataclass(frozen=True)
class Composition:
    """Shares of the multiply-accumulates, which sum to one where there are any, and of the file's bytes."""

    convolution: float
    matrix: float
    """Products by a constant matrix, recurrent layers aside."""
    recurrent: float
    integer_recurrent: float
    """The part of `recurrent` that has a dynamic INT8 kernel."""
    attention: float
    """Products of two activations."""
    matrix_bytes: float
    """Constant matrices, recurrent weights and embeddings, of all bytes of the file."""


@dataclass(frozen=True)
class _Part:
    kind: str
    macs: int
    weights: dict[str, int]
    """Elements of each weight of it that is a matrix."""


def alternatives(graph: ExportedGraph, profile: HardwareProfile) -> tuple[Alternative, ...]:
    """The precisions worth trying beside static INT8 for an optimised float graph, the most promising first."""
    made_of = composition(graph)
    found = []
    if profile.accelerator_for(graph.format) is not None:
        # TensorRT parses none of ONNX Runtime's own operators, of which the others are made.
        return (Alternative("float16", f"{profile.name} computes in it where it does not in INT8"),)
    dynamic = made_of.integer_recurrent + made_of.matrix
    if dynamic > 0.0 and made_of.recurrent + made_of.attention > 0.0 and dynamic >= made_of.convolution:
        what = " and ".join(
            name
            for name, macs in (("recurrent layers", made_of.recurrent), ("attention", made_of.attention))
            if macs
        )
        reason = f"{what}: their ranges differ from input to input, and dynamic INT8 follows them"
        found.append(Alternative("int8-dynamic", reason))
    elif dynamic >= 0.5:
        reason = f"{dynamic:.0%} of the multiply-accumulates are products by constant matrices"
        found.append(Alternative("int8-dynamic", reason))
    if "float16" in profile.numeric_formats.fast:
        reason = f"{profile.name} runs float16 at least as fast as float32, and it is half the bytes"
        found.append(Alternative("float16", reason))
    return (*found, *_small(graph, made_of, profile))


def composition(graph: ExportedGraph) -> Composition:
    """What an optimised float graph is made of."""
    with silenced():
        parts = _onnx_parts(graph) if graph.format == "onnx" else _tflite_parts(graph.data)
    total = sum(part.macs for part in parts) or 1
    shares: Counter[str] = Counter()
    weights: dict[str, int] = {}
    for part in parts:
        shares[part.kind] += part.macs
        weights.update(part.weights)
    recurrent = shares["recurrent"] + shares["float recurrent"]
    return Composition(
        convolution=shares["convolution"] / total,
        matrix=shares["matrix"] / total,
        recurrent=recurrent / total,
        integer_recurrent=shares["recurrent"] / total,
        attention=shares["attention"] / total,
        matrix_bytes=min(1.0, sum(weights.values()) * FLOAT_BYTES / len(graph.data)),
    )


def _small(graph: ExportedGraph, made_of: Composition, profile: HardwareProfile) -> tuple[Alternative, ...]:
    """Weight-only for a file over budget whose bytes are matrices; 4 bits where 8 would not do."""
    budget, whole = profile.budgets.artifact_bytes, len(graph.data)
    if budget is None or whole <= budget or made_of.matrix_bytes < 0.5:
        return ()
    matrices = whole * made_of.matrix_bytes
    over = f"{size(whole)} in float is over the budget of {size(budget)}"
    share = f"{made_of.matrix_bytes:.0%} of it matrices and embeddings"
    found = [Alternative("int8-weights", f"{over}, {share}: a quarter of the bytes, activations stay float")]
    if whole - matrices + matrices * INT8_BYTES / FLOAT_BYTES > budget:
        found.append(Alternative("int4-weights", f"{over}, {share}: 8 bits would be over it too"))
    return tuple(found)


def _onnx_parts(graph: ExportedGraph) -> list[_Part]:
    structure = FloatGraph.of(graph)
    macs = {work.name: work.macs for work in operator_work(graph, FLOAT_BYTES)}
    parts = []
    for node in structure.nodes:
        held = {n: structure.weights[n].size for n in node.input if n in structure.weights}
        matrices = {n: count for n, count in held.items() if structure.weights[n].ndim >= 2}
        if node.op_type in ("Conv", "ConvTranspose"):
            kind, matrices = "convolution", {}
        elif node.op_type in ("LSTM", "GRU", "RNN"):
            # Dynamic INT8 has a kernel for one of the three.
            kind = "recurrent" if node.op_type == "LSTM" else "float recurrent"
        elif node.op_type in ("Gemm", "MatMul"):
            kind = "matrix" if matrices else "attention"
        elif node.op_type == "Gather":
            kind = "embedding"
        else:
            continue
        parts.append(_Part(kind, macs.get(node.name or node.output[0], 0), matrices))
    return parts


def _tflite_parts(data: bytes) -> list[_Part]:
    """TFLite has no recurrent layer: it is unrolled into products that share a weight."""
    from ai_edge_litert.interpreter import Interpreter, OpResolverType

    interpreter = Interpreter(
        model_content=data,
        experimental_op_resolver_type=OpResolverType.BUILTIN_WITHOUT_DEFAULT_DELEGATES,
    )
    tensors = {detail["index"]: detail for detail in interpreter.get_tensor_details()}
    operators = interpreter._get_ops_details()
    live = {index for operator in operators for index in operator["outputs"]}
    live |= {detail["index"] for detail in interpreter.get_input_details()}
    users = Counter(o["inputs"][1] for o in operators if o["op_name"] == "FULLY_CONNECTED")
    parts = []
    for operator in operators:
        taken = [tensors[index] for index in operator["inputs"] if index in tensors]
        given = [tensors[index] for index in operator["outputs"] if index in tensors]
        if operator["op_name"] == "EMBEDDING_LOOKUP":
            kind, macs = "embedding", 0
        else:
            cost, macs = tflite_macs(operator["op_name"], taken, given)
            if cost == "elementwise":
                continue
            kind = "convolution"
        held = {str(index): math.prod(tensors[index]["shape"].tolist()) for index in operator["inputs"][1:2]}
        if operator["op_name"] in ("FULLY_CONNECTED", "BATCH_MATMUL"):
            weight = operator["inputs"][1]
            kind = "attention" if weight in live else "recurrent" if users[weight] > 1 else "matrix"
        parts.append(_Part(kind, macs, {} if kind in ("convolution", "attention") else held))
    return parts
