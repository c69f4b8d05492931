from __future__ import annotations

import io

from rich.console import Console

from edgewright_cli.output import fitting

COLUMNS = ("profile", "change, points", "predicted INT8 on profile")
ROWS = [("raspberry-pi-5", "-0.10 (-0.25 to +0.05)", "14 ms"), ("android-flagship", "not measured", "3.1 ms")]


def printed(width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    console.print(fitting(console, COLUMNS, ROWS, None))
    assert isinstance(console.file, io.StringIO)
    return [line.rstrip() for line in console.file.getvalue().splitlines()]


def test_table_keeps_its_shape_as_long_as_no_word_is_cut() -> None:
    assert any("profile" in line and "change, points" in line for line in printed(100))
    narrow = printed(54)
    assert "…" not in "".join(narrow) and any("raspberry" in line and "-0.10" in line for line in narrow)


def test_table_that_does_not_fit_becomes_lines_of_name_and_value() -> None:
    lines = printed(40)
    assert "…" not in "".join(lines)
    first, second = (line for line in lines if line.startswith("change, points"))
    assert "-0.10" in first and second.endswith("not measured")
    assert "" in lines[1:-1]  # between one row and the next
