"""Reads programs that torch saved, `.pt2` exported programs and TorchScript archives, and nothing that is code.

`torch.export.load` unpickles parts of an archive without restraint where its own, safe way fails; here it may not.
"""

from __future__ import annotations

import os
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from edgewright.errors import ConversionError
from edgewright_converters.entry_point import one_line
from edgewright_converters.silence import silenced

_PICKLED_OBJECTS = ("custom_obj_", "opaque_obj_")
"""Members of a `.pt2` that hold objects other than tensors, which only unrestrained unpickling could read."""


def load_exported(path: Path) -> torch.export.ExportedProgram:
    """Load a `.pt2`. Raises `ConversionError`."""
    if any(prefix in member for member in _members(path) for prefix in _PICKLED_OBJECTS):
        raise ConversionError(
            "holds pickled objects, which Edgewright does not load",
            where=str(path),
            remedy="export the model without custom classes",
        )
    try:
        with silenced(), _tensors_alone():
            return torch.export.load(str(path))
    except Exception as error:
        raise ConversionError(
            f"is not an exported program ({one_line(error)})",
            where=str(path),
            remedy="save it again with torch.export.save, by a version of torch like this one",
        ) from error


def is_script(path: Path) -> bool:
    """Whether it is a TorchScript archive: that holds its constants apart; pickled weights and modules do not."""
    return any(member.endswith("/constants.pkl") for member in _members(path))


def load_script(path: Path) -> torch.jit.ScriptModule:
    """Load a TorchScript archive, whose code is TorchScript's own. Raises `ConversionError`."""
    try:
        with silenced():
            module = torch.jit.load(str(path), map_location="cpu").eval()
            module._c._get_method("forward")
    except Exception as error:
        problem = f"is not a TorchScript program that can be loaded ({one_line(error)})"
        remedy = "save it again, or give the Python model as module:function"
        raise ConversionError(problem, where=str(path), remedy=remedy) from error
    return module


def script_inputs(module: torch.jit.ScriptModule) -> tuple[str, ...]:
    """The names of its inputs that have no default."""
    arguments = module._c._get_method("forward").schema.arguments[1:]
    return tuple(argument.name for argument in arguments if not argument.has_default_value())


def _members(path: Path) -> list[str]:
    if not zipfile.is_zipfile(path):
        return []
    with zipfile.ZipFile(path) as archive:
        return archive.namelist()


@contextmanager
def _tensors_alone() -> Iterator[None]:
    """Every torch.load within is weights_only, whatever it asks for."""
    name = "TORCH_FORCE_WEIGHTS_ONLY_LOAD"
    before = os.environ.get(name)
    os.environ[name] = "1"
    try:
        yield
    finally:
        if before is None:
            del os.environ[name]
        else:
            os.environ[name] = before
