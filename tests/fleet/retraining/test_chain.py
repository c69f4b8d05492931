"""The record of a retraining: only added to, and no link changes without a trace."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright.errors import DataError
from edgewright_fleet.retraining.chain import Chain, digest_of_link

START = datetime(2026, 1, 1, tzinfo=timezone.utc)


def chain_of(path: Path, links: int) -> Chain:
    chain = Chain(path)
    for number in range(links):
        chain.add("data", f"step {number}", {"samples": number}, START + timedelta(hours=number))
    return chain


def test_links_are_there_at_the_next_opening_and_follow_from_each_other(tmp_path: Path) -> None:
    written = chain_of(tmp_path / "run" / "chain.jsonl", 3)
    read = Chain(tmp_path / "run" / "chain.jsonl")
    assert read.links == written.links
    assert read.head == written.head
    assert [link.before for link in read.links] == [None, *map(digest_of_link, read.links[:-1])]
    assert Chain(tmp_path / "none.jsonl").head is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_a_change_anywhere_is_found(tmp_path: Path, data: st.DataObject) -> None:
    path = tmp_path / "chain.jsonl"
    path.unlink(missing_ok=True)
    chain_of(path, 3)
    text = bytearray(path.read_bytes())
    last_line = text[:-1].rindex(b"\n") + 1
    place = data.draw(st.integers(0, last_line - 1))
    text[place] ^= data.draw(st.integers(1, 255))
    path.write_bytes(text)
    with pytest.raises(DataError, match=r"chain\.jsonl, line [123]"):
        Chain(path)


def test_a_link_left_out_is_found(tmp_path: Path) -> None:
    path = tmp_path / "chain.jsonl"
    chain_of(path, 3)
    lines = path.read_bytes().splitlines(keepends=True)
    path.write_bytes(lines[0] + lines[2])
    with pytest.raises(DataError, match="line 2: does not follow"):
        Chain(path)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.integers(0, 10_000))
def test_a_line_broken_off_by_a_power_cut_is_replaced_by_the_next_link(tmp_path: Path, cut: int) -> None:
    path = tmp_path / "chain.jsonl"
    path.unlink(missing_ok=True)
    chain_of(path, 2)
    first = len(path.read_bytes().splitlines(keepends=True)[0])
    length = first + cut % (path.stat().st_size - first)
    path.write_bytes(path.read_bytes()[:length])
    chain = Chain(path)
    assert len(chain.links) == 1
    assert path.stat().st_size == length, "reading changed the file"
    chain.add("training", "again", {}, START)
    assert [link.says for link in Chain(path).links] == ["step 0", "again"]
