"""`Inbox`: what a camera's or a broker's thread hands to the inference loop: the newest samples, and failures."""

from __future__ import annotations

import threading
import time
from collections import deque

from edgewright_agent.sources.source import Sample, SourceError, SourceSilentError


class Inbox:
    """At most `size` samples, the oldest dropped for a new one. One thread puts, one takes."""

    def __init__(self, what: str, *, size: int, silent_s: float) -> None:
        """`what` is named in an error after `silent_s` seconds without a sample."""
        self._what = what
        self._silent_s = silent_s
        self._news = threading.Condition()
        self._samples: deque[Sample] = deque(maxlen=size)
        self._failure: SourceError | None = None
        self._heard = time.monotonic()

    def put(self, sample: Sample) -> None:
        """Hand a sample over."""
        with self._news:
            self._samples.append(sample)
            self._heard = time.monotonic()
            self._news.notify()

    def fail(self, error: SourceError) -> None:
        """Hand an error over, in place of one that nobody took yet."""
        with self._news:
            self._failure, self._heard = error, time.monotonic()
            self._news.notify()

    def take(self, timeout_s: float) -> Sample | None:
        """The oldest sample; None after `timeout_s`. Raises `SourceError`: what failed, or silence."""
        with self._news:
            self._news.wait_for(lambda: self._samples or self._failure, timeout_s)
            if self._failure is not None:
                failure, self._failure = self._failure, None
                raise failure
            if self._samples:
                return self._samples.popleft()
            if time.monotonic() - self._heard >= self._silent_s:
                self._heard = time.monotonic()
                raise SourceSilentError(f"has said nothing for {self._silent_s:g} s", where=self._what)
            return None
