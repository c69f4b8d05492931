"""The agent's log on the device: what happened to it and why, bounded, one JSON document a line.

The newest lines are of use to a person who stands at the device, after a restart too and without a network. They
are not flushed to the disk one by one: what a device must not forget stands in the pointer to its slots.
"""

from __future__ import annotations

import json
import logging
import logging.handlers
import os
import time
from collections import deque
from collections.abc import Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

LOGGER = "edgewright.agent"
FOLDER, FILE = "log", "agent.jsonl"
FILE_BYTES, OLDER_FILES = 512 << 10, 3
"""2 MiB in all: some ten thousand lines, a year of a device that updates weekly."""
POLL_S = 0.25


class _OneLine(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        message = record.getMessage()
        if record.exc_info and record.exc_info[1] is not None:
            message += f": {type(record.exc_info[1]).__name__}: {record.exc_info[1]}"
        when = datetime.fromtimestamp(record.created, timezone.utc).isoformat(timespec="milliseconds")
        event = {"time": when, "level": record.levelname.lower(), "message": message}
        return json.dumps(event, ensure_ascii=False)


class _Quiet(logging.handlers.RotatingFileHandler):
    """A disk that is full or gone costs the line, and no traceback for each."""

    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base class's name
        return


def keep_log(state_dir: Path) -> None:
    """Keep what the agent says from here on. A folder that cannot be written costs the log, no more."""
    folder = state_dir / FOLDER
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handler = _Quiet(
            folder / FILE, maxBytes=FILE_BYTES, backupCount=OLDER_FILES, encoding="utf-8", delay=True
        )
    except OSError:
        return
    handler.setFormatter(_OneLine())
    handler.setLevel(logging.INFO)
    logger = logging.getLogger(LOGGER)
    logger.setLevel(logging.INFO)
    logger.addHandler(handler)


def events(state_dir: Path, newest: int) -> list[dict[str, Any]]:
    """The newest events, oldest first; a line that a power cut left half-written is passed over."""
    lines: deque[dict[str, Any]] = deque(maxlen=newest)
    for number in range(OLDER_FILES, -1, -1):
        path = state_dir / FOLDER / (f"{FILE}.{number}" if number else FILE)
        try:
            text = path.read_text(encoding="utf-8", errors="replace")
        except FileNotFoundError:
            continue
        lines.extend(event for line in text.splitlines() if (event := _parsed(line)))
    return list(lines)


def follow(state_dir: Path) -> Iterator[dict[str, Any]]:
    """Events from this call on as they come, for ever; goes on in the next file when the agent begins one."""
    path = state_dir / FOLDER / FILE
    position, inode = (path.stat().st_size, path.stat().st_ino) if path.exists() else (0, 0)
    return _followed(path, position, inode)


def _followed(path: Path, position: int, inode: int) -> Iterator[dict[str, Any]]:
    rest = ""
    while True:
        try:
            with path.open(encoding="utf-8", errors="replace") as file:
                if os.fstat(file.fileno()).st_ino != inode:
                    position, inode, rest = 0, os.fstat(file.fileno()).st_ino, ""
                file.seek(position)
                rest += file.read()
                position = file.tell()
        except FileNotFoundError:
            pass
        *whole, rest = rest.split("\n")
        yield from (event for line in whole if (event := _parsed(line)))
        time.sleep(POLL_S)


def _parsed(line: str) -> dict[str, Any] | None:
    try:
        event = json.loads(line)
    except ValueError:
        return None
    return event if isinstance(event, dict) and {"time", "level", "message"} <= event.keys() else None
