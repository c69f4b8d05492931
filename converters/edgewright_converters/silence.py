"""Keeps the exporters' and quantisers' own progress and warnings to themselves; their errors are exceptions.

Some of it is written by C++ straight to file descriptor 2, so that is turned aside too. Whoever shows progress
meanwhile writes to a duplicate of it.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import warnings
from collections.abc import Iterator


@contextlib.contextmanager
def silenced() -> Iterator[None]:
    """Nothing that the block prints, warns or logs below ERROR is seen; `--json` owns standard output."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    kept, null = os.dup(2), os.open(os.devnull, os.O_WRONLY)
    os.dup2(null, 2)
    try:
        with (
            warnings.catch_warnings(),
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(io.StringIO()),
        ):
            warnings.simplefilter("ignore")
            yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)
        os.close(null)
        logger.setLevel(level)
