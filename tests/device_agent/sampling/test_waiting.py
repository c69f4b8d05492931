from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from edgewright.artifact.layout import digest_of
from edgewright_agent.sampling.waiting import WaitingSamples
from edgewright_agent.spool import BLOCK

ROOM = 10 * BLOCK


def everything(waiting: WaitingSamples) -> list[bytes]:
    found = []
    while one := waiting.oldest():
        path, digest = one
        found.append(path.read_bytes())
        assert digest_of(found[-1]) == digest
        waiting.remove(path)
    return found


def test_samples_come_out_as_they_were_captured_also_after_a_restart(tmp_path: Path) -> None:
    waiting = WaitingSamples(tmp_path / "samples", ROOM)
    for second in (3, 1, 2):
        waiting.put(b"%d" % second, float(second))
    assert len(waiting) == 3
    assert everything(WaitingSamples(tmp_path / "samples", ROOM)) == [b"1", b"2", b"3"]


def test_a_full_folder_has_no_room_until_something_was_sent(tmp_path: Path) -> None:
    waiting = WaitingSamples(tmp_path, ROOM)
    for second in range(9):
        waiting.put(b"%d" % second, float(second))
    assert waiting.has_room_for(BLOCK)
    assert not waiting.has_room_for(BLOCK + 1)
    first = waiting.oldest()
    assert first is not None
    waiting.remove(first[0])
    assert waiting.has_room_for(BLOCK + 1)


@pytest.mark.parametrize("damage", ["flip", "cut", "empty", "gone"])
def test_a_damaged_sample_is_never_sent(
    damage: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    waiting = WaitingSamples(tmp_path, ROOM)
    for second in range(3):
        waiting.put(b"sample %d" % second, float(second))
    victim = sorted(tmp_path.iterdir())[1]
    match damage:
        case "flip":
            victim.write_bytes(b"sample 7")
        case "cut":
            victim.write_bytes(b"sam")
        case "empty":
            victim.write_bytes(b"")
        case "gone":
            victim.unlink()
    assert everything(waiting) == [b"sample 0", b"sample 2"]
    assert len(caplog.records) == 1
    assert "\n" not in caplog.records[0].getMessage()
    assert not victim.exists()


def test_what_a_power_cut_left_half_written_is_removed_and_the_rest_left_alone(tmp_path: Path) -> None:
    (tmp_path / ".000000000001000-00.sample.x.partial").write_bytes(b"half")
    (tmp_path / "budget.json").write_text("{}")
    waiting = WaitingSamples(tmp_path, ROOM)
    assert waiting.oldest() is None
    assert [path.name for path in tmp_path.iterdir()] == ["budget.json"]


_PUTS = """
import sys
from pathlib import Path
from edgewright_agent.sampling.waiting import WaitingSamples
waiting = WaitingSamples(Path(sys.argv[1]), 1 << 40)
number = 0
while True:
    waiting.put(b"%d " % number * 20_000, float(number))
    print(number, flush=True)
    number += 1
"""


@pytest.mark.slow
def test_every_sample_whose_put_returned_survives_kill_9_and_no_half_of_one_does(tmp_path: Path) -> None:
    for trial in range(5):
        folder = tmp_path / str(trial)
        child = subprocess.Popen(
            [sys.executable, "-c", _PUTS, str(folder)], stdout=subprocess.PIPE, text=True
        )
        assert child.stdout is not None
        for _ in range(3 + 4 * trial):
            child.stdout.readline()
        child.send_signal(signal.SIGKILL)
        said = [int(line) for line in child.stdout.read().split()]
        child.wait()
        kept = [int(data.split()[0]) for data in everything(WaitingSamples(folder, 1 << 40))]
        assert kept == list(range(len(kept)))
        assert len(kept) > max(said, default=3 + 4 * trial - 1)
        assert not list(folder.glob(".*"))
