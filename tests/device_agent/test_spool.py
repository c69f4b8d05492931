"""The spool on real files: nothing lost, whatever the process or the disk does."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from edgewright_agent.spool import BLOCK, MAX_IN_MEMORY, Spool

ROOM = 8 * BLOCK


def taken(spool: Spool) -> list[bytes]:
    found = []
    while record := spool.take():
        found.append(record[1])
    return found


def test_records_come_oldest_first_and_stay_until_acknowledged(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", ROOM)
    for payload in (b"one", b"two", b"three"):
        spool.append(payload)
    first, second = spool.take(), spool.take()
    assert first is not None and second is not None
    assert (first[1], second[1]) == (b"one", b"two")
    spool.acknowledge(first[0])
    spool.acknowledge(first[0])
    spool.acknowledge(999)
    spool.put_back(second[0])
    assert taken(spool) == [b"two", b"three"]
    assert taken(Spool(tmp_path / "spool", ROOM)) == [b"two", b"three"]


def test_a_full_spool_drops_the_oldest_and_counts_them_over_a_restart(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for number in range(11):
        spool.append(str(number).encode())
    assert (spool.dropped, len(spool)) == (3, 8)
    again = Spool(tmp_path, ROOM)
    assert again.dropped == 3
    assert taken(again) == [str(number).encode() for number in range(3, 11)]


def test_a_full_spool_keeps_what_is_with_the_broker_and_drops_what_waits(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    for number in range(8):
        spool.append(str(number).encode())
    sent = spool.take()
    assert sent is not None
    spool.append(b"8")
    spool.acknowledge(sent[0])
    assert spool.dropped == 1
    assert taken(spool) == [b"2", b"3", b"4", b"5", b"6", b"7", b"8"]


def test_a_record_larger_than_the_spool_costs_itself_alone(tmp_path: Path) -> None:
    spool = Spool(tmp_path, ROOM)
    spool.append(b"small")
    spool.append(bytes(ROOM + 1))
    assert (spool.dropped, taken(spool)) == (1, [b"small"])


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone", "folder"])
def test_a_damaged_record_is_set_aside_in_one_line_and_the_others_are_sent(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(tmp_path, ROOM)
    for payload in (b"one", b"two", b"three"):
        spool.append(payload)
    victim = sorted(tmp_path.iterdir())[1]
    match damage:
        case "flip":
            victim.write_bytes(b"tvo")
        case "cut":
            victim.write_bytes(b"tw")
        case "empty":
            victim.write_bytes(b"")
        case "gone":
            victim.unlink()
        case "folder":
            victim.unlink()
            victim.mkdir()
    again = spool if damage == "gone" else Spool(tmp_path, ROOM)
    assert taken(again) == [b"one", b"three"]
    assert again.dropped == 1
    assert len(caplog.records) == 1
    assert "\n" not in caplog.text.rstrip("\n")
    assert (tmp_path / "damaged").exists() == (damage in ("flip", "cut", "empty"))


def test_what_is_not_the_spools_is_left_alone_and_half_written_files_go(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    (tmp_path / ".000000000000-0000000000-00000000.x.partial").write_text("half")
    spool = Spool(tmp_path, ROOM)
    assert taken(spool) == []
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]


def test_a_spool_that_cannot_be_a_folder_keeps_records_in_memory(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "spool").write_text("a file")
    spool = Spool(tmp_path / "spool", ROOM)
    for number in range(MAX_IN_MEMORY + 5):
        spool.append(str(number).encode())
    assert spool.dropped == 5
    assert taken(spool)[0] == b"5"
    assert len(caplog.records) == 2  # at the start, and once for all the writing


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    if os.geteuid() != 0:
        pytest.skip("mounting a small file system needs root")
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=256k", "none", str(disk)], check=False)
    if mounted.returncode:
        pytest.skip("this machine lets nobody mount a tmpfs")
    yield disk
    subprocess.run(["umount", str(disk)], check=True)


def test_a_full_disk_loses_nothing_that_memory_holds(
    small_disk: Path, caplog: pytest.LogCaptureFixture
) -> None:
    spool = Spool(small_disk / "spool", 1 << 20)
    spool.append(b"before")
    hog = small_disk / "hog"
    with hog.open("wb", buffering=0) as file, pytest.raises(OSError, match="No space"):
        while True:
            file.write(bytes(BLOCK))
    for number in range(20):
        spool.append(str(number).encode())
    assert "the disk is full" in caplog.text
    assert len(caplog.records) == 1
    assert not list((small_disk / "spool").glob(".*"))
    record = spool.take()
    assert record is not None
    spool.acknowledge(record[0])  # removing works on a full disk
    assert not list((small_disk / "spool").iterdir())
    hog.unlink()
    spool.append(b"after")
    assert spool.dropped == 0
    assert len(caplog.records) == 2
    expected = [*(str(number).encode() for number in range(20)), b"after"]
    assert taken(Spool(small_disk / "spool", 1 << 20)) == expected
    assert taken(spool) == expected


_APPENDS = """
import sys
from pathlib import Path
from edgewright_agent.spool import Spool
spool = Spool(Path(sys.argv[1]), 1 << 30)
number = 0
while True:
    spool.append(b"%d" % number)
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_every_record_whose_append_returned_survives_kill_9(tmp_path: Path) -> None:
    for trial in range(8):
        folder = tmp_path / str(trial)
        child = subprocess.Popen(
            [sys.executable, "-c", _APPENDS, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(5 + 7 * trial):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().split()]
        child.wait()
        kept = [int(payload) for payload in taken(Spool(folder, 1 << 30))]
        assert kept == list(range(len(kept)))
        assert len(kept) >= max(said, default=5 + 7 * trial - 1)
        assert not list(folder.glob(".*"))


class AnySpool(RuleBasedStateMachine):
    """Appends, answers, crashes and damage in any order, beside a list of what must be there."""

    @initialize()
    def begin(self) -> None:
        self.folder = Path(tempfile.mkdtemp())
        self.spool = Spool(self.folder, ROOM)
        self.kept: list[bytes] = []
        self.sent: dict[int, bytes] = {}
        self.lost = 0
        self.number = 0

    def teardown(self) -> None:
        shutil.rmtree(self.folder)

    @rule(blocks=st.sampled_from([1, 1, 1, 2, 9]))
    def append(self, blocks: int) -> None:
        payload = (
            (b"%d " % self.number).ljust(blocks * BLOCK - 1, b".") if blocks > 1 else b"%d" % self.number
        )
        self.number += 1
        if blocks * BLOCK > ROOM:
            self.lost += 1
        else:
            self.kept.append(payload)
        while sum(max(1, -(-len(p) // BLOCK)) for p in self.kept) * BLOCK > ROOM:
            waiting = [p for p in self.kept if p not in self.sent.values()]
            # The newest is in memory until there is room for it.
            victim = next((p for p in waiting if p != payload), self.kept[0])
            self.kept.remove(victim)
            self.sent = {order: p for order, p in self.sent.items() if p != victim}
            self.lost += 1
        self.spool.append(payload)

    @rule()
    def take(self) -> None:
        record = self.spool.take()
        waiting = [p for p in self.kept if p not in self.sent.values()]
        assert (record[1] if record else None) == (waiting[0] if waiting else None)
        if record:
            self.sent[record[0]] = record[1]

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), wanted=st.booleans())
    def answer(self, data: st.DataObject, wanted: bool) -> None:
        order = data.draw(st.sampled_from(sorted(self.sent)))
        payload = self.sent.pop(order)
        if wanted:
            self.kept.remove(payload)
            self.spool.acknowledge(order)
        else:
            self.spool.put_back(order)

    @rule(half_written=st.booleans())
    def crash(self, half_written: bool) -> None:
        if half_written:
            (self.folder / ".000000000099-0000000000-00000000.abc.partial").write_bytes(b"hal")
        self.spool = Spool(self.folder, ROOM)
        self.sent = {}
        if self.kept:
            assert self.spool.dropped <= self.lost
        self.lost = self.spool.dropped

    @precondition(lambda self: [p for p in self.kept if p not in self.sent.values()])
    @rule(data=st.data())
    def damage(self, data: st.DataObject) -> None:
        waiting = [p for p in self.kept if p not in self.sent.values()]
        victim = data.draw(st.sampled_from(waiting))
        (path,) = [p for p in self.folder.iterdir() if p.name != "damaged" and p.read_bytes() == victim]
        path.write_bytes(b"?" + victim)
        while self.spool.take():  # everything before it as well; then all of it waits again
            pass
        self.kept.remove(victim)
        self.lost += 1
        self.spool_waits_again()

    def spool_waits_again(self) -> None:
        assert self.spool.dropped == self.lost
        self.spool = Spool(self.folder, ROOM)
        self.sent = {}
        self.lost = self.spool.dropped

    @invariant()
    def holds_what_it_should(self) -> None:
        if hasattr(self, "spool"):
            assert len(self.spool) == len(self.kept)
            assert self.spool.dropped == self.lost
            files = [p for p in self.folder.iterdir() if p.name != "damaged"]
            assert sum(max(1, -(-p.stat().st_size // BLOCK)) for p in files) * BLOCK <= ROOM


AnySpool.TestCase.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)
test_any_spool = AnySpool.TestCase
