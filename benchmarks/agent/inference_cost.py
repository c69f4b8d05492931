"""What the agent adds to one inference in its process, beside the runtime alone on the same input, call by call.

The agent's path is all that its loop does for an input: take it from the source, prepare, wait for the turn, run,
count, record four durations, look for drift, and hand the answer to no sink. Calls take turns, so that a busy
machine slows both.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.agent.photo_release import install
from edgewright.artifact.release import Artifact
from edgewright.runtime.following import FollowingModel
from edgewright_agent.config import load_config
from edgewright_agent.exporter import Exporter
from edgewright_agent.feed import Feed
from edgewright_agent.inference import Served, infer, load_served
from edgewright_agent.slots import Slots

WARM = 200
"""Calls before the first that counts."""
CAMERA_HZ = 30.0


@dataclass(frozen=True)
class Added:
    """Seconds on top of the runtime's, in wall time unless it says otherwise."""

    p50_s: float
    """Median of the differences between two calls side by side."""
    p50_cpu_s: float
    """The same in processor time of the thread."""
    p99_s: float
    """99th percentile of an inference's time outside the runtime."""
    bare_p50_s: float
    calls: int


class Clocked:
    """Notes how long calls of the runtime take, to tell the agent's own part of an inference from it."""

    def __init__(self, session: Any) -> None:
        self._session, self.seconds = session, 0.0
        self.inputs, self.outputs, self.runtime = session.inputs, session.outputs, session.runtime

    def run(self, inputs: Any) -> Any:
        begun = time.perf_counter()
        try:
            return self._session.run(inputs)
        finally:
            self.seconds = time.perf_counter() - begun


def loaded(folder: Path) -> tuple[Served, Feed]:
    """A device's model and source, as its agent has them."""
    install(folder)
    config = load_config(folder / "agent.toml")
    served = Slots.open(config.state_dir).start(lambda serving: load_served(serving, config))[0]
    assert served is not None
    return served, Feed.of(config, lambda error: None)


def clock(served: Served) -> Clocked:
    """Have a served model's runtime clocked from now on."""
    clocked = Clocked(vars(served.model)["_session"])
    vars(served.model)["_session"] = clocked
    return clocked


@contextmanager
def draining(exporter: Exporter) -> Iterator[None]:
    """With the thread of an agent that gives the SDK what was recorded."""
    stopping = threading.Event()
    thread = threading.Thread(target=exporter.run, args=(stopping,))
    thread.start()
    try:
        yield
    finally:
        stopping.set()
        thread.join()


def added_by_the_agent(folder: Path, calls: int, *, rate_hz: float | None = None) -> Added:
    """The agent's loop beside the runtime; with `rate_hz` not at full speed, but so often a second."""
    served, feed = loaded(folder)
    exporter = Exporter(fleet="bench", device="one", profile="x86-64-gateway", boot="0")
    session, image = _session_and_input(served)
    clocked = clock(served)
    own: list[float] = []

    def agents() -> None:
        begun = time.perf_counter()
        infer(served, exporter, feed)
        own.append(time.perf_counter() - begun - clocked.seconds)

    with draining(exporter):
        wall, cpu, bare = _in_turn(agents, lambda: session.run([image]), calls, rate_hz)
    assert served.tally.errors == 0
    assert served.tally.inferences == calls + WARM
    p99 = float(np.quantile(own[WARM:], 0.99))
    return Added(float(np.median(wall)), float(np.median(cpu)), p99, bare, calls)


def added_by_following(folder: Path, calls: int) -> Added:
    """`ew.load("name")` in an application, raw in and raw out, beside the runtime. It has no telemetry."""
    artifact: Artifact = install(folder)
    model = FollowingModel(artifact.manifest.name, folder / "state")
    session = vars(model.current)["_session"]
    image = artifact.golden().inputs["image"][0]
    clocked = Clocked(session)
    vars(model.current)["_session"] = clocked
    own: list[float] = []

    def followed() -> None:
        begun = time.perf_counter()
        model.run_raw({"image": image})
        own.append(time.perf_counter() - begun - clocked.seconds)

    wall, cpu, bare = _in_turn(followed, lambda: session.run([image]), calls, None)
    return Added(
        float(np.median(wall)), float(np.median(cpu)), float(np.quantile(own[WARM:], 0.99)), bare, calls
    )


def _session_and_input(served: Served) -> tuple[Any, Any]:
    assert served.model.artifact is not None
    return vars(served.model)["_session"], served.model.artifact.golden().inputs["image"][0]


def _in_turn(
    ours: Callable[[], object], bare: Callable[[], object], calls: int, rate_hz: float | None
) -> tuple[list[float], list[float], float]:
    """Differences of wall and of processor time, and the median of the bare call; the order changes by turns."""
    wall: list[float] = []
    cpu: list[float] = []
    alone: list[float] = []
    for turn in range(WARM + calls):
        if rate_hz is not None and turn >= WARM:
            time.sleep(1 / rate_hz)
        taken = {}
        for call in (ours, bare) if turn % 2 else (bare, ours):
            if rate_hz is not None and turn >= WARM:
                time.sleep(1 / rate_hz)
            begun, begun_cpu = time.perf_counter(), time.thread_time()
            call()
            taken[call] = time.perf_counter() - begun, time.thread_time() - begun_cpu
        wall.append(taken[ours][0] - taken[bare][0])
        cpu.append(taken[ours][1] - taken[bare][1])
        alone.append(taken[bare][0])
    return wall[WARM:], cpu[WARM:], float(np.median(alone[WARM:]))
