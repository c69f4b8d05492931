"""How often to save on many ranks, and what a failure costs: Young's and Daly's intervals, and the expected loss.

With M the mean time between failures of the whole job, δ what one checkpoint takes from training, w how long it is
written while training goes on, and R how long a restart takes:

- Young 1974, "A first order approximation to the optimum checkpoint interval": T = √(2 δ M);
- Daly 2006, "A higher order estimate of the optimum checkpoint interval for restart dumps", eq. 37 (δ < 2M):
  T = √(2 δ M) (1 + ⅓ √(δ / 2M) + ⅑ δ / 2M) − δ;
- expected loss, to first order: δ / T of the time for saving, and at each failure T / 2 (it strikes anywhere
  between two checkpoints) + w (the one that is being written is not whole) + R: (T / 2 + w + R) / M of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

HOURS_A_GPU = 16384 * 54 * 24 / 419
"""Mean hours between unexpected interruptions, a GPU: 419 in 54 days on 16,384 (Llama Team 2024, "The Llama 3 Herd
of Models", section 3.3.4)."""
BYTES_A_PARAMETER = 12
"""Weights, and Adam's two moments, in float32."""


@dataclass(frozen=True)
class Run:
    """A training run on many ranks, its state sharded evenly over them."""

    ranks: int
    parameters: float
    failure_s: float
    """Mean time between failures of the whole run."""
    stage_bytes_per_s: float
    """A rank copies its state at this rate; training waits meanwhile."""
    store_bytes_per_s: float
    """What the store takes from all ranks together."""
    restart_s: float
    """From a failure until the first new step."""

    @property
    def checkpoint_bytes(self) -> float:
        """Of all ranks together."""
        return self.parameters * BYTES_A_PARAMETER

    @property
    def blocked_s(self) -> float:
        """What one checkpoint takes from training."""
        return self.checkpoint_bytes / self.ranks / self.stage_bytes_per_s

    @property
    def written_s(self) -> float:
        """How long one is written beside the training: no interval is shorter."""
        return self.checkpoint_bytes / self.store_bytes_per_s

    @property
    def young_s(self) -> float:
        """Young's interval."""
        return math.sqrt(2 * self.blocked_s * self.failure_s)

    @property
    def daly_s(self) -> float:
        """Daly's interval."""
        ratio = self.blocked_s / (2 * self.failure_s)
        return self.young_s * (1 + math.sqrt(ratio) / 3 + ratio / 9) - self.blocked_s

    def lost(self, interval_s: float) -> float:
        """The share of the time that is no progress, at this interval between checkpoints."""
        interval_s = max(interval_s, self.written_s)
        per_failure_s = interval_s / 2 + self.written_s + self.restart_s
        return self.blocked_s / interval_s + per_failure_s / self.failure_s
