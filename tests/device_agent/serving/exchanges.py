"""What the tests of the API send, and how they wait."""

from __future__ import annotations

import contextlib
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np

X = np.array([[1, 2, 3, 4]], np.uint8)
INFER = "/v2/models/sorter/infer"


def scores(served: Any, x: np.ndarray = X) -> np.ndarray:
    return served.model.run_raw({"x": x})["scores"]


def exchange(api: Any, data: bytes) -> bytes:
    """Send bytes, send no more, and read until the other end closes."""
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)
