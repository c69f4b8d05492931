"""`Offers`: where the inferences of one served model may be looked at, at next to no cost to them.

An inference leaves its arrays in a place for one, if that is empty, and goes on; the sampler empties it some times
a second. The arrays are not copied: nothing writes into an input or an output once it was used.
"""

from __future__ import annotations

import itertools
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgewright.active_slot import SlotContent
from edgewright.artifact.manifest import ArtifactManifest

Array = NDArray[Any]


@dataclass(frozen=True)
class Offer:
    """One inference that may become a sample."""

    inputs: Sequence[Array]
    outputs: Sequence[Array]
    """Raw, in the manifest's order."""
    captured_s: float
    """Seconds since 1970 by this device's clock."""
    share: float
    """One in so many inferences was offered: of those since the last offer, this."""


class Offers:
    """Of one served model. `put` may come from any thread, `take` from one."""

    def __init__(self, content: SlotContent, manifest: ArtifactManifest) -> None:
        self.content, self.manifest = content, manifest
        # Counting by `next` is one step of the interpreter, which no other thread can come into.
        self._count = itertools.count(1)
        self._taken = 0
        self._waiting: tuple[int, float, Sequence[Array], Sequence[Array]] | None = None

    def put(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Offer an inference, or only count it while another one waits."""
        count = next(self._count)
        if self._waiting is None:
            self._waiting = (count, time.time(), inputs, outputs)

    def take(self) -> Offer | None:
        """What waits, if anything does."""
        waiting = self._waiting
        if waiting is None:
            return None
        count, captured_s, inputs, outputs = waiting
        since, self._taken = max(1, count - self._taken), count
        self._waiting = None
        return Offer(inputs, outputs, captured_s, 1 / since)
