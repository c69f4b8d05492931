"""`Channel`: the bytes of a connection under a deadline for the whole, not for each read.

A timeout of the socket alone begins anew with each byte, so that a client that sends one a second is never late.
"""

from __future__ import annotations

import io
import socket
import time
from typing import Any


class Channel(io.RawIOBase):
    """The bytes of a connection, none of them later than `deadline` (of `time.monotonic`)."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self.deadline = 0.0

    def readable(self) -> bool:
        return True

    def writable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        self._connection.settimeout(self._left())
        return self._connection.recv_into(buffer)

    def write(self, data: Any) -> int:
        self._connection.settimeout(self._left())
        self._connection.sendall(data)
        return memoryview(data).nbytes

    def _left(self) -> float:
        left = self.deadline - time.monotonic()
        if left <= 0:
            raise TimeoutError
        return left
