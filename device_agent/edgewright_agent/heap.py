"""One heap of the C library for all threads of the agent: glibc gives each its own.

Models are loaded by one thread and let go by another, and what one frees in its heap the other cannot use, so that
the heaps grow apart over many updates. Threads take turns in Python anyway: none waits for the heap.
"""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8
"""malloc.h of glibc, mallopt(3)."""


def share_one_heap() -> None:
    """Call it before the threads begin. Another C library than glibc keeps its own ways."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)
