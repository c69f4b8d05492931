"""`Notice`: SIGTERM, and the time that is left after it.

A preempted node, a cancelled job and an agent that stops its ranks all say so by SIGTERM. The signal reaches a
thread, as Python runs no handler while the main thread waits for a collective.
"""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import threading
from pathlib import Path

NOTICE_S = 25.0
"""From SIGTERM until the process leaves in any case. Kubernetes and GCP's spot machines grant 30 s, AWS 120 s."""

PREEMPTED = 75
"""Exit code of a rank, and of the launcher, that stopped on request and can go on (EX_TEMPFAIL of sysexits.h)."""

_PR_SET_PDEATHSIG = 1


def die_with_parent() -> None:
    """Have the kernel kill this process when its parent is gone (Linux): no rank may outlive its launcher.

    A rank that went on alone would write into the folder of the job that was started in its place.
    """
    parent = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        os.kill(os.getpid(), signal.SIGKILL)


class Notice:
    """Whether this process was asked to stop. Make one in the main thread, once.

    `siblings` is how many ranks its launcher started on this node: a launcher that lost one of them stops the
    others by SIGTERM too, and those leave at once, as a checkpoint needs every rank.
    """

    def __init__(self, siblings: int, notice_s: float = NOTICE_S) -> None:
        self._asked = threading.Event()
        self._siblings = siblings
        self._notice_s = notice_s
        self._read, write = socket.socketpair()
        write.setblocking(False)
        signal.signal(signal.SIGTERM, lambda _number, _frame: None)
        signal.set_wakeup_fd(write.fileno(), warn_on_full_buffer=False)
        self._write = write
        threading.Thread(target=self._watch, name="notice", daemon=True).start()

    @property
    def given(self) -> bool:
        """SIGTERM has arrived."""
        return self._asked.is_set()

    def _watch(self) -> None:
        while signal.SIGTERM not in self._read.recv(64):
            pass
        self._asked.set()
        if _living_children(os.getppid()) < self._siblings:
            os._exit(PREEMPTED)
        timer = threading.Timer(self._notice_s, os._exit, (PREEMPTED,))
        timer.daemon = True
        timer.start()


def _living_children(pid: int) -> int:
    """Children of a process that have not ended; a large number where the kernel does not say (Linux `proc(5)`)."""
    try:
        lists = [file.read_text() for file in Path(f"/proc/{pid}/task").glob("*/children")]
    except OSError:
        return 1 << 30
    if not lists:
        return 1 << 30
    return sum(_lives(child) for text in lists for child in text.split())


def _lives(pid: str) -> bool:
    try:
        stat = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return stat.rpartition(")")[2].split()[0] not in "ZX"
