"""Serving a loaded model: what is served, and the loop that runs one inference after another.

The loop reads what is served anew before each inference, so that a switch happens between two of them. It
counts what it saw; whether that is good enough is decided in `update`.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from edgewright.active_slot import SlotContent
from edgewright.runtime.model import Model, load_artifact
from edgewright_agent.config import AgentConfig
from edgewright_agent.exporter import Attributes, Exporter, model_attributes
from edgewright_agent.feed import Feed
from edgewright_agent.slots import Serving

MAX_LAG_S = 1.0
"""How far a loop that cannot keep its rate may fall behind and still catch up; the rest is skipped."""


@dataclass
class Tally:
    """The inferences of a served model; the loop counts, the update reads."""

    inferences: int = 0
    errors: int = 0


@dataclass(frozen=True)
class Served:
    """A loaded model with everything that the loop needs."""

    content: SlotContent
    model: Model
    attributes: Attributes
    tally: Tally = field(default_factory=Tally)


def load_served(serving: Serving, config: AgentConfig) -> Served:
    """Load the artifact of a slot. Raises the error family."""
    model = load_artifact(serving.artifact, threads=config.threads)
    return Served(serving.content, model, model_attributes(serving.content.release))


def serve(
    current: Callable[[], Served | None],
    exporter: Exporter,
    feed: Feed,
    *,
    rate_hz: float,
    stopping: threading.Event,
) -> None:
    """Run inferences of what `current` gives on what `feed` has, at `rate_hz`, until `stopping` is set."""
    period = 1.0 / rate_hz
    due = time.monotonic()
    while not stopping.is_set():
        served = current()
        if served is not None:
            infer(served, exporter, feed)
        due = max(due + period, time.monotonic() - MAX_LAG_S)
        stopping.wait(max(0.0, due - time.monotonic()))


def infer(served: Served, exporter: Exporter, feed: Feed) -> None:
    """One inference if there is an input, recorded as a duration or as an error; the sink is told the answer."""
    try:
        taken = feed.next(served.model)
        if taken is None:
            return
        start = time.perf_counter()
        outputs = served.model.run_raw(taken.inputs)
        spent_s = time.perf_counter() - start
    except Exception as error:  # noqa: BLE001 - whatever a runtime raises is one failed inference
        served.tally.errors += 1
        exporter.record_error(served.attributes, error)
    else:
        exporter.record(served.attributes, spent_s, preprocessing_s=taken.preprocessing_s)
        feed.tell(served.model, taken, outputs)
    served.tally.inferences += 1
