"""Inferences of a loaded model: what is served, and the loop that runs one after another.

What is served is read anew before each inference, so that a switch happens between two of them, and one in flight
ends on the model that it began with. A runtime takes one thread at a time: the loop and the inference API take
turns. Both count what they saw; whether that is good enough is decided in `update`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from edgewright.active_slot import SlotContent
from edgewright.errors import EdgewrightError
from edgewright.runtime.model import Array, Model, load_artifact
from edgewright.twin import RunningRelease
from edgewright_agent.config import AgentConfig
from edgewright_agent.drift import DriftWatch
from edgewright_agent.exporter import Attributes, Exporter, model_attributes
from edgewright_agent.feed import Feed
from edgewright_agent.heap import give_back_free_memory
from edgewright_agent.slots import Serving
from edgewright_agent.tally import Tally

if TYPE_CHECKING:
    from edgewright_agent.sampling.offers import Offers

log = logging.getLogger("edgewright.agent")
MAX_LAG_S = 1.0
"""How far a loop that cannot keep its rate may fall behind and still catch up; the rest is skipped."""


class TurnMissedError(EdgewrightError):
    """An inference did not begin before its deadline."""


class InferenceFailedError(EdgewrightError):
    """The runtime raised an error; it is counted and reported."""


@dataclass(frozen=True)
class Durations:
    """Where the time of inferences went, in seconds."""

    preprocessing: float = 0.0
    """From the bytes of a request to arrays as the artifact takes them."""
    queue: float = 0.0
    """Waiting for the runtime."""
    run: float = 0.0
    """In the runtime."""
    postprocessing: float = 0.0
    """From the artifact's arrays to the bytes of an answer."""

    def __add__(self, other: Durations) -> Durations:
        return Durations(
            self.preprocessing + other.preprocessing,
            self.queue + other.queue,
            self.run + other.run,
            self.postprocessing + other.postprocessing,
        )


class Spent:
    """What the inferences that succeeded took in all; added to from any thread."""

    def __init__(self) -> None:
        self.inferences, self.durations = 0, Durations()
        self._lock = threading.Lock()

    def add(self, durations: Durations) -> None:
        with self._lock:
            self.inferences += 1
            self.durations += durations


@dataclass(frozen=True)
class Served:
    """A loaded model with everything that its inferences need."""

    content: SlotContent
    model: Model
    attributes: Attributes
    tally: Tally = field(default_factory=Tally)
    spent: Spent = field(default_factory=Spent)
    turn: threading.Lock = field(default_factory=threading.Lock)
    """Held while the runtime executes."""
    drift: DriftWatch | None = None
    """Sketches what the model is given and answers."""
    offers: Offers | None = None
    """Where its inferences may be chosen for training. None: the agent keeps none."""
    observers: tuple[Callable[[Sequence[Array], Sequence[Array]], None], ...] = ()
    """Told the raw inputs and outputs of each inference that succeeded."""

    @property
    def running(self) -> RunningRelease:
        """As the fleet is told."""
        content = self.content
        return RunningRelease(release=content.release, artifact=content.artifact, runtime=self.model.runtime)


def load_served(serving: Serving, config: AgentConfig) -> Served:
    """Load the artifact of a slot. Raises the error family."""
    model = load_artifact(serving.artifact, threads=config.threads)
    attributes = model_attributes(serving.content.release)
    drift = DriftWatch(
        serving.artifact.manifest, attributes, period_s=config.sketch_period_s, samples=config.sketch_samples
    )
    if config.sampling is None:
        return Served(serving.content, model, attributes, drift=drift, observers=(drift.observe,))
    # Only here, as most devices keep no samples.
    from edgewright_agent.sampling.offers import Offers

    offers = Offers(serving.content, serving.artifact.manifest)
    observers = (drift.observe, offers.put)
    return Served(serving.content, model, attributes, drift=drift, offers=offers, observers=observers)


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
    announced: Served | None = None
    while not stopping.is_set():
        served = current()
        if served is not None:
            infer(served, exporter, feed)
            if served is not announced and served.spent.inferences:
                announced = served
                give_back_free_memory()
                log.info("%s: first inference done", served.content.release)
        due = max(due + period, time.monotonic() - MAX_LAG_S)
        stopping.wait(max(0.0, due - time.monotonic()))


def infer(served: Served, exporter: Exporter, feed: Feed) -> None:
    """One inference if there is an input, recorded as durations or as an error; the sink is told the answer."""
    try:
        taken = feed.next(served.model)
        if taken is None:
            return
        prepared = served.model.prepare(taken.inputs, raw=True)
    except EdgewrightError as error:
        record_failure(served, exporter, error)
        return
    try:
        results, spent = execute(served, exporter, prepared)
    except InferenceFailedError:
        return
    record(served, exporter, replace(spent, preprocessing=taken.preprocessing_s or 0.0))
    feed.tell(served.model, taken, served.model.finish(results, raw=True))


def execute(
    served: Served, exporter: Exporter, prepared: Sequence[Array], *, deadline: float | None = None
) -> tuple[list[Array], Durations]:
    """Run the model in its turn: the results, and how long it waited and ran; a failure is recorded here.

    `deadline` is of `time.monotonic`; None waits as long as it takes. Raises `TurnMissedError`,
    `InferenceFailedError`.
    """
    asked = time.perf_counter()
    if not served.turn.acquire(timeout=-1 if deadline is None else max(0.0, deadline - time.monotonic())):
        raise TurnMissedError("the runtime was busy until the deadline", remedy="send fewer requests at once")
    begun = served.tally.begin()
    try:
        results = served.model.execute(prepared)
    except Exception as error:  # whatever a runtime raises is one failed inference
        record_failure(served, exporter, error)
        raise InferenceFailedError(f"the runtime failed: {error}"[:300]) from error
    else:
        spent = Durations(queue=begun - asked, run=served.tally.succeed(begun))
    finally:
        served.turn.release()
    for observe in served.observers:
        observe(prepared, results)
    return results, spent


def record(served: Served, exporter: Exporter, spent: Durations) -> None:
    """Report where the time of an inference that succeeded went."""
    exporter.record(
        served.attributes,
        spent.run,
        queue_s=spent.queue,
        # Nought: the loop's inputs are prepared before it begins.
        preprocessing_s=spent.preprocessing or None,
        postprocessing_s=spent.postprocessing or None,
    )
    served.spent.add(spent)


def record_failure(served: Served, exporter: Exporter, error: BaseException) -> None:
    """Count and report an inference that failed."""
    served.tally.fail()
    exporter.record_error(served.attributes, error)
