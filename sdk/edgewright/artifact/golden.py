"""Golden vectors: a few inputs with the outputs that the converter saw, by which a device proves an artifact.

Inputs and outputs are raw (the artifact's own dtype and axis order), so that an integer artifact is
compared bit for bit. The file is an `.npz` that is read without pickle.
"""

from __future__ import annotations

import io
import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import GoldenPolicy
from edgewright.errors import ArtifactError

Array = NDArray[Any]
RunRaw = Callable[[dict[str, Array]], dict[str, Array]]
"""Runs one inference: raw inputs by name to raw outputs by name."""


@dataclass(frozen=True)
class GoldenVectors:
    """Raw inputs and expected raw outputs by tensor name; the first axis counts the vectors."""

    inputs: Mapping[str, Array]
    outputs: Mapping[str, Array]

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))


@dataclass(frozen=True)
class GoldenVerdict:
    """What the comparison found: the worst difference over all vectors, and where."""

    passed: bool
    vectors: int
    worst_lsb: int
    worst_relative: float
    detail: str


def golden_to_bytes(golden: GoldenVectors) -> bytes:
    """The golden file: an `.npz` with `input/NAME` and `output/NAME`; equal vectors give equal bytes."""
    arrays = {f"input/{name}": array for name, array in golden.inputs.items()}
    arrays |= {f"output/{name}": array for name, array in golden.outputs.items()}
    buffer = io.BytesIO()
    np.savez(buffer, **arrays)  # type: ignore[arg-type]
    return buffer.getvalue()


def golden_from_bytes(data: bytes) -> GoldenVectors:
    """Read a golden file (never with pickle). Raises `ArtifactError`."""
    inputs: dict[str, Array] = {}
    outputs: dict[str, Array] = {}
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            for key in archive.files:
                side, _, name = key.partition("/")
                {"input": inputs, "output": outputs}[side][name] = archive[key]
    except (ValueError, KeyError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ArtifactError(f"the golden vectors cannot be read ({error})") from None
    lengths = {len(array) if array.ndim else 0 for array in (*inputs.values(), *outputs.values())}
    if not inputs or not outputs or len(lengths) != 1 or lengths == {0}:
        raise ArtifactError("the golden vectors hold no complete vector")
    return GoldenVectors(inputs, outputs)


def prove(golden: GoldenVectors, policy: GoldenPolicy, run_raw: RunRaw) -> GoldenVerdict:
    """Run every golden vector and compare: integers within `max_lsb`, floats within the relative tolerance.

    The relative difference is taken of the largest absolute value expected of that output, as element-wise
    ratios say nothing near zero.
    """
    worst_lsb, worst_relative, detail = 0, 0.0, ""
    for index in range(golden.count):
        actual = run_raw({name: array[index] for name, array in golden.inputs.items()})
        for name, expected_all in golden.outputs.items():
            expected, got = expected_all[index], actual.get(name)
            if got is None or got.shape != expected.shape or got.dtype != expected.dtype:
                found = "nothing" if got is None else f"{got.dtype}{list(got.shape)}"
                wanted = f"{expected.dtype}{list(expected.shape)}"
                detail = f"output {name} of vector {index}: expected {wanted}, got {found}"
                return GoldenVerdict(False, golden.count, worst_lsb, worst_relative, detail)
            if np.issubdtype(expected.dtype, np.integer) or expected.dtype == np.bool_:
                lsb = int(np.abs(got.astype(np.int64) - expected.astype(np.int64)).max(initial=0))
                if lsb > worst_lsb:
                    worst_lsb, detail = lsb, f"output {name} of vector {index} differs by {lsb} LSB"
            elif not np.isfinite(got).all():
                detail = f"output {name} of vector {index} is not finite"
                return GoldenVerdict(False, golden.count, worst_lsb, float("inf"), detail)
            else:
                scale = float(np.abs(expected).max(initial=0.0)) or 1.0
                relative = float(np.abs(got.astype(np.float64) - expected).max(initial=0.0)) / scale
                if relative > worst_relative:
                    worst_relative = relative
                    detail = f"output {name} of vector {index} differs by {relative:.2e} of its range"
    passed = worst_lsb <= policy.max_lsb and worst_relative <= policy.relative_tolerance
    return GoldenVerdict(passed, golden.count, worst_lsb, worst_relative, detail or "identical")
