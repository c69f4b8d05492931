"""`ask`: a question to the firmware of a Raspberry Pi, through its own program."""

from __future__ import annotations

import subprocess
from pathlib import Path

PROGRAM = "usr/bin/vcgencmd"
TIMEOUT_S = 2.0
"""The firmware answers within milliseconds, or hangs."""


def ask(root: Path, question: str) -> str | None:
    """The answer as text; None where the program is missing, fails or hangs, as it does for a user who may
    not ask."""
    program = root / PROGRAM
    if not program.exists():
        return None
    try:
        done = subprocess.run([program, question], capture_output=True, timeout=TIMEOUT_S, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.decode(errors="replace")
