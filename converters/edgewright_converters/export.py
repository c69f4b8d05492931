"""`ExportedGraph`: the float model in a target's own format, and where its tensors come from.

An operator that the target lacks is named with its module and line in the Python source.
"""

from __future__ import annotations

import contextlib
import re
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, cast

import numpy as np
import onnx
import torch
from numpy.typing import NDArray

from edgewright.artifact.manifest import Dtype, ModelFormat, TensorSpec
from edgewright.errors import ConversionError
from edgewright_converters.entry_point import one_line
from edgewright_converters.silence import silenced
from edgewright_converters.source import SourceModel
from edgewright_converters.stack import user_line
from edgewright_converters.trace import exported_program

Array = NDArray[Any]
CHANNELS_LAST = (0, 2, 3, 1)


Traced = tuple[SourceModel, torch.export.ExportedProgram]


class UnsupportedOperatorError(ConversionError):
    """A target lacks an operator of the model."""


@dataclass(frozen=True)
class ExportedGraph:
    """A serialised float model; `inputs` and `outputs` tie source names to names inside the file."""

    format: ModelFormat
    data: bytes
    inputs: tuple[TensorSpec, ...]
    outputs: tuple[TensorSpec, ...]


def export(
    model: SourceModel,
    samples: Sequence[Mapping[str, Array]],
    outputs: Mapping[str, Array],
    model_format: ModelFormat,
    traced: Traced | None = None,
) -> ExportedGraph:
    """Export with a batch of one; `outputs` is what the float model made of the first of `samples`.

    The program has to equal the model on all of `samples`; two will do. `traced` is what `exported_program` makes
    of both, where that is there already. Raises `ConversionError`, with the operator and its place where the
    target lacks one.
    """
    sample = samples[0]
    if model.onnx_path is not None:
        assert model_format == "onnx"  # `as_module` is what becomes TFLite
        return _fixed_onnx(model, sample)
    model, program = traced or exported_program(model, samples)
    if model_format == "onnx":
        return _to_onnx(model, program, outputs)
    return _to_tflite(model, program, sample, outputs)


def spec_of(
    name: str,
    runtime_name: str,
    array: Array,
    permutation: tuple[int, ...] | None = None,
    dtype: str | None = None,
) -> TensorSpec:
    """The spec of a tensor that is not quantised, its shape in the artifact's axis order."""
    shape = tuple(array.shape[axis] for axis in permutation) if permutation else array.shape
    return TensorSpec(
        name=name,
        runtime_name=runtime_name,
        shape=shape,
        dtype=cast("Dtype", dtype or array.dtype.name),
        permutation=permutation,
    )


def _to_onnx(
    model: SourceModel, program: torch.export.ExportedProgram, outputs: Mapping[str, Array]
) -> ExportedGraph:
    # A recurrent model may give its state out under the name by which it takes it; in a file names are unique.
    names = [f"{name}_out" if name in model.input_names else name for name in outputs]
    try:
        with silenced():
            exported = torch.onnx.export(
                program,
                (),
                dynamo=True,
                input_names=list(model.input_names),
                output_names=names,
                verbose=False,
            )
    except torch.onnx.OnnxExporterError as error:
        raise _unsupported(model, program, error, "ONNX") from None
    assert exported is not None
    proto = exported.model_proto
    samples = _graph_tensors(proto)
    inputs = tuple(spec_of(n, n, samples[n]) for n in model.input_names)
    made = tuple(spec_of(n, inside, a) for inside, (n, a) in zip(names, outputs.items(), strict=True))
    return ExportedGraph("onnx", proto.SerializeToString(), inputs, made)


def _to_tflite(
    model: SourceModel,
    program: torch.export.ExportedProgram,
    sample: Mapping[str, Array],
    outputs: Mapping[str, Array],
) -> ExportedGraph:
    # The first import writes to standard output.
    with silenced():
        import litert_torch

    inputs_last = [i for i, name in enumerate(model.input_names) if sample[name].ndim == 4]
    outputs_last = [i for i, array in enumerate(outputs.values()) if array.ndim == 4]
    permutations_in = [CHANNELS_LAST if i in inputs_last else None for i in range(len(model.input_names))]
    permutations_out = [CHANNELS_LAST if i in outputs_last else None for i in range(len(outputs))]
    assert model.module is not None
    # Channels last is TFLite's native order; kept at the boundary it needs no TRANSPOSE inside.
    module = litert_torch.to_channel_last_io(
        _OutputTuple(model.module), args=inputs_last or None, outputs=outputs_last or None
    )
    if not isinstance(model.module, torch.fx.GraphModule):
        module = module.eval()
    example = tuple(
        torch.from_numpy(np.ascontiguousarray(sample[n].transpose(p) if p else sample[n]))
        for n, p in zip(model.input_names, permutations_in, strict=True)
    )
    try:
        with silenced():
            data = bytes(litert_torch.convert(module, example).model_content())
            inside, outside = _signature(data)  # fails where the runtime lacks what the converter wrote
    except Exception as error:
        raise _unsupported(model, program, error, "TFLite") from error
    return ExportedGraph(
        "tflite",
        data,
        tuple(
            spec_of(name, inside[i][0], sample[name], permutations_in[i], inside[i][1])
            for i, name in enumerate(model.input_names)
        ),
        tuple(
            spec_of(name, outside[i][0], array, permutations_out[i], outside[i][1])
            for i, (name, array) in enumerate(outputs.items())
        ),
    )


