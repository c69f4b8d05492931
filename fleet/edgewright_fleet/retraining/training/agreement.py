"""`Agreement`: what all ranks decide together at a step boundary, without a wait in each step.

A rank cannot stop, or begin a checkpoint, alone: both are collectives, and ranks are at the same step at different
times. So each says now and then what it knows, by a small all-reduce that goes on while the next steps run, and all
act on the sum at the same later call.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass
from typing import Any

import torch
import torch.distributed as dist

PERIOD_S = 0.1
"""Between two all-reduces, about: a stop is agreed within two of these and two steps, of a notice of 25 s."""
MOST_STEPS = 64
"""Between two all-reduces: should steps become slow all at once, the next one is not far."""


@dataclass(frozen=True)
class Decision:
    """What every rank learns at the same call."""

    stop: bool
    """A rank was asked to stop."""
    save: bool
    """No rank held the checkpoint back."""


class Agreement:
    """Call `at_step` on every rank, equally often. `group` needs a CPU backend, and is used for nothing else."""

    def __init__(self, group: dist.ProcessGroup) -> None:
        self._group = group
        self._sent: tuple[Any, torch.Tensor] | None = None
        self._calls_left = 0
        self._calls = 1
        self._sent_s = time.monotonic()

    def at_step(self, *, stop: bool, hold: bool) -> Decision | None:
        """What was agreed, at some calls; None at the others. `hold` says that this rank wants no checkpoint now."""
        if self._calls_left > 0:
            self._calls_left -= 1
            return None
        decision, calls = None, 1
        if self._sent is not None:
            pending, sent = self._sent
            pending.wait()
            stopped, held, calls = sent.tolist()
            decision = Decision(stop=bool(stopped), save=not held)
        now_s = time.monotonic()
        step_s = max((now_s - self._sent_s) / self._calls, 1e-6)
        wanted = min(MOST_STEPS, max(1, math.floor(PERIOD_S / step_s)))
        # The largest of each: one rank is enough to stop all, or to hold all; the fastest says how many calls.
        said = torch.tensor([stop, hold, wanted], dtype=torch.int64)
        self._sent = dist.all_reduce(said, op=dist.ReduceOp.MAX, group=self._group, async_op=True), said
        self._sent_s, self._calls, self._calls_left = now_s, calls, calls - 1
        return decision

    def close(self) -> None:
        """Wait for what is on its way, so that no rank leaves while another sends to it."""
        if self._sent is not None:
            self._sent[0].wait()
            self._sent = None
