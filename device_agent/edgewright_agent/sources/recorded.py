"""Recorded inputs, for ever: an `.npz` file's samples, or the artifact's own golden vectors."""

from __future__ import annotations

import time
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import TensorSpec
from edgewright.errors import DataError
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import ordered_inputs, raw_input
from edgewright_agent.sources.source import RawInputs, Sample, SourceMissingError

LABELS = "y"
"""An evaluation file holds the labels beside the inputs; a device has no use for them."""


class Recorded:
    """See `Source`. The rows of a model are made once, so that the loop does nothing but inferences."""

    def __init__(self, rows_for: Callable[[Model], list[RawInputs]]) -> None:
        self._rows_for = rows_for
        self._model: Model | None = None
        self._rows: list[RawInputs] = []
        self._index = 0

    def next(self, timeout_s: float) -> Sample | None:
        """The next row, the first after the last."""
        return Sample(time.time(), self._row, ready=True)

    def close(self) -> None: ...

    def _row(self, model: Model) -> RawInputs:
        if model is not self._model:
            self._rows, self._index = self._rows_for(model), 0
            self._model = model
        row = self._rows[self._index % len(self._rows)]
        self._index += 1
        return row


def golden_rows(model: Model) -> list[RawInputs]:
    """The golden inputs of a model's artifact. Raises `ArtifactError`."""
    if model.artifact is None:
        raise DataError("a bare model file has no golden vectors")
    golden = model.artifact.golden()
    return [{name: array[i] for name, array in golden.inputs.items()} for i in range(golden.count)]


def npz_rows(path: Path, inputs: tuple[TensorSpec, ...]) -> list[RawInputs]:
    """The samples of an `.npz` as raw inputs: arrays by input name, or `x` where there is one input.

    Raises `DataError`, `SourceMissingError` where the file cannot be read.
    """
    where = str(path)
    try:
        with np.load(where, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != LABELS}
    # TypeError, AttributeError: np.load gives a bare array for an .npy, by the version of Python.
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise SourceMissingError(f"is not an .npz file that can be read ({error})", where=where) from None
    if len(inputs) == 1 and set(arrays) == {"x"}:
        arrays = {inputs[0].name: arrays["x"]}
    columns = ordered_inputs(arrays, inputs)
    lengths = {len(column) if column.ndim else 0 for column in columns}
    if len(lengths) != 1 or lengths == {0}:
        raise DataError("needs the same number of samples, at least one, for every input", where=where)
    return [
        {spec.name: _sample(column, i, spec) for spec, column in zip(inputs, columns, strict=True)}
        for i in range(lengths.pop())
    ]


def _sample(column: NDArray[Any], index: int, spec: TensorSpec) -> NDArray[Any]:
    # A model with a batch axis of 1 takes a sample with that axis, one without takes the sample itself.
    whole = column.shape[1:] == spec.source_shape
    return raw_input(column[index] if whole else column[index : index + 1], spec)
