"""`Spool`: telemetry payloads on disk until the broker has them, so that no outage and no power cut loses one.

A record is a file of its own, written durably and removed once the broker has acknowledged it. Not SQLite: there
a removal needs space too, so that a full disk would stay full; one damaged page may cost all records, here it
costs one; and there is no database to open, check and repair. The price is a disk block (4 KiB) a record of
under 1 kB and two flushes a minute. A file's name holds its place in the order, how many records were dropped
before it, and the checksum of its bytes: `000000000042-0000000000-9b1f2c3d`.

Only a full spool drops records, the oldest first. While the disk takes nothing, the newest wait in memory.
"""

from __future__ import annotations

import contextlib
import logging
import re
import zlib
from dataclasses import dataclass
from pathlib import Path

from edgewright.durable_file import storage_error, write_durably
from edgewright.errors import StorageError

log = logging.getLogger("edgewright.agent")
BLOCK = 4096
"""Bytes: what a file of any length is a multiple of on the usual file systems."""
MAX_IN_MEMORY = 256
"""Records kept in memory while the disk takes none: four hours at one a minute, a quarter of a megabyte."""
DAMAGED = "damaged"
"""Where the last record that could not be read is set aside, for a person to look at; one, as disks are small."""
_NAME = re.compile(r"(\d{12})-(\d{10})-([0-9a-f]{8})")


@dataclass
class _Entry:
    """A record: in a file, or for want of one in memory."""

    path: Path | None
    payload: bytes | None
    size: int
    sent: bool = False

    @property
    def disk_bytes(self) -> int:
        return 0 if self.path is None else on_disk(self.size)


class Spool:
    """Records in the order in which they were appended. For one thread at a time.

    Nothing that the disk does is an error to the caller: it costs records, which are counted in `dropped`.
    """

    def __init__(self, folder: Path, max_bytes: int) -> None:
        """Opens what an earlier process left in `folder`; `max_bytes` is of the disk, at least a block."""
        self._folder, self._max_bytes = folder, max_bytes
        self._entries: dict[int, _Entry] = {}
        self._next = 0
        self._disk_bytes = 0
        self._disk_fails = False
        self.dropped = 0
        """Records lost so far, counted on from the process before while any record of its time is here."""
        try:
            self._open()
        except OSError as error:
            log.warning("%s: %s; telemetry begins anew", folder, storage_error(error, folder).problem)

    def __len__(self) -> int:
        return len(self._entries)

    def append(self, payload: bytes) -> None:
        """Keep a record; on return it survives a power cut, unless the disk failed."""
        if on_disk(len(payload)) > self._max_bytes:
            self.dropped += 1
            return
        self._entries[self._next] = _Entry(None, payload, len(payload))
        self._next += 1
        self._write_waiting()
        in_memory = sum(entry.path is None for entry in self._entries.values())
        for _ in range(in_memory - MAX_IN_MEMORY):
            self._drop(next(order for order, entry in self._entries.items() if entry.path is None))

    def take(self) -> tuple[int, bytes] | None:
        """The oldest record that was not taken yet, with the number to acknowledge it by."""
        while True:
            order = next((order for order, entry in self._entries.items() if not entry.sent), None)
            if order is None:
                return None
            payload = self._read(self._entries[order])
            if payload is not None:
                self._entries[order].sent = True
                return order, payload
            self._disk_bytes -= self._entries.pop(order).disk_bytes
            self.dropped += 1

    def put_back(self, order: int) -> None:
        """A record that was taken waits again: the broker did not want it."""
        if order in self._entries:
            self._entries[order].sent = False

    def acknowledge(self, order: int) -> None:
        """The broker has a record; it is removed. Known or not, twice or once, is all the same."""
        entry = self._entries.pop(order, None)
        if entry is not None:
            self._remove(entry)

    def _open(self) -> None:
        if not self._folder.exists():  # the first record makes it, durably
            return
        for path in sorted(self._folder.iterdir()):
            if path.name.startswith("."):  # half-written when the power went
                with contextlib.suppress(OSError):
                    path.unlink()
            elif match := _NAME.fullmatch(path.name):
                entry = _Entry(path, None, path.stat().st_size)
                self._entries[int(match[1])] = entry
                self._next = int(match[1]) + 1
                self.dropped = max(self.dropped, int(match[2]))
                self._disk_bytes += entry.disk_bytes

    def _write_waiting(self) -> None:
        """Move records from memory to disk, oldest first, until the disk takes no more."""
        for order, entry in list(self._entries.items()):
            if entry.path is not None or entry.payload is None:
                continue
            self._make_room(on_disk(entry.size))
            path = self._folder / f"{order:012d}-{self.dropped:010d}-{zlib.crc32(entry.payload):08x}"
            try:
                write_durably(path, entry.payload)
            except StorageError as error:
                if not self._disk_fails:
                    log.warning("%s: %s; telemetry waits in memory", self._folder, error.problem)
                self._disk_fails = True
                return
            entry.path, entry.payload = path, None
            self._disk_bytes += entry.disk_bytes
        if self._disk_fails:
            log.warning("%s: takes records again", self._folder)
        self._disk_fails = False

    def _make_room(self, size: int) -> None:
        while self._disk_bytes + size > self._max_bytes:
            on_disk = [order for order, entry in self._entries.items() if entry.path is not None]
            # What was sent may be with the broker by now: dropped last.
            self._drop(next((order for order in on_disk if not self._entries[order].sent), on_disk[0]))

    def _drop(self, order: int) -> None:
        self._remove(self._entries.pop(order))
        self.dropped += 1

    def _remove(self, entry: _Entry) -> None:
        self._disk_bytes -= entry.disk_bytes
        if entry.path is not None:
            with contextlib.suppress(OSError):  # it is sent once more after the next start, no worse
                entry.path.unlink()

    def _read(self, entry: _Entry) -> bytes | None:
        if entry.path is None:
            return entry.payload
        try:
            payload = entry.path.read_bytes()
            if f"{zlib.crc32(payload):08x}" == entry.path.name[-8:]:
                return payload
            problem = f"is damaged and set aside as {DAMAGED}"
            entry.path.replace(entry.path.with_name(DAMAGED))
        except OSError as error:
            problem = f"cannot be read ({error.strerror})"
        log.warning("%s: a telemetry record %s", entry.path, problem)
        return None


def on_disk(size: int) -> int:
    """Bytes that a file of `size` bytes takes on the disk."""
    return -(-size // BLOCK) * BLOCK
