"""`SampleSet`: calibration or evaluation data, checked once at the door.

Data is an `.npz` (one array per model input by its name, or `x` where there is one; first axis the samples;
`y` the labels where known) or a folder of images with a `preprocessing.json` that says how a photo becomes
an input; there, sub-folders are classes in the order of their names.
"""

from __future__ import annotations

import hashlib
import zipfile
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ImagePreprocessing
from edgewright.contract import from_json
from edgewright.errors import DataError
from edgewright.preprocessing import IMAGE_SUFFIXES, preprocess

Array = NDArray[Any]
PREPROCESSING_FILE = "preprocessing.json"


@dataclass(frozen=True)
class Sample:
    """One sample by input name, first axis of 1, and its class index where it is known."""

    inputs: Mapping[str, Array]
    label: int | None = None


@dataclass(frozen=True)
class SampleSet:
    """Samples by input name, first axis the samples; `labels` are class indices where known."""

    where: str
    inputs: Mapping[str, Array]
    labels: Array | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: ImagePreprocessing | None = None

    @property
    def count(self) -> int:
        return len(next(iter(self.inputs.values())))

    def __iter__(self) -> Iterator[Sample]:
        for index in range(self.count):
            label = None if self.labels is None else int(self.labels[index])
            yield Sample(self.sample(index), label)

    def sample(self, index: int) -> dict[str, Array]:
        """One sample with a first axis of 1."""
        return {name: array[index : index + 1] for name, array in self.inputs.items()}

    def digest(self) -> str:
        """Over the names and bytes of all inputs, for the artifact's provenance."""
        hasher = hashlib.sha256()
        for name in sorted(self.inputs):
            hasher.update(f"{name}:{self.inputs[name].dtype}:{self.inputs[name].shape}".encode())
            hasher.update(np.ascontiguousarray(self.inputs[name]).data)
        return f"sha256:{hasher.hexdigest()}"


def load_samples(data: str | Path | Mapping[str, Array], input_names: Sequence[str]) -> SampleSet:
    """Read and check a data set. Raises `DataError` that names the array and what is wrong with it."""
    if isinstance(data, Mapping):
        return _checked(dict(data), input_names, "data")
    path = Path(data)
    if path.is_dir():
        return _from_folder(path, input_names)
    if not path.is_file():
        raise DataError("does not exist", where=str(data))
    try:
        with np.load(path, allow_pickle=False) as archive:
            arrays = {key: archive[key] for key in archive.files}
    except (ValueError, OSError, EOFError, zipfile.BadZipFile, AttributeError, TypeError):
        raise DataError(
            "is not an .npz file of plain arrays",
            where=str(data),
            remedy="write it with numpy.savez(path, x=…)",
        ) from None
    return _checked(arrays, input_names, str(data))


def _from_folder(folder: Path, input_names: Sequence[str]) -> SampleSet:
    description = folder / PREPROCESSING_FILE
    if not description.is_file():
        raise DataError(
            f"a folder of images needs a {PREPROCESSING_FILE}",
            where=str(folder),
            remedy='write {"height": 224, "width": 224, "mean": [127, 127, 127], "std": [128, 128, 128]} '
            "with your model's own values",
        )
    preprocessing = from_json(
        ImagePreprocessing, description.read_bytes(), where=str(description), error=DataError
    )
    classes = tuple(sorted(child.name for child in folder.iterdir() if child.is_dir()))
    files = sorted(f for f in folder.rglob("*") if f.suffix.lower() in IMAGE_SUFFIXES)
    if not files:
        raise DataError(f"holds no image ({', '.join(sorted(IMAGE_SUFFIXES))})", where=str(folder))
    arrays: dict[str, Array] = {"x": np.stack([preprocess(file, preprocessing) for file in files])}
    if classes:
        stray = next((file for file in files if file.parent == folder), None)
        if stray is not None:
            raise DataError(
                "lies beside the class folders", where=str(stray), remedy="move it into its class"
            )
        arrays["y"] = np.array([classes.index(file.relative_to(folder).parts[0]) for file in files])
    samples = _checked(arrays, input_names, str(folder))
    return SampleSet(samples.where, samples.inputs, samples.labels, classes or None, preprocessing)


def _checked(arrays: dict[str, Array], input_names: Sequence[str], where: str) -> SampleSet:
    labels = arrays.pop("y", None) if "y" not in input_names else None
    if len(input_names) == 1 and set(arrays) == {"x"}:
        arrays = {input_names[0]: arrays["x"]}
    if set(arrays) != set(input_names):
        given = ", ".join(sorted(arrays)) or "nothing"
        alias = " (or x)" if len(input_names) == 1 else ""
        raise DataError(f"holds {given}; the model takes {', '.join(input_names)}{alias}", where=where)
    for name, array in arrays.items():
        if array.ndim == 0 or array.dtype.kind not in "fiub":
            raise DataError(f"array '{name}' is {array.dtype}{list(array.shape)}, not samples", where=where)
        if not np.isfinite(array).all():
            bad = int(np.argwhere(~np.isfinite(array.reshape(len(array), -1)).all(axis=1))[0, 0])
            raise DataError(f"array '{name}' has NaN or infinity, first in sample {bad}", where=where)
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) != 1 or 0 in lengths.values():
        shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
        raise DataError(f"the arrays need the same number of samples, at least one ({shown})", where=where)
    if labels is not None:
        count = next(iter(lengths.values()))
        if labels.shape != (count,) or labels.dtype.kind not in "iu":
            problem = f"labels 'y' are {labels.dtype}{list(labels.shape)}; they must be {count} integers"
            raise DataError(problem, where=where)
        if labels.min() < 0:
            raise DataError("labels 'y' must not be negative", where=where)
    return SampleSet(where, {name: np.ascontiguousarray(arrays[name]) for name in input_names}, labels)
