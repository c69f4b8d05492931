"""`Agreement`: what all ranks decide together at a step boundary, without a wait in each step.

A rank cannot stop, or begin a checkpoint, alone: both are collectives, and ranks are at the same step at
different times. So a thread of each rank meets those of the others now and then, by the clock and whatever a step
takes, in a small all-reduce. Each brings along a call that its training will not go past before it knows what came
of the meeting. The furthest of these calls is where all act: nobody is past it, and all will come to it.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.distributed as dist

PERIOD_S = 0.2
"""Between two meetings: the notice before a rank must be gone is 25 s, and a meeting costs some 0.2 ms."""
MOST_AHEAD = 16
"""Calls between a meeting and what follows from it at most, should steps become slow all at once."""


@dataclass(frozen=True)
class Decision:
    """What every rank learns at the same call."""

    stop: bool
    """A rank was asked to stop."""
    save: bool
    """No rank held the checkpoint back."""


class Agreement:
    """Call `at_step` on every rank, equally often, then `close`. `group` has a CPU backend and no other use.

    `wishes` says, in another thread, whether this rank was asked to stop, and whether it wants no checkpoint now.
    """

    def __init__(self, group: dist.ProcessGroup, wishes: Callable[[], tuple[bool, bool]]) -> None:
        self._group, self._wishes = group, wishes
        self._changed = threading.Condition()
        self._thread: threading.Thread | None = None
        self._closed = False
        self._calls = 0
        self._promised: int | None = None
        """A call that waits for what the meeting under way brings."""
        self._agreed: tuple[int, Decision] | None = None
        """At which call to do what."""
        self._error: Exception | None = None

    def at_step(self) -> Decision | None:
        """What was agreed for this call, at few calls; None at the others. Raises where another rank is gone."""
        if self._thread is None:
            self._begin()
        with self._changed:
            self._calls += 1
            if self._calls == self._promised:
                self._changed.wait_for(lambda: self._promised is None)
            if self._error is not None:
                raise self._error
            if self._agreed is None or self._agreed[0] != self._calls:
                return None
            _, decision = self._agreed
            self._agreed = None
            self._changed.notify_all()
            return decision

    def close(self) -> None:
        """Wait until every rank has closed: none leaves while another meets it. Raises as `at_step` does."""
        if self._thread is None:
            return
        with self._changed:
            self._closed = True
            self._changed.notify_all()
        self._thread.join()
        self._thread = None
        if self._error is not None:
            raise self._error

    def _begin(self) -> None:
        self._closed, self._agreed = False, None
        self._thread = threading.Thread(target=self._meet, name="agreement", daemon=True)
        self._thread.start()

    def _meet(self) -> None:
        before, together = 0, True
        try:
            while together:
                with self._changed:
                    self._changed.wait_for(lambda: self._closed, PERIOD_S)
                    # One thing at a time: what was agreed is done before more is.
                    self._changed.wait_for(lambda: self._closed or self._agreed is None)
                    made, before = self._calls - before, self._calls
                    self._promised = at = self._calls + min(max(made, 1), MOST_AHEAD)
                    open_ = not self._closed
                stop, hold = self._wishes()
                # The largest of each: one rank is enough to stop all, to hold all, and to go on meeting.
                said = torch.tensor([stop, hold, at, open_], dtype=torch.int64)
                dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self._group)
                stopped, held, at, together = said.tolist()
                with self._changed:
                    self._promised = None
                    if stopped or not held:
                        self._agreed = at, Decision(stop=bool(stopped), save=not held)
                    self._changed.notify_all()
        except Exception as error:  # noqa: BLE001 - raised where the training calls next
            with self._changed:
                self._error, self._promised = error, None
                self._changed.notify_all()
