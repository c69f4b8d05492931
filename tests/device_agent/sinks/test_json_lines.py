from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright_agent.sinks.json_lines import JsonLines
from edgewright_agent.sinks.sink_error import SinkError


def line(number: int) -> bytes:
    return json.dumps({"n": number, "text": "ü" * 20}, ensure_ascii=False).encode()


def numbers(path: Path) -> list[int]:
    return [json.loads(each)["n"] for each in path.read_text(encoding="utf-8").splitlines()]


def test_lines_are_bounded_and_the_newest_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "new" / "folder" / "p.jsonl"
    sink = JsonLines(path, max_bytes=4096, keep=2)
    for i in range(1000):
        sink.put(line(i))
    sink.close()
    files = sorted(path.parent.iterdir())
    assert [file.name for file in files] == ["p.jsonl", "p.jsonl.1", "p.jsonl.2"]
    assert all(file.stat().st_size <= 4096 for file in files)
    kept = [n for file in reversed(files) for n in numbers(file)]
    assert kept == list(range(kept[0], 1000))
    assert len(kept) > 100


def test_a_restart_appends(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    for i in range(3):
        sink = JsonLines(path, max_bytes=4096, keep=1)
        sink.put(line(i))
        sink.close()
    assert numbers(path) == [0, 1, 2]


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=30, deadline=None)
@given(st.integers(1, len(line(1))))
def test_half_a_line_that_a_power_cut_left_spoils_no_other(tmp_path: Path, length: int) -> None:
    path = tmp_path / "p.jsonl"
    path.write_bytes(line(0) + b"\n" + line(1)[:length])
    sink = JsonLines(path, max_bytes=1 << 20, keep=1)
    sink.put(line(2))
    sink.close()
    lines = path.read_bytes().splitlines()
    assert (lines[0], lines[-1], len(lines)) == (line(0), line(2), 3)


def test_a_full_disk_is_an_error_and_the_next_line_is_tried_again(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.symlink_to("/dev/full")
    sink = JsonLines(path, max_bytes=4096, keep=1)
    for _ in range(3):
        with pytest.raises(SinkError, match="the disk is full"):
            sink.put(line(1))
    path.unlink()
    sink.put(line(2))
    assert numbers(path) == [2]
    sink.close()
