"""`SourceModel`: the float model that a conversion starts from, and its outputs as the reference.

A source is an `nn.Module` or `module:function` that returns one (with a weights file where it needs one), a `.pt2`
exported program, a TorchScript archive, or an `.onnx` file.
"""

from __future__ import annotations

import inspect
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import onnx
import torch
from numpy.typing import NDArray

from edgewright.durable_file import check_readable
from edgewright.errors import ArtifactError, ConversionError
from edgewright.runtime.session import open_session
from edgewright_converters.entry_point import is_entry_point, load_entry_point, users_code
from edgewright_converters.saved_program import is_script, load_exported, load_script, script_inputs
from edgewright_converters.weights import load_weights

Array = NDArray[Any]
_SCRIPTS = (".pt", ".pth", ".torchscript", ".ts")
_WEIGHTS_REMEDY = "give module:function that builds the model as the source, and this file with --weights"


@dataclass(frozen=True)
class InputForm:
    """Shape, with a batch of one, and dtype of an input."""

    shape: tuple[int, ...]
    dtype: str = "float32"


@dataclass(frozen=True)
class SourceModel:
    """A float model with named inputs. Exactly one of `module` and `onnx_path` is set.

    `run` takes one sample by input name, first axis 1, and returns outputs by output name. `optional_names` are
    inputs with a default, which `taking` turns into inputs. `input_forms` are known of the sources that tell them.
    """

    label: str
    name: str
    input_names: tuple[str, ...]
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    module: torch.nn.Module | None = None
    onnx_path: Path | None = None
    optional_names: tuple[str, ...] = ()
    input_forms: Mapping[str, InputForm] = field(default_factory=dict)

    @property
    def in_python(self) -> bool:
        """Whether its source is Python, and not a file that was exported from some."""
        exported = (torch.fx.GraphModule, torch.jit.ScriptModule)
        return self.module is not None and not isinstance(self.module, exported)

    def taking(self, names: Sequence[str]) -> SourceModel:
        """The model with exactly these of its inputs; the others keep their defaults."""
        if tuple(names) == self.input_names or self.module is None:
            return self
        return _from_module(_Named(self.module, names), self.label, self.name, tuple(names))


def load_source(source: str | Path | torch.nn.Module, weights: str | Path | None = None) -> SourceModel:
    """Load a source. Raises `ConversionError` with what is wrong and where."""
    if isinstance(source, torch.nn.Module):
        label = name = type(source).__name__
        return _from_code(source, label, name, weights)
    text, path = str(source), Path(source)
    if is_entry_point(text) and not path.exists():
        return _from_code(_built(text), text, text.rpartition(":")[2], weights)
    if weights is not None:
        raise ConversionError("holds its own weights", where=text, remedy="leave --weights out")
    readers = {".pt2": _from_pt2, ".onnx": _from_onnx, ".safetensors": _from_weights}
    reader = readers.get(path.suffix) or (_from_script if path.suffix in _SCRIPTS else None)
    if path.is_file() and reader is not None:
        check_readable(path)
        return reader(path)
    problem = "is a folder" if path.is_dir() else "does not exist"
    problem = "is not a model that Edgewright reads" if path.is_file() else problem
    raise ConversionError(
        problem,
        where=text,
        remedy="give module:function (returning an nn.Module), a .pt2, a TorchScript .pt or an .onnx file",
    )


def output_names(result: Any, where: str = "") -> dict[str, torch.Tensor]:
    """A module's result as tensors by name: `output`, `output_0`…, or the keys of a dict."""
    if isinstance(result, torch.Tensor):
        return {"output": result}
    if isinstance(result, Mapping):
        named = {str(key): value for key, value in result.items()}
    elif isinstance(result, (tuple, list)):
        named = {f"output_{i}" if len(result) > 1 else "output": value for i, value in enumerate(result)}
    else:
        named = {}
    if not named or not all(isinstance(value, torch.Tensor) for value in named.values()):
        raise ConversionError(
            f"the model returns {_shown(result)}",
            where=where,
            remedy="return a tensor, or a flat tuple or dict of tensors",
        )
    return named


def _shown(result: Any) -> str:
    """The type of what a model returned, and of what a sequence or dict holds."""
    parts = result.values() if isinstance(result, Mapping) else result
    if isinstance(result, (Mapping, tuple, list)):
        return f"a {type(result).__name__} of {', '.join(type(part).__name__ for part in parts) or 'nothing'}"
    return type(result).__name__


def tensors(sample: Mapping[str, Array], names: Sequence[str]) -> tuple[torch.Tensor, ...]:
    """A sample as the model's arguments; copies, as some models write into their input."""
    return tuple(torch.from_numpy(sample[name].copy()) for name in names)


def _built(text: str) -> torch.nn.Module:
    function = load_entry_point(text, ConversionError)
    with users_code("calling it fails", text, ConversionError):
        module = function()
    if not isinstance(module, torch.nn.Module):
        raise ConversionError(
            f"returns {type(module).__name__}, not an nn.Module", where=text, remedy="return the model alone"
        )
    return module


