"""`SampleSet`: calibration or evaluation data, checked once at the door and then streamed.

A set is read anew at each iteration, one sample after the other, so that memory does not grow with the data.
"""

from __future__ import annotations

import hashlib
import itertools
import zlib
from array import array as numbers
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.manifest import ImagePreprocessing
from edgewright.errors import DataError
from edgewright_converters.batches import LABELS, Batch, BatchSource, Data, open_batches

Array = NDArray[Any]
WIDEST = float(np.finfo(np.float32).max)
"""Of an input's range: the step of its grid is a part of that, as float32."""


@dataclass(frozen=True)
class Sample:
    """One sample by input name, first axis of 1, and its class index where it is known."""

    inputs: Mapping[str, Array]
    label: int | None = None


@dataclass(frozen=True)
class SampleSet:
    """Checked samples. `for sample in samples` reads them from the start each time.

    `labels` are class indices where known (8 bytes a sample, the one thing held for all). `ranges` are the least
    and greatest value of each float input, per index of axis 1 (the channel or feature).
    """

    where: str
    count: int
    input_names: tuple[str, ...]
    ranges: Mapping[str, tuple[Array, Array]]
    content: str
    labels: Array | None = None
    classes: tuple[str, ...] | None = None
    preprocessing: ImagePreprocessing | None = None
    read: Callable[[], Iterator[Sample]] = field(kw_only=True, repr=False)

    def __iter__(self) -> Iterator[Sample]:
        return self.read()

    @property
    def has_labels(self) -> bool:
        return self.labels is not None

    def head(self, count: int) -> list[Sample]:
        """The first samples, fewer where there are fewer."""
        return list(itertools.islice(self, count))

    def spread(self, wanted: int) -> Iterator[Sample]:
        """`wanted` samples from all over the set, which may be sorted by class; all where there are fewer."""
        taken = 0
        for index, sample in enumerate(self):
            if index * wanted >= taken * self.count and taken < wanted:
                taken += 1
                yield sample

    def digest(self) -> str:
        """Over the names, dtypes, shapes and bytes of all inputs, for the artifact's provenance."""
        return self.content


def load_samples(data: Data, input_names: Sequence[str], optional_names: Sequence[str] = ()) -> SampleSet:
    """Open a data set and check all of it in one pass. Raises `DataError` that says what is wrong and where.

    `optional_names` are inputs that the data may hold and the model does without.
    """
    source = open_batches(data)
    takes = _Takes(tuple(input_names), tuple(optional_names))
    hasher, ranges = hashlib.sha256(), _Ranges()
    labels, checksums = numbers("q"), numbers("I")
    first: Sample | None = None
    for index, sample in enumerate(_samples(source, takes)):
        first = first or sample
        _check_alike(sample, first, index, source.where)
        ranges.add(sample, index, source.where)
        for name, array in sample.inputs.items():
            hasher.update(f"{name}:{array.dtype}:{array.shape}".encode())
            hasher.update(array.data)
        if sample.label is not None:
            labels.append(sample.label)
        if not source.steady:
            checksums.append(_checksum(sample))
    if first is None:
        raise DataError("holds no sample", where=source.where, remedy="give at least one")
    count = index + 1

    def read() -> Iterator[Sample]:
        samples = _samples(source, takes)
        return samples if source.steady else _unchanged(samples, checksums, source.where)

    return SampleSet(
        source.where,
        count,
        tuple(first.inputs),
        ranges.found,
        f"sha256:{hasher.hexdigest()}",
        np.array(labels, np.int64) if first.label is not None else None,
        source.classes,
        source.preprocessing,
        read=read,
    )


def unexercised(samples: SampleSet) -> tuple[str, ...]:
    """What calibration on these samples would leave unmeasured, a line each: channels that hold one value.

    Raises `DataError` where that is so of a whole input: its range would have no width.
    """
    lines = []
    for name, (low, high) in samples.ranges.items():
        if low.min() == high.max():
            raise DataError(
                f"input '{name}' is {low.min():g} throughout all {samples.count} samples",
                where=samples.where,
                remedy="calibrate on data like that in the field",
            )
        dead = np.flatnonzero(low == high).tolist() if samples.count > 1 else []
        if dead:
            shown = ", ".join(map(str, dead[:4])) + (" …" if len(dead) > 4 else "")
            lines.append(
                f"{samples.where}: {len(dead)} of {len(low)} channels of input '{name}' hold one value in all "
                f"samples (axis 1, index {shown}); what they would do to the model is not calibrated"
            )
    return tuple(lines)


@dataclass(frozen=True)
class _Takes:
    """The inputs that a model takes."""

    required: tuple[str, ...]
    optional: tuple[str, ...]

    def __str__(self) -> str:
        alias = " (or x)" if len(self.required) == 1 and self.required != ("x",) else ""
        also = f"{', and optionally ' if self.required else ''}{', '.join(self.optional)}"
        return ", ".join(self.required) + alias + (also if self.optional else "")

    def split(self, batch: Batch, where: str) -> tuple[dict[str, Array], Array | None]:
        """A batch as inputs in the model's order, and labels."""
        known = (*self.required, *self.optional)
        arrays = dict(batch)
        labels = arrays.pop(LABELS, None) if LABELS not in known else None
        if "x" in arrays and "x" not in known and (len(self.required) or len(known)) == 1:
            arrays[known[0]] = arrays.pop("x")
        if not arrays or not set(self.required) <= set(arrays) <= set(known):
            given = ", ".join(sorted(arrays)) or "nothing"
            problem = f"holds {given}, but the model takes {self}"
            raise DataError(problem, where=where, remedy="name the arrays as the model does its inputs")
        return {name: arrays[name] for name in known if name in arrays}, labels


