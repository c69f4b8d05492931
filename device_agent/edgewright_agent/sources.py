"""Sources: an endless stream of raw inputs for one loaded model."""

from __future__ import annotations

import itertools
import zipfile
from collections.abc import Iterator
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.release import Artifact
from edgewright.errors import DataError
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import ordered_inputs, raw_input
from edgewright_agent.config import SourceConfig

RawInputs = dict[str, NDArray[Any]]


def open_source(config: SourceConfig, model: Model, artifact: Artifact) -> Iterator[RawInputs]:
    """Raw inputs for a model, for ever. Raises `DataError` where the data does not fit it."""
    if config.kind == "golden":
        golden = artifact.golden()
        rows = [{name: array[i] for name, array in golden.inputs.items()} for i in range(golden.count)]
    else:
        rows = _npz_rows(config, model)
    return itertools.cycle(rows)


def _npz_rows(config: SourceConfig, model: Model) -> list[RawInputs]:
    where = str(config.path)
    try:
        with np.load(where, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files if key != "y"}
    except (OSError, ValueError, EOFError, zipfile.BadZipFile) as error:
        raise DataError(f"cannot be read ({error})", where=where) from None
    if len(model.inputs) == 1 and set(arrays) == {"x"}:
        arrays = {model.inputs[0].name: arrays["x"]}
    columns = ordered_inputs(arrays, model.inputs)
    # Quantised once here, so that the loop does nothing but inferences.
    return [
        {
            spec.name: raw_input(column[i : i + 1], spec)
            for spec, column in zip(model.inputs, columns, strict=True)
        }
        for i in range(len(columns[0]))
    ]
