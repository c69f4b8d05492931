from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.errors import DataError, StorageError
from edgewright_fleet.retraining.field_data.labels import (
    Label,
    LabelRow,
    check_known,
    class_index,
    read_labels,
)

A, B = f"sha256:{'a' * 64}", f"sha256:{'b' * 64}"


def written(folder: Path, text: str, name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text(text, encoding="utf-8")
    return path


def test_both_forms_say_the_same(tmp_path: Path) -> None:
    table = written(tmp_path, f"digest,label,labeller,time\n{A},cat,anna,2026\n\n{B[7:]}, 2\n")
    lines = written(
        tmp_path,
        json.dumps({"digest": A, "label": "cat", "labeller": "anna", "time": "2026"})
        + "\n\n"
        + json.dumps({"digest": B[7:], "label": 2})
        + "\n",
        "labels.jsonl",
    )
    for path in (table, lines):
        found = read_labels(path)
        assert found[A].row == LabelRow(digest=A, label="cat", labeller="anna", time="2026")
        assert found[B].row == LabelRow(digest=B, label="2")
        assert found[B].where == f"{path}, row 4" if path is table else f"{path}, row 3"


@pytest.mark.parametrize(
    ("text", "match"),
    [
        ("", r"row 1: the first row must name"),
        (f"{A},cat\n", r"row 1: the first row must name"),
        ("digest,label,colour\n", r"row 1: the first row must name"),
        (f"digest,label\n{A}\n", r"row 2: label"),
        (f"digest,label\n{A},\n", r"row 2: label"),
        (f"digest,label\n{A},cat\nabc,dog\n", r"row 3: digest"),
        (f"digest,label\n{A},cat,anna\n", r"row 2: has 3 columns"),
        (f"digest,label\n{A},cat\n{B},dog\n{A},dog\n", r"row 4: labels a{12} as 'dog', row 2 as 'cat'"),
        (f'digest,label\n{A},"cat\n', r"is not the UTF-8 text"),
    ],
)
def test_a_row_that_is_wrong_is_one_line_with_file_and_row(text: str, match: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=match) as caught:
        read_labels(written(tmp_path, text))
    assert "labels.csv" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("text", ["[1]", "{", '{"digest": 1, "label": 1}', "[" * 5000, '{"label": "x"}'])
def test_a_line_that_is_wrong_is_one_line_too(text: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"labels.jsonl, row 2") as caught:
        read_labels(
            written(tmp_path, json.dumps({"digest": A, "label": "x"}) + f"\n{text}\n", "labels.jsonl")
        )
    assert "\n" not in str(caught.value)


def test_the_same_label_twice_is_no_contradiction(tmp_path: Path) -> None:
    assert len(read_labels(written(tmp_path, f"digest,label\n{A},cat\n{A},cat\n"))) == 1


def test_a_file_that_is_not_there_or_a_folder_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        read_labels(tmp_path / "labels.csv")
    with pytest.raises(StorageError, match="is a folder"):
        read_labels(tmp_path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.binary(max_size=200), name=st.sampled_from(["labels.csv", "labels.jsonl"]))
def test_any_file_is_labels_or_one_line_of_an_error(data: bytes, name: str, tmp_path: Path) -> None:
    path = tmp_path / name
    path.write_bytes(data)
    try:
        read_labels(path)
    except DataError as error:
        assert "\n" not in str(error)


def label(text: str) -> Label:
    return Label(LabelRow(digest=A, label=text), "labels.csv, row 7")


def test_a_label_is_the_name_or_the_index_of_a_class() -> None:
    names = ("cat", "dog", "1")
    assert [class_index(label(text), 3, names) for text in ("dog", "0", "1")] == [1, 0, 2]
    assert class_index(label("2"), 3, None) == 2


@pytest.mark.parametrize(
    ("text", "classes", "names", "match"),
    [
        ("cow", 3, ("cat", "dog", "fox"), "no class of that name"),
        ("3", 3, ("cat", "dog", "fox"), "tells 3 classes apart"),
        ("3", 3, None, "tells 3 classes apart"),
        ("-1", 3, None, "by the number of its classes alone"),
        ("cat", 3, None, "with --model"),
        ("0", None, None, "no classifier"),
        ("²", 3, None, "by the number"),
    ],
)
def test_a_class_that_the_model_does_not_have_is_refused_with_the_row(
    text: str, classes: int | None, names: tuple[str, ...] | None, match: str
) -> None:
    with pytest.raises(DataError, match=match) as caught:
        class_index(label(text), classes, names)
    assert str(caught.value).startswith("labels.csv, row 7: ")


def test_a_sample_that_is_not_in_the_store_is_refused_with_the_row() -> None:
    check_known({A: label("cat")}, {A, B})
    with pytest.raises(DataError, match=r"labels.csv, row 7: there is no sample a{12} in the store"):
        check_known({A: label("cat")}, {B})
