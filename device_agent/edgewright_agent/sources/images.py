"""A folder or a glob of images, files that come later included; a file is taken when it has stopped changing."""

from __future__ import annotations

import glob
import os
import time
from collections import deque
from functools import partial
from pathlib import Path

from edgewright.preprocessing import IMAGE_SUFFIXES
from edgewright_agent.sources.preparation import from_picture
from edgewright_agent.sources.source import Sample, SourceMissingError

SCAN_S = 0.5
"""Between two looks at the folder: a file that is the same in both is whole."""
MISSING_S = 5.0
"""Between two looks for a folder that is not there, each of which is reported."""
SCAN_SHARE = 0.05
"""Share of the time that may go into looking, in a folder of many thousand files."""

Stamp = tuple[int, int, int]


class ImageFiles:
    """See `Source`. Each file once, by name among those found together, and again when it has changed."""

    def __init__(self, path: Path, *, repeat: bool = False) -> None:
        self._path = path
        self._repeat = repeat
        self._seen: dict[str, Stamp] = {}
        self._taken: dict[str, Stamp] = {}
        self._waiting: deque[str] = deque()
        self._due = 0.0

    def next(self, timeout_s: float) -> Sample | None:
        """The next file. Raises `SourceMissingError` where the folder is not there."""
        if not self._waiting and time.monotonic() >= self._due:
            self._scan()
        while self._waiting:
            name = self._waiting.popleft()
            try:
                captured_s = os.stat(name).st_mtime  # noqa: PTH116 - names, not paths, of a great many files
            except OSError:
                continue  # removed since
            return Sample(captured_s, partial(from_picture, Path(name)))
        return None

    def close(self) -> None: ...

    def _scan(self) -> None:
        begun = time.monotonic()
        self._due = begun + MISSING_S
        found = self._files()
        whole = {name: stamp for name, stamp in found.items() if self._seen.get(name) == stamp}
        new = sorted(name for name, stamp in whole.items() if self._taken.get(name) != stamp)
        if not new and self._repeat:
            new = sorted(whole)
        self._waiting.extend(new)
        self._taken = {name: stamp for name, stamp in self._taken.items() if name in found}
        self._taken |= {name: whole[name] for name in new}
        self._seen = found
        self._due = time.monotonic() + max(SCAN_S, (time.monotonic() - begun) / SCAN_SHARE)

    def _files(self) -> dict[str, Stamp]:
        if self._path.is_dir():
            names = [
                str(Path(folder) / name)
                for folder, _, files in os.walk(self._path)
                for name in files
                if Path(name).suffix.lower() in IMAGE_SUFFIXES
            ]
        elif glob.has_magic(str(self._path)):
            names = glob.glob(str(self._path), recursive=True)  # noqa: PTH207 - a whole pattern
        else:
            raise SourceMissingError("there is no such folder of images", where=str(self._path))
        stamps = {}
        for name in names:
            try:
                found = os.stat(name)  # noqa: PTH116
            except OSError:
                continue
            stamps[name] = (found.st_ino, found.st_mtime_ns, found.st_size)
        return stamps
