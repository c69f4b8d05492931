"""Reads `.npz` and `.npy` files some rows at a time, so that memory does not grow with the file.

Rows are read through the zip member rather than mapped: it serves compressed files alike, and mapped pages count
as the process's memory. One exception: an array stored in Fortran order has no rows in sequence and is read whole.
"""

from __future__ import annotations

import contextlib
import zipfile
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from edgewright.errors import DataError
from edgewright_converters.entry_point import one_line

Array = NDArray[Any]
STEP_BYTES = 1 << 20
"""What is read at once: well above the cost of a read, far below what a device would notice."""
_TORN = (
    ValueError,
    OSError,
    EOFError,
    MemoryError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)


def array_batches(path: Path) -> Iterator[dict[str, Array]]:
    """Batches of rows of every array by name, in step; the one array of an `.npy` is `x`.

    Raises `DataError` for a file that is torn, holds anything but plain arrays, or arrays of unequal length.
    """
    with contextlib.ExitStack() as stack:
        try:
            arrays = [_open(name, stream) for name, stream in _streams(path, stack)]
        except _TORN as error:
            raise DataError(
                f"is not an .npz or .npy file of plain arrays ({one_line(error)})",
                where=str(path),
                remedy="write it with numpy.savez(path, x=…)",
            ) from None
        for array in arrays:
            if not array.shape:
                raise DataError(
                    f"array '{array.name}' is a single value, not samples",
                    where=str(path),
                    remedy="give its first axis to the samples",
                )
        lengths = {array.name: array.shape[0] for array in arrays}
        if len(set(lengths.values())) > 1:
            shown = ", ".join(f"{name}: {length}" for name, length in lengths.items())
            raise DataError(
                f"the arrays need the same number of samples ({shown})",
                where=str(path),
                remedy="give each sample every array",
            )
        length = arrays[0].shape[0] if arrays else 0
        rows = max(1, STEP_BYTES // max(1, sum(array.row_bytes for array in arrays)))
        for start in range(0, max(length, 1), rows):
            count = min(rows, length - start)
            try:
                batch = {array.name: array.read(start, count) for array in arrays}
            except _TORN as error:
                problem = f"is torn at sample {start} or after ({error})"
                raise DataError(problem, where=str(path), remedy="copy or write it again") from None
            yield batch


@dataclass(frozen=True)
class _StoredArray:
    """An array whose header has been read; `whole` is set where it could not be read by rows."""

    name: str
    stream: IO[bytes]
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    whole: Array | None = None

    @property
    def row_bytes(self) -> int:
        return int(np.prod(self.shape[1:], dtype=np.int64)) * self.dtype.itemsize

    def read(self, start: int, count: int) -> Array:
        """The next `count` rows, in this machine's byte order."""
        if self.whole is not None:
            return self.whole[start : start + count]
        rows = np.empty((count, *self.shape[1:]), self.dtype)
        rest = rows.reshape(-1).view(np.uint8).data
        while rest:
            read = self.stream.readinto(rest)  # type: ignore[attr-defined]
            if not read:
                raise EOFError("it ends early")
            rest = rest[read:]
        return rows.astype(self.dtype.newbyteorder("="), copy=False)


def _streams(path: Path, stack: contextlib.ExitStack) -> Iterator[tuple[str, IO[bytes]]]:
    if not zipfile.is_zipfile(path):
        yield "x", stack.enter_context(path.open("rb"))
        return
    archive = stack.enter_context(zipfile.ZipFile(path))
    for member in archive.namelist():
        yield member.removesuffix(".npy"), stack.enter_context(archive.open(member))


def _open(name: str, stream: IO[bytes]) -> _StoredArray:
    version = np.lib.format.read_magic(stream)
    # Version 3.0 differs from 2.0 in the field names of structured arrays alone, which are no samples.
    if version == (1, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, fortran, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError(f"version {version}")
    if dtype.hasobject:
        raise ValueError("holds Python objects")
    if not fortran or len(shape) < 2:
        return _StoredArray(name, stream, shape, dtype)
    try:
        columns = _StoredArray(name, stream, shape[::-1], dtype).read(0, shape[-1])
    except MemoryError:
        raise ValueError(f"array '{name}' in Fortran order takes more memory than there is") from None
    return _StoredArray(name, stream, shape, dtype, whole=columns.T)
