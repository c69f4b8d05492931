"""A rank that waits in C, and so runs no Python handler, still leaves in time."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys

import pytest

from edgewright_fleet.retraining.training.notice import PREEMPTED

from .conftest import LIMIT_S

# The main thread waits where no Python signal handler runs: in a lock that is never freed.
STUCK = """
import sys, threading
from edgewright_fleet.retraining.training.notice import Notice
notice = Notice(int(sys.argv[1]), notice_s=float(sys.argv[2]))
print("ready", flush=True)
threading.Thread(target=lambda: (notice._asked.wait(), print("asked", flush=True)), daemon=True).start()
lock = threading.Lock(); lock.acquire(); lock.acquire()
"""

PARENT = """
import subprocess, sys
child = subprocess.Popen([sys.executable, "-c", '''
import os, time
from edgewright_fleet.retraining.training.notice import die_with_parent
die_with_parent()
print(os.getpid(), flush=True)
time.sleep(3600)
'''])
child.wait()
"""


def started(code: str, *arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code, *arguments], stdout=subprocess.PIPE, text=True)


@pytest.mark.parametrize(
    ("siblings", "notice_s", "lines"),
    [("1", "0.2", ["ready\n", "asked\n"]), ("1000", "3600", ["ready\n"])],
    ids=["when its notice is over", "at once when a sibling is gone"],
)
def test_a_rank_that_is_stuck_leaves(siblings: str, notice_s: str, lines: list[str]) -> None:
    rank = started(STUCK, siblings, notice_s)
    assert rank.stdout is not None
    said = [rank.stdout.readline()]
    rank.send_signal(signal.SIGTERM)
    assert rank.wait(LIMIT_S) == PREEMPTED
    assert [*said, *rank.stdout][: len(lines)] == lines


def test_a_rank_does_not_outlive_its_launcher() -> None:
    launcher = started(PARENT)
    assert launcher.stdout is not None
    rank = os.pidfd_open(int(launcher.stdout.readline()))
    launcher.kill()
    launcher.wait(LIMIT_S)
    ended, _, _ = select.select([rank], [], [], LIMIT_S)
    assert ended, "the rank lives on"
    os.close(rank)
