"""What a checkpoint holds of the user's objects, and how they get it back.

Modules and optimisers go through `torch.distributed.checkpoint.state_dict`, which gives DDP, FSDP and a single
process the same names, so that a checkpoint of one resumes as another. The state of random generators is kept for
each rank.
"""

from __future__ import annotations

import math
import random
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.distributed.checkpoint import state_dict as dcp
from torch.distributed.checkpoint.stateful import Stateful

from edgewright.errors import ConfigError

State = Mapping[str, Any]
"""The user's objects by name: modules, their optimisers, and what else has `state_dict` and `load_state_dict`."""


def check_state(state: State) -> None:
    """Raise `ConfigError` where something cannot be saved and put back."""
    for name, item in state.items():
        if name == RANDOM:
            raise ConfigError(
                "this name is taken", where=f"checkpoint state '{name}'", remedy="choose another"
            )
        if isinstance(item, torch.optim.Optimizer):
            _module_of(name, item, state)
        elif not isinstance(item, (nn.Module, torch.Tensor, Stateful)):
            raise ConfigError(
                f"a {type(item).__name__} cannot be put back in place",
                where=f"checkpoint state '{name}'",
                remedy="give a module, an optimiser, a tensor, or an object with state_dict and load_state_dict",
            )


def collect(state: State) -> dict[str, Any]:
    """The state of every object, as a dictionary that distributed checkpoints take. A collective for FSDP."""
    return {name: _collect(name, item, state) for name, item in state.items()}


def _collect(name: str, item: Any, state: State) -> Any:
    if isinstance(item, nn.Module):
        return dcp.get_model_state_dict(item)
    if isinstance(item, torch.optim.Optimizer):
        return dcp.get_optimizer_state_dict(_module_of(name, item, state), item)
    return item if isinstance(item, torch.Tensor) else item.state_dict()


def put_back(state: State, loaded: Mapping[str, Any]) -> None:
    """Give every object the state that was loaded for it. Tensors were loaded in place."""
    for name, item in state.items():
        if isinstance(item, nn.Module):
            dcp.set_model_state_dict(item, loaded[name])
        elif isinstance(item, torch.optim.Optimizer):
            dcp.set_optimizer_state_dict(_module_of(name, item, state), item, loaded[name])
        elif not isinstance(item, torch.Tensor):
            item.load_state_dict(loaded[name])


def _module_of(name: str, optimizer: torch.optim.Optimizer, state: State) -> nn.Module:
    """The module in the state whose parameters the optimiser moves, and names."""
    moved = {id(parameter) for group in optimizer.param_groups for parameter in group["params"]}
    for item in state.values():
        if isinstance(item, nn.Module) and moved <= {id(parameter) for parameter in item.parameters()}:
            return item
    raise ConfigError(
        "no module in the state holds all parameters of this optimiser",
        where=f"checkpoint state '{name}'",
        remedy="put the module into the state too, as DDP or FSDP returned it",
    )


RANDOM = "random"
"""The name under which a checkpoint holds the generators."""


def random_state(rank: int, device: torch.device) -> dict[str, torch.Tensor]:
    """The state of Python's, NumPy's and PyTorch's generators on this rank, as tensors of fixed size.

    All of Python's and NumPy's numbers are below 2^32, and so exact in float64.
    """
    _version, words, gauss = random.getstate()
    _name, keys, position, has_gauss, cached = np.random.get_state(legacy=True)
    tensors = {
        "python": torch.tensor([*words, math.nan if gauss is None else gauss], dtype=torch.float64),
        "numpy": torch.tensor([*keys, position, has_gauss, cached], dtype=torch.float64),
        "torch": torch.get_rng_state(),
    }
    if device.type == "cuda":
        tensors["cuda"] = torch.cuda.get_rng_state(device)
    return {f"{rank}.{name}": tensor for name, tensor in tensors.items()}


def set_random_state(rank: int, device: torch.device, loaded: Mapping[str, torch.Tensor]) -> None:
    """Put the generators of this rank where they were."""
    *words, gauss = loaded[f"{rank}.python"].tolist()
    random.setstate((3, tuple(int(word) for word in words), None if math.isnan(gauss) else gauss))
    *keys, position, has_gauss, cached = loaded[f"{rank}.numpy"].tolist()
    key = np.array(keys, dtype=np.uint32)
    np.random.set_state(("MT19937", key, int(position), int(has_gauss), cached))
    torch.set_rng_state(loaded[f"{rank}.torch"])
    if device.type == "cuda":
        torch.cuda.set_rng_state(loaded[f"{rank}.cuda"], device)


def seed_all(seed: int) -> None:
    """Seed Python's, NumPy's and PyTorch's generators."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)
