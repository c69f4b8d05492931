"""`SourceModel`: the float model that a conversion starts from, and its outputs as the reference.

A source is `module:function` returning an `nn.Module`, a `.pt2` exported program, or an `.onnx` file.
"""

from __future__ import annotations

import importlib
import inspect
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright.errors import ConversionError, DataError, EdgewrightError
from edgewright.runtime.session import open_session

Array = NDArray[Any]
REFERENCE_BATCH = 32
"""Samples a forward pass of the reference; bounds its memory without starving two cores."""


@dataclass(frozen=True)
class SourceModel:
    """A float model with named inputs. Exactly one of `module` and `onnx_path` is set.

    `run` takes float samples by input name, first axis the samples, and returns outputs by output name.
    """

    label: str
    name: str
    input_names: tuple[str, ...]
    run: Callable[[Mapping[str, Array]], dict[str, Array]]
    module: torch.nn.Module | None = None
    onnx_path: Path | None = None


def load_source(source: str | Path | torch.nn.Module) -> SourceModel:
    """Load a source. Raises `ConversionError` with what is wrong and where."""
    if isinstance(source, torch.nn.Module):
        return _from_module(source, type(source).__name__, type(source).__name__)
    text = str(source)
    path = Path(text)
    if path.suffix in (".pt2", ".onnx"):
        if not path.is_file():
            raise ConversionError("does not exist", where=text)
        return _from_onnx(path) if path.suffix == ".onnx" else _from_pt2(path)
    module_name, separator, function_name = text.partition(":")
    if separator and all(part.isidentifier() for part in (*module_name.split("."), function_name)):
        return _from_function(text, module_name, function_name)
    problem = "does not exist" if not path.exists() else "is not a model that Edgewright reads"
    raise ConversionError(
        problem, where=text, remedy="give module:function (returning an nn.Module), a .pt2 or an .onnx file"
    )


def output_names(result: Any) -> dict[str, torch.Tensor]:
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
            f"the model returns {type(result).__name__}",
            remedy="return a tensor, or a flat tuple or dict of tensors",
        )
    return named


def _from_function(label: str, module_name: str, function_name: str) -> SourceModel:
    # As `python -m` does, so that a model beside the user's shell is found without an installation.
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except ModuleNotFoundError as error:
        raise ConversionError(f"there is no Python module '{error.name}'", where=label) from None
    except AttributeError:
        raise ConversionError(f"module '{module_name}' has no '{function_name}'", where=label) from None
    except Exception as error:
        raise ConversionError(f"importing it fails: {type(error).__name__}: {error}", where=label) from error
    try:
        module = function()
    except EdgewrightError:
        raise
    except Exception as error:
        raise ConversionError(f"calling it fails: {type(error).__name__}: {error}", where=label) from error
    if not isinstance(module, torch.nn.Module):
        raise ConversionError(f"returns {type(module).__name__}, not an nn.Module", where=label)
    return _from_module(module, label, function_name)


def _from_pt2(path: Path) -> SourceModel:
    try:
        program = torch.export.load(str(path))
    except Exception as error:
        raise ConversionError(
            f"is not an exported program ({_first_line(error)})", where=str(path)
        ) from error
    return _from_module(program.module(), str(path), path.stem, names=_user_inputs(program))


def _user_inputs(program: torch.export.ExportedProgram) -> tuple[str, ...]:
    return tuple(program.graph_signature.user_inputs)


def _from_module(
    module: torch.nn.Module, label: str, name: str, names: tuple[str, ...] | None = None
) -> SourceModel:
    if names is None:
        module = module.eval()
        parameters = inspect.signature(module.forward).parameters.values()
        variadic = [p.name for p in parameters if p.kind in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]
        if variadic:
            raise ConversionError(
                f"its forward() takes *{variadic[0]}", where=label, remedy="name its inputs"
            )
        names = tuple(p.name for p in parameters if p.default is p.empty)
    input_names = names

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        samples = len(next(iter(inputs.values())))
        parts: list[dict[str, Array]] = []
        with torch.inference_mode():
            for start in range(0, samples, REFERENCE_BATCH):
                batch = [torch.from_numpy(inputs[n][start : start + REFERENCE_BATCH]) for n in input_names]
                parts.append({k: v.numpy() for k, v in output_names(module(*batch)).items()})
        return {key: np.concatenate([part[key] for part in parts]) for key in parts[0]}

    def run_fixed(inputs: Mapping[str, Array]) -> dict[str, Array]:
        # An exported program may have the batch size of its example baked in.
        samples = len(next(iter(inputs.values())))
        ones = [run({n: inputs[n][i : i + 1] for n in input_names}) for i in range(samples)]
        return {key: np.concatenate([one[key] for one in ones]) for key in ones[0]}

    exported = isinstance(module, torch.fx.GraphModule)
    return SourceModel(label, name, input_names, run_fixed if exported else run, module=module)


def _from_onnx(path: Path) -> SourceModel:
    session = open_session(path, "onnx", threads=2)

    def run(inputs: Mapping[str, Array]) -> dict[str, Array]:
        samples = len(next(iter(inputs.values())))
        rows = [session.run([inputs[s.name][i : i + 1] for s in session.inputs]) for i in range(samples)]
        return {spec.name: np.concatenate([row[k] for row in rows]) for k, spec in enumerate(session.outputs)}

    names = tuple(spec.name for spec in session.inputs)
    return SourceModel(str(path), path.stem, names, run, onnx_path=path)


def check_takes(model: SourceModel, sample: Mapping[str, Array]) -> dict[str, Array]:
    """Run one sample through the float model and return its outputs.

    Raises `DataError` where the model does not take it, `ConversionError` where the outputs are not finite.
    """
    shown = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in sample.items())
    try:
        outputs = model.run(sample)
    except EdgewrightError:
        raise
    except Exception as error:
        raise DataError(
            f"the model does not take {shown} ({_first_line(error)})", where=model.label
        ) from error
    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ConversionError(
                f"its output '{name}' is not finite for the first sample", where=model.label
            )
    return outputs


def _first_line(error: BaseException) -> str:
    lines = str(error).strip().splitlines()
    return (lines[0] if lines else type(error).__name__)[:240]
