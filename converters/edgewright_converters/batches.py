"""`BatchSource`: where samples come from, whatever form the user gave them in.

Arrays in memory, an `.npz` or `.npy`, a folder of images, a function: each gives batches, which are arrays by name
whose first axis is the samples, and `y` the labels. What the batches hold is checked in `calibration`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright.artifact.manifest import ImagePreprocessing
from edgewright.contract import from_json
from edgewright.durable_file import check_readable
from edgewright.errors import DataError
from edgewright.preprocessing import IMAGE_SUFFIXES, preprocess
from edgewright_converters.array_file import array_batches
from edgewright_converters.entry_point import is_entry_point, load_entry_point, one_line, users_code

Array = NDArray[Any]
Batch: TypeAlias = Mapping[str, Array]
Data: TypeAlias = "str | Path | Mapping[str, Any] | Iterable[Any] | Callable[[], Iterable[Any]]"
"""A path, `module:function`, arrays by input name, a function that gives batches, or a loader of them."""
PREPROCESSING_FILE = "preprocessing.json"
LABELS = "y"
_END = object()


@dataclass(frozen=True)
class BatchSource:
    """`batches` starts anew at each call. `steady` is False where a call might give other samples than before."""

    where: str
    batches: Callable[[], Iterator[Batch]]
    steady: bool = True
    classes: tuple[str, ...] | None = None
    preprocessing: ImagePreprocessing | None = None


def open_batches(data: Data) -> BatchSource:
    """Find out what form the data has; nothing but its outside is read. Raises `DataError`."""
    if isinstance(data, (Mapping, np.ndarray, torch.Tensor, tuple)):
        return BatchSource("data", lambda: iter([_arrays(data, "data")]))
    if not isinstance(data, (str, Path)):
        where = getattr(data, "__qualname__", type(data).__name__)
        return BatchSource(where, _yielded(data, where), steady=False)
    path = Path(data)
    if path.is_dir():
        return _image_folder(path)
    if path.is_file():
        check_readable(path)
        return BatchSource(str(data), lambda: array_batches(path))
    if is_entry_point(str(data)):
        function = load_entry_point(str(data), DataError)
        return BatchSource(str(data), _yielded(function, str(data)), steady=False)
    raise DataError(
        "is neither a file nor a folder" if path.exists() else "does not exist",
        where=str(data),
        remedy="give an .npz, an .npy, a folder of images, or module:function that yields batches",
    )


def _image_folder(folder: Path) -> BatchSource:
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
    classes = tuple(sorted(c.name for c in folder.iterdir() if c.is_dir() and not c.name.startswith(".")))
    files = sorted(
        found
        for found in folder.rglob("*")
        if found.suffix.lower() in IMAGE_SUFFIXES
        # What systems and editors put beside pictures: ._1.jpg, .ipynb_checkpoints/.
        and not any(part.startswith(".") for part in found.relative_to(folder).parts)
    )
    if not files:
        kinds = ", ".join(sorted(IMAGE_SUFFIXES))
        raise DataError("holds no image", where=str(folder), remedy=f"put some in it ({kinds})")
    stray = next((file for file in files if file.parent == folder), None)
    if classes and stray is not None:
        raise DataError("lies beside the class folders", where=str(stray), remedy="move it into its class")

    def batches() -> Iterator[Batch]:
        for file in files:
            image = {"x": preprocess(file, preprocessing)[np.newaxis]}
            if classes:
                image[LABELS] = np.array([classes.index(file.relative_to(folder).parts[0])])
            yield image

    return BatchSource(str(folder), batches, classes=classes or None, preprocessing=preprocessing)


def _yielded(data: Iterable[Any] | Callable[[], Iterable[Any]], where: str) -> Callable[[], Iterator[Batch]]:
    """The batches of a function or loader. What is iterated once only, as a generator, is made anew each time."""

    def made() -> Iterable[Any]:
        with users_code("fails", where, DataError):
            found = data() if callable(data) else data
            iterator = iter(found)
        if iterator is found and not callable(data):
            raise DataError(
                "can be read only once", where=where, remedy="give the function that makes it, not its result"
            )
        return found

    kept: list[Iterable[Any]] = []

    def batches() -> Iterator[Batch]:
        found = kept[0] if kept else made()
        iterator = iter(found)
        if iterator is not found and not kept:
            kept.append(found)
        number = 0
        while True:
            with users_code(f"fails at batch {number}", where, DataError):
                batch = next(iterator, _END)
            if batch is _END:
                return
            yield _arrays(batch, f"{where}, batch {number}")
            number += 1

    return batches


def _arrays(batch: Any, where: str) -> Batch:
    """A batch in any form that loaders use: a dict, (inputs, labels), or the one input alone."""
    if isinstance(batch, (tuple, list)) and len(batch) == 2:
        inputs, labels = batch
        named = dict(inputs) if isinstance(inputs, Mapping) else {"x": inputs}
        named[LABELS] = labels
    elif isinstance(batch, Mapping):
        named = dict(batch)
    elif isinstance(batch, (np.ndarray, torch.Tensor)):
        named = {"x": batch}
    else:
        raise DataError(
            f"is {type(batch).__name__}",
            where=where,
            remedy="give an array, a dict of arrays by input name, or (inputs, labels)",
        )
    arrays = {}
    for name, value in named.items():
        try:
            array = value.detach().cpu().numpy() if torch.is_tensor(value) else np.asarray(value)
        except Exception as error:  # noqa: BLE001 - torch has its own for layouts, devices and dtypes
            raise DataError(
                f"'{name}' is no array ({one_line(error)})",
                where=where,
                remedy="give numpy arrays of numbers",
            ) from None
        arrays[str(name)] = array if array.dtype.isnative else array.astype(array.dtype.newbyteorder("="))
    return arrays
