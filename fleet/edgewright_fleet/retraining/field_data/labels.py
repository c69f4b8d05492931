"""Labels of samples, from a file: CSV with a first row `digest,label[,labeller,time]`, or JSON lines of the same.

A label is the name or the index of a class. What cannot be meant is refused in one line with the file and the row:
two labels of one sample, a class that the model does not have, a sample that is not there.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import BaseModel, Field, field_validator

from edgewright.artifact.manifest import Digest
from edgewright.contract import CONTRACT, from_mapping
from edgewright.durable_file import storage_error
from edgewright.errors import DataError

COLUMNS = ("digest", "label", "labeller", "time")


class LabelRow(BaseModel):
    """One row of a file of labels."""

    model_config = CONTRACT
    digest: Digest = Field(description="of the sample")
    label: str = Field(min_length=1, description="name of a class, or its index")
    labeller: str | None = Field(default=None, description="who says so")
    time: str | None = Field(default=None, description="when; anything that sorts")

    @field_validator("digest", mode="before")
    @classmethod
    def _may_be_bare(cls, digest: Any) -> Any:
        return f"sha256:{digest}" if isinstance(digest, str) and len(digest) == 64 else digest

    @field_validator("label", mode="before")
    @classmethod
    def _may_be_an_index(cls, label: Any) -> Any:
        return str(label) if isinstance(label, int) and not isinstance(label, bool) else label


@dataclass(frozen=True)
class Label:
    """What somebody says that a sample shows."""

    row: LabelRow
    where: str
    """File and row."""


def read_labels(path: Path) -> dict[str, Label]:
    """Labels by sample digest. Raises `DataError` for a row that is wrong, and for two that contradict."""
    found: dict[str, Label] = {}
    for number, document in _rows(path):
        where = f"{path}, row {number}"
        row = from_mapping(LabelRow, document, where=where, error=DataError)
        before = found.setdefault(row.digest, Label(row, where))
        if before.row.label != row.label:
            raise DataError(
                f"labels {_short(row.digest)} as '{row.label}', {before.where.rpartition(', ')[2]} as "
                f"'{before.row.label}'",
                where=where,
                remedy="keep the one that is right",
            )
    return found


def class_index(label: Label, classes: int | None, names: Sequence[str] | None) -> int:
    """The index of a label's class; `classes` is how many the model has. Raises `DataError`."""
    text = label.row.label
    if names is not None and text in names:
        return names.index(text)
    count = len(names) if names is not None else classes
    if not text.isascii() or not text.isdigit():
        what = (
            "has no class of that name"
            if names is not None
            else "is known by the number of its classes alone"
        )
        remedy = (
            "give the index of a class"
            if names is not None
            else "name a release that has names, with --model"
        )
        raise DataError(f"label '{text}': the model {what}", where=label.where, remedy=remedy)
    if count is None or int(text) >= count:
        problem = (
            f"the model tells {count} classes apart" if count is not None else "the model is no classifier"
        )
        raise DataError(f"label '{text}': {problem}", where=label.where)
    return int(text)


def check_known(labels: Mapping[str, Label], known: set[str]) -> None:
    """Raise `DataError` for the first label of a sample that the store does not have."""
    for digest, label in labels.items():
        if digest not in known:
            raise DataError(
                f"there is no sample {_short(digest)} in the store",
                where=label.where,
                remedy="see 'edgewright fleet samples list --each', or remove the row",
            )


def _rows(path: Path) -> Iterator[tuple[int, dict[str, Any]]]:
    """Rows by number, counted from 1 as editors do."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            if path.suffix.lower() in (".jsonl", ".ndjson"):
                for number, line in enumerate(file, start=1):
                    if line.strip():
                        yield number, _document(line, f"{path}, row {number}")
                return
            reader = csv.reader(file, strict=True)
            head = [name.strip() for name in next(reader, [])]
            if head[:2] != ["digest", "label"] or set(head) - set(COLUMNS) or len(set(head)) < len(head):
                raise DataError(
                    "the first row must name the columns digest,label[,labeller,time]", where=f"{path}, row 1"
                )
            for row in reader:
                if len(row) > len(head):
                    raise DataError(f"has {len(row)} columns", where=f"{path}, row {reader.line_num}")
                if row:
                    cells = {name: cell.strip() for name, cell in zip(head, row, strict=False)}
                    yield reader.line_num, {name: cell for name, cell in cells.items() if cell}
    except FileNotFoundError:
        raise DataError("does not exist", where=str(path)) from None
    except OSError as error:
        raise storage_error(error, path) from None
    except (UnicodeDecodeError, csv.Error) as error:
        raise DataError(f"is not the UTF-8 text that its name promises ({error})", where=str(path)) from None


def _document(line: str, where: str) -> dict[str, Any]:
    try:
        document = json.loads(line)
    except (ValueError, RecursionError):
        document = None
    if not isinstance(document, dict):
        raise DataError("is no JSON object", where=where)
    return document


def _short(digest: str) -> str:
    return digest.removeprefix("sha256:")[:12]
