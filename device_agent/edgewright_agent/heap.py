"""One heap of the C library for all threads of the agent, and what is free in it given back to the system.

glibc gives each thread a heap of its own. Models are loaded by one thread and let go by another, and what one
frees in its heap the other cannot use, so that the heaps grow apart over many updates. Threads take turns in
Python anyway: none waits for the heap. Another C library than glibc keeps its own ways.
"""

from __future__ import annotations

import contextlib
import ctypes

M_ARENA_MAX = -8
"""malloc.h of glibc, mallopt(3)."""


def share_one_heap() -> None:
    """Call it before the threads begin."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1)


def give_back_free_memory() -> None:
    """After the imports and after an update: a megabyte, in 0.2 ms (malloc_trim(3))."""
    with contextlib.suppress(AttributeError, OSError):
        ctypes.CDLL(None).malloc_trim(0)
