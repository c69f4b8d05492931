"""`Uploads`: from the samples that wait to the store, the oldest first, at the allowed pace and hours.

What was sent is removed here once the store has it durably. A link that breaks is tried again, later each time.
"""

from __future__ import annotations

import logging
import threading
import time
from datetime import datetime
from pathlib import Path

from edgewright.errors import DataError, EdgewrightError
from edgewright.field_sample import HEAD_BYTES, key_of, read_head
from edgewright.object_store import ObjectStore
from edgewright_agent.sampling.waiting import WaitingSamples
from edgewright_agent.sampling_config import SamplingConfig

log = logging.getLogger("edgewright.agent")
PERIOD_S = 1.0
"""Between two looks at whether a sample waits."""
FIRST_RETRY_S, LONGEST_RETRY_S = 2.0, 600.0
"""Before a store that failed is asked again: twice as long each time."""


class StoppedError(EdgewrightError):
    """The agent ends, or the hours of uploads do, while one is under way; it goes on later."""


class Uploads:
    """Of one device. `run` is a thread's work."""

    def __init__(
        self,
        store: ObjectStore,
        settings: SamplingConfig,
        waiting: WaitingSamples,
        stopping: threading.Event,
    ) -> None:
        self._store, self._settings, self._waiting, self._stopping = store, settings, waiting, stopping
        self._retry_s = FIRST_RETRY_S
        self._said: str | None = None
        self.sent = 0
        """Samples that the store took, since the start."""

    def run(self) -> None:
        """Send what waits, until the agent stops."""
        pause_s = PERIOD_S
        while not self._stopping.wait(pause_s):
            pause_s = PERIOD_S if self.send_waiting() else self._backed_off_s()

    def send_waiting(self) -> bool:
        """Send all that waits now; False where the store failed."""
        try:
            while not self._stopping.is_set() and self._may_send() and (found := self._waiting.oldest()):
                self._send(*found)
        except StoppedError:
            return True
        except Exception as error:  # noqa: BLE001 - no sample is worth the thread that sends the next
            if self._said != str(error):
                log.warning("samples wait: %s", error)
            self._said = str(error)
            return False
        return True

    def _send(self, path: Path, digest: str) -> None:
        with path.open("rb") as file:
            beginning = file.read(HEAD_BYTES)
        try:
            head = read_head(beginning, str(path))
        except DataError as error:  # of another version of the agent; those behind it must not wait for ever
            log.warning("a sample is removed: %s", error)
            self._waiting.remove(path)
            return
        self._store.put(key_of(head, digest), path, self._sending)
        self._waiting.remove(path)
        self.sent += 1
        self._retry_s = FIRST_RETRY_S
        if self._said is not None:
            log.warning("samples are sent again")
        self._said = None

    def _sending(self, size: int) -> None:
        """Before each piece of a file: wait for the bandwidth that is allowed."""
        rate = self._settings.upload_bytes_per_s
        if rate is not None:
            self._stopping.wait(size / rate)
        if self._stopping.is_set() or not self._may_send():
            raise StoppedError("the upload goes on later")

    def _may_send(self) -> bool:
        return self._settings.may_send(datetime.fromtimestamp(time.time()).time())

    def _backed_off_s(self) -> float:
        retry_s, self._retry_s = self._retry_s, min(2 * self._retry_s, LONGEST_RETRY_S)
        return retry_s