def _samples(source: BatchSource, takes: _Takes) -> Iterator[Sample]:
    """The samples of all batches, one by one; what can be said of a batch as a whole is checked here."""
    done, labelled = 0, None
    for batch in source.batches():
        arrays, labels = takes.split(batch, source.where)
        for name, array in arrays.items():
            if array.ndim == 0 or array.dtype.kind not in "fiub":
                problem = f"array '{name}' is {array.dtype}{list(array.shape)}, not samples"
                remedy = "give floats, integers or booleans, their first axis the samples"
                raise DataError(problem, where=source.where, remedy=remedy)
        lengths = {name: len(array) for name, array in arrays.items()}
        length = next(iter(lengths.values()))
        if set(lengths.values()) != {length}:
            shown = ", ".join(f"{name}: {n}" for name, n in lengths.items())
            problem = f"the arrays need the same number of samples from {done} on ({shown})"
            raise DataError(problem, where=source.where, remedy="give each sample every input")
        if labelled is not None and labelled != (labels is not None):
            problem = f"labels '{LABELS}' are given for some samples alone, unlike before at {done}"
            raise DataError(problem, where=source.where, remedy="label all samples, or none")
        labelled = labels is not None
        if labels is not None:
            _check_labels(labels, length, done, source.where)
        for row in range(length):
            # Copied: a sample that is kept would keep its whole batch.
            inputs = {name: np.array(array[row : row + 1], order="C") for name, array in arrays.items()}
            yield Sample(inputs, None if labels is None else int(labels[row]))
        done += length


def _check_labels(labels: Array, length: int, done: int, where: str) -> None:
    if labels.shape != (length,) or labels.dtype.kind not in "iu":
        problem = f"labels '{LABELS}' are {labels.dtype}{list(labels.shape)}; they must be {length} integers"
        raise DataError(problem, where=where, remedy="give the index of each sample's class")
    if not length:
        return
    for label, row in ((labels.min(), labels.argmin()), (labels.max(), labels.argmax())):
        if not 0 <= label < 1 << 63:
            problem = f"labels '{LABELS}' must be class indices, and {label} at sample {done + row} is none"
            raise DataError(problem, where=where, remedy="leave samples without a class out")


def _check_alike(sample: Sample, first: Sample, index: int, where: str) -> None:
    def shown(of: Sample, name: str) -> str:
        array = of.inputs.get(name)
        return "absent" if array is None else f"{array.dtype}{list(array.shape[1:])}"

    for name in {**first.inputs, **sample.inputs}:
        now, before = shown(sample, name), shown(first, name)
        if now != before:
            problem = f"'{name}' is {now} in sample {index}, but {before} in those before it"
            raise DataError(problem, where=where, remedy="prepare all samples alike")


class _Ranges:
    """Collects the least and greatest values of float inputs, and refuses what is not finite."""

    def __init__(self) -> None:
        self.found: dict[str, tuple[Array, Array]] = {}

    def add(self, sample: Sample, index: int, where: str) -> None:
        for name, array in sample.inputs.items():
            if array.size == 0:
                remedy = "leave such samples out"
                raise DataError(f"'{name}' is empty in sample {index}", where=where, remedy=remedy)
            if array.dtype.kind != "f":
                continue
            channels = array.reshape(array.shape[1] if array.ndim > 1 else 1, -1)
            # A NaN wins every minimum and maximum, so that these tell all that is not finite.
            low, high = channels.min(axis=1), channels.max(axis=1)
            if not (np.isfinite(low).all() and np.isfinite(high).all()):
                problem = f"array '{name}' has NaN or infinity, first in sample {index}"
                raise DataError(problem, where=where, remedy="leave such samples out, or mend them")
            before = self.found.get(name, (low, high))
            low, high = np.minimum(before[0], low), np.maximum(before[1], high)
            if float(high.max()) - float(low.min()) > WIDEST:
                shown = f"from {low.min():.3g} to {high.max():.3g}"
                problem = f"array '{name}' reaches {shown} by sample {index}, wider than float32 can tell"
                raise DataError(problem, where=where, remedy="leave outliers out, or scale the data")
            self.found[name] = low, high


def _checksum(sample: Sample) -> int:
    checksum = 0 if sample.label is None else sample.label + 1
    for array in sample.inputs.values():
        checksum = zlib.crc32(array.data, checksum & 0xFFFFFFFF)
    return checksum & 0xFFFFFFFF


def _unchanged(samples: Iterator[Sample], checksums: Sequence[int], where: str) -> Iterator[Sample]:
    """The samples, as long as they are those of the first pass: figures are compared between passes."""
    remedy = "do not shuffle, seed what is random, and start from the same sample at each call"
    index = -1
    for index, sample in enumerate(samples):
        if index >= len(checksums) or _checksum(sample) != checksums[index]:
            problem = f"gives other samples when it is read again, from sample {index} on"
            raise DataError(problem, where=where, remedy=remedy)
        yield sample
    if index + 1 != len(checksums):
        problem = f"gives {index + 1} samples when it is read again, {len(checksums)} before"
        raise DataError(problem, where=where, remedy=remedy)