def _from_code(
    module: torch.nn.Module, label: str, name: str, weights: str | Path | None = None
) -> SourceModel:
    module = _unwrapped(module)
    if weights is not None:
        load_weights(module, weights)
    if any(torch.nn.parameter.is_lazy(parameter) for parameter in module.parameters()):
        raise ConversionError(
            "has lazy layers, whose weights are not there before the first input",
            where=label,
            remedy="call it once before it is returned, and load its weights",
        )
    if isinstance(module, torch.fx.GraphModule) and "_guards_fn" in dict(module.named_children()):
        # What an exported program's module() gives: it knows no eval().
        names = tuple(node.name for node in module.graph.nodes if node.op == "placeholder")
        return _from_module(module, label, name, names)
    module = module.eval()
    if isinstance(module, torch.jit.ScriptModule):
        return _from_module(module, label, name, script_inputs(module))
    if own := getattr(module, "input_names", ()):
        # Its forward takes any number of inputs, and so does not tell their names.
        return _from_module(module, label, name, tuple(own))
    parameters = inspect.signature(module.forward).parameters.values()
    named = [p for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
    if not named:
        raise ConversionError("its forward() names no input", where=label, remedy="name its inputs")
    required = [p for p in named if p.default is p.empty]
    optional = tuple(p.name for p in named if p.default is not p.empty)
    if any(p.kind is p.KEYWORD_ONLY for p in required):
        module = _Named(module, [p.name for p in required])
    return _from_module(module, label, name, tuple(p.name for p in required), optional)


def _unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The model without what torch.compile and data parallelism put around it, whose forward() takes anything."""
    if isinstance(module, (torch.nn.DataParallel, torch.nn.parallel.DistributedDataParallel)):
        return _unwrapped(module.module)
    original = getattr(module, "_orig_mod", None)
    return _unwrapped(original) if isinstance(original, torch.nn.Module) else module


def _from_pt2(path: Path) -> SourceModel:
    program = load_exported(path)
    names = tuple(program.graph_signature.user_inputs)
    values = {node.name: node.meta.get("val") for node in program.graph.nodes if node.op == "placeholder"}
    forms = {
        name: _form(value.shape, str(value.dtype).removeprefix("torch."))
        for name in names
        if isinstance(value := values.get(name), torch.Tensor)
    }
    model = _from_module(program.module(), str(path), path.stem, names)
    return replace(model, input_forms={name: form for name, form in forms.items() if form})


def _from_script(path: Path) -> SourceModel:
    if not is_script(path):
        problem = "holds weights and no model" if zipfile.is_zipfile(path) else "is torn, or holds no model"
        raise ConversionError(problem, where=str(path), remedy=_WEIGHTS_REMEDY)
    module = load_script(path)
    return _from_module(module, str(path), path.stem, script_inputs(module))


def _from_weights(path: Path) -> SourceModel:
    raise ConversionError("holds weights and no model", where=str(path), remedy=_WEIGHTS_REMEDY)


def _from_module(
    module: torch.nn.Module,
    label: str,
    name: str,
    names: tuple[str, ...],
    optional_names: tuple[str, ...] = (),
) -> SourceModel:
    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        with torch.inference_mode():
            result = module(*tensors(inputs, names))
        # Copied: a model may return a buffer of its own, which the next call changes.
        return {key: value.numpy().copy() for key, value in output_names(result, label).items()}

    return SourceModel(label, name, names, run, module=module, optional_names=optional_names)


def _from_onnx(path: Path) -> SourceModel:
    try:
        session = open_session(path, "onnx", threads=2)
    except ArtifactError as error:
        remedy = "export it again, with standard operators, floats of 32 bits, and its weights beside it"
        raise ConversionError(error.problem, where=str(path), remedy=remedy) from error
    if not session.inputs or not session.outputs:
        lacking = "output" if session.inputs else "input"
        raise ConversionError(f"has no {lacking}", where=str(path), remedy="export it again with one")

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        results = session.run([inputs[spec.name] for spec in session.inputs])
        return {spec.name: array for spec, array in zip(session.outputs, results, strict=True)}

    names = tuple(spec.name for spec in session.inputs)
    # The session reports an axis of any size as 1.
    values = {v.name: v for v in onnx.load(str(path), load_external_data=False).graph.input}
    sizes = {spec.name: values[spec.name].type.tensor_type.shape.dim for spec in session.inputs}
    forms = {
        spec.name: form
        for spec in session.inputs
        if (form := _form([size.dim_value for size in sizes[spec.name]], spec.dtype))
    }
    return SourceModel(str(path), path.stem, names, run, onnx_path=path, input_forms=forms)


def _form(shape: Sequence[Any], dtype: str) -> InputForm | None:
    """A batch of any size becomes one; None where another axis is of any size."""
    sizes = [size if isinstance(size, int) and size > 0 else None for size in shape]
    if sizes and sizes[0] is None:
        sizes[0] = 1
    known = tuple(size for size in sizes if size is not None)
    return InputForm(known, dtype) if len(known) == len(sizes) else None


class _Named(torch.nn.Module):
    """A model called by the names of chosen inputs, in their order."""

    def __init__(self, module: torch.nn.Module, names: Sequence[str]) -> None:
        super().__init__()
        self.module = module
        self.names = tuple(names)
        self.training = False

    def forward(self, *inputs: torch.Tensor) -> Any:
        return self.module(**dict(zip(self.names, inputs, strict=True)))
