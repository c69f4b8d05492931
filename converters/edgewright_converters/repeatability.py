"""Whether the float model is a function of its input: random behaviour and hidden state are found by running it.

An artifact computes the same output for the same input for ever; a model that does not has no such artifact, and
exporting it would freeze whatever it happened to draw or remember.
"""

from __future__ import annotations

import random
import traceback
import zlib
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch.utils._python_dispatch import TorchDispatchMode

from edgewright.errors import ConversionError
from edgewright_converters.source import SourceModel
from edgewright_converters.stack import user_line

Array = NDArray[Any]
TOLERANCE = 1e-4
"""Of an output's greatest magnitude: above what the order of a float sum can do."""


def check_repeatable(model: SourceModel, samples: Sequence[Mapping[str, Array]]) -> None:
    """Run the first sample, the others, and the first again. Raises `ConversionError` naming what differs and why.

    With the random generators set alike a difference is state that was kept, otherwise it is chance.
    """
    first, *others = samples
    states = [_state(model.module)]
    with _seeded(0) as draws:
        expected = model.run(first)
        for other in others:
            model.run(other)
            states.append(_state(model.module))
    with _seeded(0):
        again = model.run(first)
    with _seeded(1):
        by_chance = model.run(first)
    states.append(_state(model.module))
    changed = [name for name in states[-1] if len({state.get(name) for state in states}) > 1]
    differs = difference(expected, again)
    if differs and (changed or not (draws or model.onnx_path)):
        cause = (
            f"keeps hidden state in {', '.join(changed[:3])} from one call to the next"
            if changed
            else "keeps hidden state outside of its attributes, or reads a clock or random numbers of its own"
        )
        raise ConversionError(
            f"it {cause}: {differs} when the first sample is run again",
            where=model.label,
            remedy="take what it depends on as an input, and return state as an output",
        )
    differs = differs or difference(expected, by_chance)
    if differs:
        source = f" ({draws[0]})" if draws else ""
        raise ConversionError(
            f"it behaves randomly{source}: {differs} when the first sample is run again",
            where=model.label,
            remedy="drop out with training=self.training, and draw nothing in forward()"
            if model.in_python
            else "export it again from the model after eval(), without what draws random numbers",
        )


def difference(expected: Mapping[str, Array], actual: Mapping[str, Array]) -> str:
    """The first output that differs by more than rounding, in words; empty where none does."""
    for name, array in expected.items():
        other = actual[name]
        if array.shape != other.shape:
            return f"output '{name}' is {list(other.shape)} in place of {list(array.shape)}"
        scale = float(np.abs(array.astype(np.float64)).max(initial=0.0))
        gap = np.abs(array.astype(np.float64) - other.astype(np.float64)).max(initial=0.0)
        if not gap <= TOLERANCE * scale:
            return f"output '{name}' differs by {gap:.3g}"
    return ""


@contextmanager
def _seeded(seed: int) -> Iterator[list[str]]:
    """All global generators set to `seed` and put back after; gives what was drawn by torch, with its line."""
    draws: list[str] = []
    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]), _Draws(draws):
        torch.manual_seed(seed)
        random.seed(seed)
        np.random.seed(seed)
        try:
            yield draws
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


class _Draws(TorchDispatchMode):
    """Notes every operator that draws random numbers."""

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if torch.Tag.nondeterministic_seeded in func.tags:
            line = user_line("".join(traceback.format_stack()))
            place = f" in {line}" if line else ""
            self.found.append(f"{func.name().removeprefix('aten::')}{place}")
        return func(*args, **(kwargs or {}))


def _state(module: torch.nn.Module | None) -> dict[str, str]:
    """What each attribute and buffer holds, in short, by its dotted name."""
    if module is None:
        return {}
    found: dict[str, str] = {}
    for path, part in module.named_modules():
        prefix = f"{path}." if path else ""
        held = {k: v for k, v in vars(part).items() if not k.startswith("_") or not isinstance(v, dict)}
        for name, value in {**held, **dict(part.named_buffers(recurse=False))}.items():
            found[prefix + name] = _fingerprint(value)
    return found


def _fingerprint(value: Any) -> str:
    if torch.is_tensor(value) and value.layout is torch.strided:
        data = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy()
        return f"{value.dtype}{list(value.shape)}:{zlib.crc32(data.tobytes())}"
    if isinstance(value, np.ndarray):
        return f"{value.dtype}{value.shape}:{zlib.crc32(value.tobytes())}"
    if isinstance(value, (bool, int, float, str, type(None))):
        return repr(value)
    if isinstance(value, Mapping):
        return str({str(key): _fingerprint(item) for key, item in value.items()})
    if isinstance(value, (Sequence, set)) or hasattr(value, "popleft"):
        return str([_fingerprint(item) for item in value])
    return type(value).__name__