class _OutputTuple(torch.nn.Module):
    """The model with its outputs as a flat tuple, the form that the channel-last wrapper takes."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, *inputs: torch.Tensor) -> tuple[torch.Tensor, ...]:
        result = self.module(*inputs)
        if isinstance(result, torch.Tensor):
            return (result,)
        return tuple(result.values()) if isinstance(result, Mapping) else tuple(result)


def _signature(data: bytes) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Name and dtype of the signature's inputs and outputs, in the order of the source's arguments.

    The dtype may not be the source's: token ids of int64 become int32.
    """
    from ai_edge_litert.interpreter import Interpreter

    interpreter = Interpreter(model_content=data)
    runner = interpreter.get_signature_runner()

    def in_order(details: Mapping[str, Any]) -> list[tuple[str, str]]:
        keys = sorted(details, key=lambda key: int(re.sub(r"\D", "", key) or 0))
        return [(str(details[key]["name"]), details[key]["dtype"].__name__) for key in keys]

    return in_order(runner.get_input_details()), in_order(runner.get_output_details())


def _fixed_onnx(model: SourceModel, sample: Mapping[str, Array]) -> ExportedGraph:
    from onnxruntime.tools.onnx_model_utils import make_input_shape_fixed

    assert model.onnx_path is not None
    proto = onnx.load(str(model.onnx_path))
    for node in proto.graph.node:
        if not onnx.defs.has(node.op_type, node.domain) and node.domain != "com.microsoft":
            operator = f"{node.domain + '::' if node.domain else ''}{node.op_type}"
            raise ConversionError(
                f"operator {operator} of node '{node.name}' is not one that ONNX Runtime has",
                where=model.label,
                remedy="export the model without it",
            )
    for name, array in sample.items():
        make_input_shape_fixed(proto.graph, name, list(array.shape))
    proto = onnx.shape_inference.infer_shapes(proto)
    outputs = model.run(sample)
    return ExportedGraph(
        "onnx",
        proto.SerializeToString(),
        tuple(spec_of(n, n, sample[n]) for n in model.input_names),
        tuple(spec_of(n, n, a) for n, a in outputs.items()),
    )


def _graph_tensors(proto: onnx.ModelProto) -> dict[str, Array]:
    """An empty-content array for each graph input, which carries its shape and dtype."""
    tensors: dict[str, Array] = {}
    for value in proto.graph.input:
        kind = value.type.tensor_type
        dtype = onnx.helper.tensor_dtype_to_np_dtype(kind.elem_type)
        tensors[value.name] = np.empty([d.dim_value for d in kind.shape.dim], dtype)
    return tensors


_OPERATOR = re.compile(
    r"call_function\[target=torch\.ops\.([\w.]+)\]|Lowering not found: ([\w.]+)"
    r"|builtin opcode '(?:STABLEHLO_)?(\w+)'"
)


_VERIFIER = re.compile(r'error: .*?"([^"]+\.py)":(\d+):\d+.*?\'([\w.]+)\' op ')
"""How MLIR refuses an operator: with its place in the source."""


def _unsupported(
    model: SourceModel, program: torch.export.ExportedProgram, error: BaseException, target: str
) -> ConversionError:
    """The error for a failed export: the operator, its module and its line where they can be told."""
    text = "".join(traceback.format_exception(error))
    if match := _VERIFIER.search(text):
        return UnsupportedOperatorError(
            f"operator {match[3]} ({match[1].rsplit('/', 1)[-1]}:{match[2]}) has no {target} form",
            where=model.label,
            remedy="replace it in the model",
        )
    match = _OPERATOR.search(text)
    if match is None:
        return UnsupportedOperatorError(
            f"cannot be exported to {target} ({one_line(error)})",
            where=model.label,
            remedy="replace what it stumbles over in the model",
        )
    operator = match[1] or match[2] or match[3].lower()
    base = operator.split(".")[1] if "." in operator else operator
    place = ""
    graphs = [program.graph]
    with contextlib.suppress(Exception), silenced():  # without the place the operator is named alone
        graphs.insert(0, program.run_decompositions().graph)
    with contextlib.suppress(Exception):
        for node in (node for graph in graphs for node in graph.nodes):
            if node.op == "call_function" and _plain(str(node.target).split(".")[1]) == _plain(base):
                stack = list((node.meta.get("nn_module_stack") or {}).values())
                module = stack[-1][0] if stack and stack[-1][0] else "the model itself"
                line = user_line(node.meta.get("stack_trace") or "")
                place = f" in {module}{f' ({line})' if line else ''}"
                break
    return UnsupportedOperatorError(
        f"operator {operator}{place} has no {target} form",
        where=model.label,
        remedy="replace it in the model",
    )


def _plain(operator: str) -> str:
    """The name without what torch's layers of operators write differently: prims.erf_inv is aten.erfinv."""
    return operator.removeprefix("special_").replace("_", "")
