"""What a process that the agent starts owes it: not to outlive it."""

from __future__ import annotations

import ctypes
import os
import signal
import sys

PR_SET_PDEATHSIG = 1
"""Linux, prctl(2)."""


def end_with(parent: int) -> None:
    """Be killed as soon as the process `parent` ends, which alone keeps the time limit of a child that hangs."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent:
        sys.exit("the agent is gone")
