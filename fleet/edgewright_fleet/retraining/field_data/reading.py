"""Reading a data set for training and evaluation, one sample at a time, each checked against its digest.

Inputs come as the source model takes them: float32, its axis order, what a policy cut away as nought.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.layout import digest_of, digest_of_file
from edgewright.contract import from_json
from edgewright.durable_file import durable_writer, storage_error
from edgewright.errors import DataError
from edgewright.field_sample import unpack
from edgewright.privacy import restored
from edgewright.runtime.quantised_io import real_output
from edgewright_fleet.retraining.field_data.collect import sample_path
from edgewright_fleet.retraining.field_data.data_set import (
    ENTRIES,
    MANIFEST,
    DataSetEntry,
    DataSetManifest,
    Part,
)

Array = NDArray[Any]
LABELS = "y"
"""The array of labels in a file that the converters take."""


@dataclass(frozen=True)
class LabelledInput:
    """One sample as a model is trained on it."""

    inputs: Mapping[str, Array]
    """By the source model's names, without a batch axis."""
    label: int
    weight: float
    """How many inferences it stands for: the inverse of the probability that it was kept with."""
    entry: DataSetEntry


@dataclass(frozen=True)
class DataSet:
    """A data set in a folder. Reading goes through it from the start each time."""

    folder: Path
    manifest: DataSetManifest
    digest: str
    """Of the manifest, which covers all."""

    def entries(self, part: Part | None = None) -> Iterator[DataSetEntry]:
        """The samples of a part, or of all, by their lineage. Raises `DataError`."""
        path = self.folder / ENTRIES
        try:
            with path.open("rb") as file:
                for number, line in enumerate(file, start=1):
                    entry = from_json(DataSetEntry, line, where=f"{path}, row {number}", error=DataError)
                    if part is None or entry.part == part:
                        yield entry
        except OSError as error:
            raise storage_error(error, path) from None

    def read(self, part: Part) -> Iterator[LabelledInput]:
        """The samples of a part, each read when it is asked for. Raises `DataError` where one is damaged."""
        return (self.sample(entry) for entry in self.entries(part))

    def sample(self, entry: DataSetEntry) -> LabelledInput:
        """One sample. Raises `DataError` where it is damaged or gone."""
        path = sample_path(self.folder, entry.digest)
        try:
            data = path.read_bytes()
        except OSError as error:
            raise storage_error(error, path) from None
        if digest_of(data) != entry.digest:
            raise DataError("is damaged: its digest is another than its name's", where=str(path))
        sample, arrays = unpack(data, str(path))
        inputs = {
            tensor.spec.name: _real(restored(sample.policy, array, tensor.spec), tensor.spec)
            for tensor, array in zip(sample.tensors, arrays, strict=True)
        }
        return LabelledInput(inputs, entry.label, 1 / entry.inclusion_probability, entry)

    def batches(self, part: Part, size: int) -> Iterator[dict[str, Array]]:
        """Batches as the converters take them: arrays by input name, and the labels as `y`."""
        batch: list[LabelledInput] = []
        for sample in self.read(part):
            batch.append(sample)
            if len(batch) == size:
                yield _stacked(batch)
                batch = []
        if batch:
            yield _stacked(batch)

    def indexed(self, part: Part) -> IndexedPart:
        """A part by number, for loaders that shuffle, such as PyTorch's: some 200 bytes a sample in memory."""
        return IndexedPart(self, part)

    def write_npz(self, part: Part, path: Path) -> int:
        """A part as an `.npz` for `edgewright convert --calibration` or `--evaluation`; how many samples it holds.

        Written sample by sample. Raises `DataError` for a part without samples, `StorageError`.
        """
        count = self.manifest.counts.get(part, 0)
        if not count:
            raise DataError(f"has no sample in its part '{part}'", where=str(self.folder))
        with durable_writer(path) as file, zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
            for spec in self.manifest.inputs:
                shape = (count, *_without_batch(spec.shape))
                _write_array(
                    archive, spec.name, shape, "<f4", (sample.inputs[spec.name] for sample in self.read(part))
                )
            labels = (np.array(entry.label, np.int64) for entry in self.entries(part))
            _write_array(archive, LABELS, (count,), "<i8", labels)
        return count


@dataclass(frozen=True)
class IndexedPart:
    """A part of a data set as a sequence."""

    data_set: DataSet
    part: Part

    @cached_property
    def _lines(self) -> list[bytes]:
        return [entry.model_dump_json().encode() for entry in self.data_set.entries(self.part)]

    def __len__(self) -> int:
        return len(self._lines)

    def __getitem__(self, index: int) -> LabelledInput:
        entry = from_json(DataSetEntry, self._lines[index], where=str(self.data_set.folder), error=DataError)
        return self.data_set.sample(entry)


def open_data_set(folder: Path) -> DataSet:
    """A data set, its entries checked against the manifest. Raises `DataError`, `StorageError`."""
    path = folder / MANIFEST
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        remedy = "make one with 'edgewright fleet samples collect'"
        raise DataError("is no data set: it has no manifest.json", where=str(folder), remedy=remedy) from None
    except OSError as error:
        raise storage_error(error, path) from None
    manifest = from_json(DataSetManifest, data, where=str(path), error=DataError)
    if digest_of_file(folder / ENTRIES) != manifest.entries_digest:
        raise DataError("is damaged: its digest is another than the manifest's", where=str(folder / ENTRIES))
    return DataSet(folder, manifest, digest_of(data))


def _real(raw: Array, spec: Any) -> Array:
    real = np.ascontiguousarray(real_output(raw, spec), np.float32)
    return real[0] if len(real.shape) > 1 and real.shape[0] == 1 else real


def _without_batch(shape: tuple[int, ...]) -> tuple[int, ...]:
    """An axis of one before others is the batch, which a data set counts its samples by."""
    return shape[1:] if len(shape) > 1 and shape[0] == 1 else shape


def _stacked(batch: list[LabelledInput]) -> dict[str, Array]:
    names = batch[0].inputs
    arrays = {name: np.stack([sample.inputs[name] for sample in batch]) for name in names}
    return arrays | {LABELS: np.array([sample.label for sample in batch], np.int64)}


def _write_array(
    archive: zipfile.ZipFile, name: str, shape: tuple[int, ...], descr: str, rows: Iterator[Array]
) -> None:
    header = {"descr": descr, "fortran_order": False, "shape": shape}
    with archive.open(f"{name}.npy", "w", force_zip64=True) as file:
        np.lib.format.write_array_header_2_0(file, header)
        for row in rows:
            file.write(row.astype(descr, copy=False).tobytes())
