"""`WaitingSamples`: samples on the disk until the store has them.

A sample is a file whose name holds when it was captured and the digest of its bytes. It appears under that name
once all of it is flushed, and is checked against it before it is sent: what a power cut leaves half-written is
never sent. A full folder takes no more, as dropping an earlier sample would change the probability with which it
was kept. Not the telemetry's `Spool`, which drops the oldest and keeps in memory what the disk refuses.
"""

from __future__ import annotations

import contextlib
import logging
import threading
from pathlib import Path

from edgewright.artifact.layout import digest_of, digest_of_file
from edgewright.durable_file import make_folder, storage_error, write_durably
from edgewright.errors import DataError, EdgewrightError
from edgewright.field_sample import SUFFIX, digest_in
from edgewright_agent.spool import on_disk

log = logging.getLogger("edgewright.agent")


class WaitingSamples:
    """One folder of them. `put` is for one thread, `oldest` and `remove` for another."""

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Opens what an earlier process left; `max_bytes` is of the disk."""
        self._folder, self._max_bytes = folder, max_bytes
        self._lock = threading.Lock()
        self._sizes: dict[str, int] = {}
        if not folder.is_dir():
            return
        for path in folder.iterdir():
            if path.name.startswith("."):  # half-written when the power went
                with contextlib.suppress(OSError):
                    path.unlink()
            elif path.name.endswith(SUFFIX):
                self._sizes[path.name] = path.stat().st_size

    def __len__(self) -> int:
        return len(self._sizes)

    def has_room_for(self, size: int) -> bool:
        """Whether a file of `size` bytes would keep within the limit."""
        with self._lock:
            taken = sum(map(on_disk, self._sizes.values()))
        return taken + on_disk(size) <= self._max_bytes

    def make_folder(self) -> None:
        """Make the folder of its own that no other user may look into. Raises `StorageError`."""
        try:
            if not self._folder.is_dir():
                make_folder(self._folder)
                self._folder.chmod(0o700)
        except OSError as error:
            raise storage_error(error, self._folder) from None

    def put(self, data: bytes, captured_s: float) -> None:
        """Keep a sample; on return it survives a power cut. Raises `StorageError`."""
        name = f"{max(0, int(captured_s * 1000)):015d}-{digest_of(data).removeprefix('sha256:')}{SUFFIX}"
        write_durably(self._folder / name, data)
        with self._lock:
            self._sizes[name] = len(data)

    def oldest(self) -> tuple[Path, str] | None:
        """The sample that waits longest, whole, with its digest; a damaged one is removed."""
        while True:
            with self._lock:
                name = min(self._sizes, default=None)
            if name is None:
                return None
            path = self._folder / name
            try:
                digest = digest_in(name)
                if digest_of_file(path) == digest:
                    return path, digest
                problem = "is damaged and removed"
            except (DataError, EdgewrightError) as error:
                problem = f"cannot be read ({error})"
            log.warning("%s: a sample %s", path, problem)
            self.remove(path)

    def remove(self, path: Path) -> None:
        """Forget a sample: the store has it."""
        with contextlib.suppress(OSError):  # it is sent once more after the next start, no worse
            path.unlink()
        with self._lock:
            self._sizes.pop(path.name, None)
