"""`Tally`: what a served model has done on this device; who runs inferences counts, an update judges.

Counting takes about a microsecond and keeps a bounded memory. Several threads may count at once.
"""

from __future__ import annotations

import threading
import time
from collections import deque

REMEMBERED = 1000
"""Latencies of the newest inferences, some 32 kB."""


class Tally:
    """The inferences of one served model. `begin`, then `succeed` or `fail`, in the thread that runs it."""

    def __init__(self) -> None:
        self.inferences = 0
        self.errors = 0
        self._lock = threading.Lock()
        self._running: dict[int, float] = {}
        self._latencies: deque[float] = deque(maxlen=REMEMBERED)

    def begin(self) -> float:
        """An inference begins; what this returns is for `succeed`."""
        start = time.perf_counter()
        self._running[threading.get_ident()] = start
        return start

    def succeed(self, start: float) -> float:
        """The inference that began at `start` has ended well; the seconds that it took."""
        seconds = time.perf_counter() - start
        self._latencies.append(seconds)
        self._end(0)
        return seconds

    def fail(self) -> None:
        """This thread's inference has ended in an error."""
        self._end(1)

    def latencies(self) -> list[float]:
        """Seconds of the newest inferences that succeeded, oldest first."""
        # One call without Python code in it, so that no other thread appends meanwhile.
        return list(self._latencies.copy())

    def longest_running_s(self) -> float:
        """For how many seconds the oldest inference that has not ended has run; 0 where none runs."""
        running = self._running.copy()
        return time.perf_counter() - min(running.values()) if running else 0.0

    def _end(self, errors: int) -> None:
        with self._lock:
            self._running.pop(threading.get_ident(), None)
            self.inferences += 1
            self.errors += errors
