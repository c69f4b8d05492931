"""Sources: an endless stream of raw inputs for one loaded model, ready before the first inference.

What produces real data (a camera, a sensor) is not here yet; recorded arrays and the artifact's own golden
inputs are.
"""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import TensorSpec
from edgewright.artifact.release import Artifact
from edgewright.errors import DataError
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import ordered_inputs, raw_input
from edgewright_agent.config import SourceConfig

RawInputs = dict[str, NDArray[Any]]
LABELS = "y"
"""An evaluation file holds the labels beside the inputs; a device has no use for them."""


def open_source(config: SourceConfig, model: Model, artifact: Artifact) -> Iterator[RawInputs]:
    """Raw inputs for a model, for ever. Raises `DataError` where the data does not fit it."""
    if config.path is None:
        golden = artifact.golden()
        rows = [{name: array[i] for name, array in golden.inputs.items()} for i in range(golden.count)]
    else:
        rows = npz_rows(config.path, model.inputs)
    return itertools.cycle(rows)


def npz_rows(path: Path, inputs: tuple[TensorSpec, ...]) -> list[RawInputs]:
    """The samples of an `.npz` as raw inputs: arrays by input name, or `x` where there is one input.

    Quantised once here, so that the loop does nothing but inferences. Raises `DataError`.
    """
    where = str(path)
    try:
        with np.load(where, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != LABELS}
    # TypeError, AttributeError: np.load gives a bare array for an .npy, by the version of Python.
    except (OSError, ValueError, EOFError, TypeError, AttributeError, zipfile.BadZipFile) as error:
        raise DataError(f"is not an .npz file that can be read ({error})", where=where) from None
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
