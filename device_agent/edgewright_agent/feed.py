"""`Feed`: what the inference loop reads from and writes to, a source and a sink that may fail without harm.

A failure is counted by its kind and logged once; a source that could not be opened or read is tried again after
a while. A sample that does not fit the model is the model's failure, and raised.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray

from edgewright.contract import to_json
from edgewright.errors import EdgewrightError, RuntimeUnavailableError
from edgewright.prediction import predict
from edgewright.runtime.model import Model
from edgewright.runtime.quantised_io import real_output
from edgewright_agent.config import AgentConfig
from edgewright_agent.sinks import Sink, open_sink
from edgewright_agent.sources import open_source
from edgewright_agent.sources.source import RawInputs, Sample, SampleError, Source, SourceError

log = logging.getLogger("edgewright.agent")
WAIT_S = 0.2
"""For a sample: after it the loop looks whether it is to stop, and what is served."""
FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
"""Before a source that is missing is asked again: twice as long each time."""


@dataclass(frozen=True)
class Input:
    """Raw inputs for one model, when they were captured, and the time that preparing them took."""

    inputs: RawInputs
    captured_s: float
    preprocessing_s: float | None
    """None: they were raw before."""


class Feed:
    """The source and the sink of one agent; for the thread of the inference loop."""

    def __init__(
        self,
        device: str,
        open_its_source: Callable[[], Source],
        open_its_sink: Callable[[], Sink | None],
        on_error: Callable[[Exception], None],
    ) -> None:
        self._device = device
        self._open_source, self._open_sink = open_its_source, open_its_sink
        self._on_error = on_error
        self._source: Source | None = None
        self._sink: Sink | None = None
        self._sink_is_open, self._sink_due = False, 0.0
        self._said: dict[str, str] = {}
        self._retry_s, self._due = FIRST_RETRY_S, 0.0

    @staticmethod
    def of(config: AgentConfig, on_error: Callable[[Exception], None]) -> Feed:
        """The feed that a configuration describes; nothing is opened before it is needed."""
        name = f"{config.fleet}/{config.device}"
        return Feed(
            config.device,
            lambda: open_source(config.source, broker=config.broker, client_id=f"{name}/source"),
            lambda: open_sink(config.sink, fleet=config.fleet, device=config.device, broker=config.broker),
            on_error,
        )

    def next(self, model: Model) -> Input | None:
        """The next input for a model; None where there is none now, for whatever reason.

        Raises `DataError` where the source's data does not fit the model.
        """
        sample = self._sample()
        if sample is None:
            return None
        begun = time.perf_counter()
        try:
            inputs = sample.prepare(model)
        except SampleError as error:
            self._failed("source", error)
            return None
        except (SourceError, RuntimeUnavailableError) as error:
            self._failed("source", error)
            self._wait()
            return None
        spent_s = None if sample.ready else time.perf_counter() - begun
        self._works("source")
        self._retry_s = FIRST_RETRY_S
        return Input(inputs, sample.captured_s, spent_s)

    def _sample(self) -> Sample | None:
        if time.monotonic() < self._due:
            return None
        try:
            if self._source is None:
                self._source = self._open_source()
        except EdgewrightError as error:
            self._failed("source", error)
            self._wait()
            return None
        try:
            return self._source.next(WAIT_S)
        except SourceError as error:  # the source itself sees to it that it does not say so too often
            self._failed("source", error)
            return None

    def _wait(self) -> None:
        self._due = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, LONGEST_RETRY_S)

    def tell(self, model: Model, about: Input, outputs: Mapping[str, NDArray[Any]]) -> None:
        """Hand on what a model answered, by its raw outputs."""
        try:
            if not self._sink_is_open:
                if time.monotonic() < self._sink_due:
                    return
                self._sink_due = time.monotonic() + LONGEST_RETRY_S
                self._sink, self._sink_is_open = self._open_sink(), True
            if self._sink is None or model.manifest is None:
                return
            real = {spec.name: real_output(outputs[spec.name], spec) for spec in model.outputs}
            self._sink.put(to_json(predict(self._device, model.manifest, real, about.captured_s)))
        except Exception as error:  # noqa: BLE001 - no prediction is worth the loop that makes the next
            self._failed("sink", error)
        else:
            self._works("sink")

    def close(self) -> None:
        """Let go of what is open."""
        for each in (self._source, self._sink):
            if each is not None:
                each.close()

    def _failed(self, what: str, error: Exception) -> None:
        self._on_error(error)
        if self._said.get(what) != str(error):
            log.warning("the %s gives trouble: %s", what, error)
        self._said[what] = str(error)

    def _works(self, what: str) -> None:
        if self._said.pop(what, None) is not None:
            log.warning("the %s works again", what)
