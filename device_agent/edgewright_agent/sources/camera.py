"""A V4L2 or network camera through OpenCV: always the newest frame, and back again after it went away.

A thread of its own takes frames off the camera, so that none is old when it is asked for; only one that is asked
for is unpacked and converted. A video file goes the same way, at its own pace, and begins again at its end.
"""

from __future__ import annotations

import os
import re
import threading
import time
from functools import partial
from typing import Any

import numpy as np

from edgewright.errors import RuntimeUnavailableError
from edgewright_agent.sources.inbox import Inbox
from edgewright_agent.sources.preparation import from_picture
from edgewright_agent.sources.source import Sample, SourceMissingError

ANSWER_MS = 10_000
"""How long a network camera may take to answer, and then for a frame."""
FIRST_WAIT_S, LONGEST_WAIT_S = 1.0, 60.0
"""Before connecting again: twice as long each time that no frame came."""


class Camera:
    """See `Source`."""

    def __init__(self, address: str, *, silent_s: float) -> None:
        """Begin to connect. Raises `RuntimeUnavailableError` where OpenCV is not installed."""
        # Quiet before it is loaded: its messages show the whole address.
        os.environ.setdefault("OPENCV_LOG_LEVEL", "OFF")
        os.environ.setdefault("OPENCV_FFMPEG_LOGLEVEL", "-8")
        try:
            import cv2
        except ImportError:
            raise RuntimeUnavailableError(
                "a camera needs OpenCV, which is not installed",
                remedy="pip install 'edgewright[agent-camera]'",
            ) from None
        self._cv2: Any = cv2
        self._address = address
        self._where = without_password(address)
        self._inbox = Inbox(self._where, size=1, silent_s=silent_s)
        self._wanted = threading.Event()
        self._closing = threading.Event()
        self._thread = threading.Thread(target=self._watch, name="camera", daemon=True)
        self._thread.start()

    def next(self, timeout_s: float) -> Sample | None:
        """A frame taken after now. Raises `SourceError`: it cannot be opened, has ended, or is silent."""
        self._wanted.set()
        return self._inbox.take(timeout_s)

    def close(self) -> None:
        self._closing.set()
        self._thread.join(1.0)  # it may be within a call that waits for the camera

    def _watch(self) -> None:
        wait_s = FIRST_WAIT_S
        while not self._closing.is_set():
            frames, problem = 0, "cannot be opened"
            try:
                frames, problem = self._connection()
            except Exception as error:  # noqa: BLE001 - whatever a driver makes OpenCV raise is a camera that is away
                problem = f"fails ({type(error).__name__})"
            if self._closing.is_set():
                return
            self._inbox.fail(SourceMissingError(problem, where=self._where))
            wait_s = FIRST_WAIT_S if frames else min(2 * wait_s, LONGEST_WAIT_S)
            self._closing.wait(wait_s)

    def _connection(self) -> tuple[int, str]:
        """Take frames until there are no more: how many there were, and what is wrong."""
        cv2 = self._cv2
        capture = cv2.VideoCapture()
        try:
            if not self._open(capture):
                return 0, "cannot be opened"
            pace_s = self._pace_s(capture)
            frames, due = 0, time.monotonic()
            while not self._closing.is_set():
                if not capture.grab():
                    return frames, "has ended"
                frames += 1
                if self._wanted.is_set():
                    captured_s = time.time()
                    good, frame = capture.retrieve()
                    if good:
                        self._wanted.clear()
                        self._inbox.put(Sample(captured_s, partial(from_picture, _rgb(frame))))
                due += pace_s
                self._closing.wait(max(0.0, due - time.monotonic()) if pace_s else 0)
            return frames, "is closed"
        finally:
            capture.release()

    def _open(self, capture: Any) -> bool:
        cv2 = self._cv2
        if self._address.startswith("/dev/"):
            return bool(capture.open(self._address, cv2.CAP_V4L2))
        limits = [cv2.CAP_PROP_OPEN_TIMEOUT_MSEC, ANSWER_MS, cv2.CAP_PROP_READ_TIMEOUT_MSEC, ANSWER_MS]
        return bool(capture.open(self._address, cv2.CAP_FFMPEG, limits))

    def _pace_s(self, capture: Any) -> float:
        """Seconds a frame of a file, which would otherwise be over in a moment; 0 for what is live."""
        if self._address.startswith("/dev/") or "://" in self._address:
            return 0.0
        rate = float(capture.get(self._cv2.CAP_PROP_FPS))
        return 1.0 / rate if 0.1 <= rate <= 1000 else 0.0


def without_password(address: str) -> str:
    """An address as it may be logged: without user and password, and without a query."""
    return re.sub(r"//[^/]*@", "//…@", address).split("?")[0]


def _rgb(frame: np.ndarray[Any, Any]) -> np.ndarray[Any, Any]:
    """OpenCV's blue, green, red (or grey) as red, green, blue."""
    if frame.ndim == 2 or frame.shape[2] == 1:
        return np.repeat(frame.reshape(*frame.shape[:2], 1), 3, axis=2)
    return np.ascontiguousarray(frame[:, :, 2::-1])
