"""Puts the weights of a file into a model that code has built; no file is unpickled beyond tensors."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from edgewright.durable_file import check_readable
from edgewright.errors import ConversionError

_NESTED_UNDER = ("state_dict", "model_state_dict", "model")
"""Where training scripts put the state dict within a checkpoint."""
_PREFIXES = ("module.", "_orig_mod.")
"""What DistributedDataParallel and torch.compile put before every key."""
_SHOWN = 3


def load_weights(module: torch.nn.Module, path: str | Path) -> None:
    """Load a `.safetensors`, `.pt` or `.pth` state dict. Raises `ConversionError` that names what does not fit.

    Every weight of the model has to be in the file with its shape, and every one in the file in the model.
    """
    where = str(path)
    given = _state_dict(_read(Path(path)), where)
    own = module.state_dict()
    # Counts the batches of training alone, and older checkpoints lack it.
    missing = [k for k in own if k not in given and not k.endswith("num_batches_tracked")]
    unexpected = [key for key in given if key not in own]
    misshaped = [
        f"{key} is {list(given[key].shape)}, in the model {list(own[key].shape)}"
        for key in own
        if key in given and given[key].shape != own[key].shape
    ]
    misshaped += [
        f"{key} is {_dtype(given[key])}, in the model {_dtype(own[key])}"
        for key in own
        if key in given and own[key].is_floating_point() and not given[key].is_floating_point()
    ]
    problems = [
        f"{words} {', '.join(keys[:_SHOWN])}{f' and {len(keys) - _SHOWN} more' if len(keys) > _SHOWN else ''}"
        for words, keys in (("lacks", missing), ("has unknown", unexpected), ("misfits:", misshaped))
        if keys
    ]
    if problems:
        raise ConversionError(
            f"its weights are not those of this model: it {'; it '.join(problems)}",
            where=where,
            remedy="build the model as it was when it was trained",
        )
    module.load_state_dict(given, strict=False)


def _dtype(tensor: torch.Tensor) -> str:
    return str(tensor.dtype).removeprefix("torch.")


def _read(path: Path) -> Any:
    remedy = "give a state dict that torch.save or safetensors wrote"
    if not path.is_file():
        problem = "is a folder" if path.is_dir() else "does not exist"
        raise ConversionError(problem, where=str(path), remedy=remedy)
    if path.suffix not in (".safetensors", ".pt", ".pth"):
        raise ConversionError("is not a .safetensors, .pt or .pth file", where=str(path), remedy=remedy)
    check_readable(path)
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path)
        return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:
        raise ConversionError(
            "is torn, or holds more than tensors, which Edgewright does not unpickle",
            where=str(path),
            remedy="save it again with torch.save(model.state_dict(), path) or as .safetensors",
        ) from error


def _state_dict(content: Any, where: str) -> dict[str, torch.Tensor]:
    for key in _NESTED_UNDER:
        if isinstance(content, Mapping) and isinstance(content.get(key), Mapping):
            content = content[key]
            break
    if (
        not isinstance(content, Mapping)
        or not content
        or not all(torch.is_tensor(value) for value in content.values())
    ):
        remedy = "save it with torch.save(model.state_dict(), path)"
        raise ConversionError("holds no state dict (tensors by name)", where=where, remedy=remedy)
    state = dict(content)
    for prefix in _PREFIXES:
        if all(key.startswith(prefix) for key in state):
            state = {key.removeprefix(prefix): value for key, value in state.items()}
    return state
