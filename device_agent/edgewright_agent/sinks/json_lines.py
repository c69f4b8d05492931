"""Predictions to a file of JSON lines that never grows beyond its limit: full ones are kept as PATH.1, PATH.2 …

Lines are appended, not written durably: a power cut may cost the last few, and half of one at most.
"""

from __future__ import annotations

import contextlib
import logging
import logging.handlers
import os
from pathlib import Path

from edgewright.durable_file import make_folder, storage_error
from edgewright_agent.sinks.sink_error import SinkError


class JsonLines:
    """See `Sink`."""

    def __init__(self, path: Path, *, max_bytes: int, keep: int) -> None:
        self._path = path
        self._max_bytes, self._keep = max_bytes, keep
        self._file: _Rotated | None = None

    def put(self, prediction: bytes) -> None:
        line = logging.makeLogRecord({"msg": prediction.decode()})
        try:
            if self._file is None:
                make_folder(self._path.parent)
                _end_last_line(self._path)
                self._file = _Rotated(
                    self._path, maxBytes=self._max_bytes, backupCount=self._keep, delay=True
                )
            self._file.emit(line)
        except OSError as error:
            self.close()  # opened anew for the next: the disk may have been mounted again
            raise SinkError(f"a prediction is lost: {storage_error(error, self._path)}") from None

    def close(self) -> None:
        if self._file is not None:
            file, self._file = self._file, None
            with contextlib.suppress(OSError):  # what it could not flush is lost, and was said
                file.close()


class _Rotated(logging.handlers.RotatingFileHandler):
    def handleError(self, record: logging.LogRecord) -> None:  # noqa: N802 - the base's name
        """Not to standard error: let who put the line know."""
        raise


def _end_last_line(path: Path) -> None:
    """So that the half of a line which a power cut left does not spoil the next."""
    try:
        with path.open("rb+") as file:
            if file.seek(0, os.SEEK_END) and file.seek(-1, os.SEEK_END) is not None and file.read(1) != b"\n":
                file.write(b"\n")
    except FileNotFoundError:
        return
