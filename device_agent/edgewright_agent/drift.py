"""`DriftWatch`: what one served model is given and answers, sketched on the device.

An inference gives up a few elements so many times a period (3 to 6 µs for a photo); they are added up
elsewhere (some 50 µs each), so that no inference waits for it and the cost does not grow with their rate. The
sketch is what the converter put into the manifest of the data that the artifact was judged on; what is sent
says how far it is from that.
"""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from edgewright.artifact.manifest import ArtifactManifest
from edgewright.contract import to_json
from edgewright.telemetry import names
from edgewright.telemetry.sketch import DataSketch, drift
from edgewright.telemetry.sketcher import Glimpse, Sketcher
from edgewright_agent.exporter import Attributes, Exporter

Array = NDArray[Any]
MOST_PENDING = 64
"""Looked at and not added up yet; more are dropped, the oldest first."""


class DriftWatch:
    """Of one served model: a sketch every `period_s` seconds of so many `samples`, evenly over it.

    `observe` may come from any thread, the rest from one.
    """

    def __init__(
        self, manifest: ArtifactManifest, model: Attributes, *, period_s: float = 300.0, samples: int = 1200
    ) -> None:
        scores = manifest.postprocessing.output if manifest.postprocessing else None
        self._sketcher = Sketcher(manifest.inputs, manifest.outputs, scores)
        self._reference = manifest.drift_reference.sketch if manifest.drift_reference else None
        self._model = model
        self._pending: deque[Glimpse] = deque(maxlen=MOST_PENDING)
        self._period_s = period_s
        self._glimpse_period_s = period_s / samples
        self._due_s = self._sent_s = time.monotonic()

    def observe(self, inputs: Sequence[Array], outputs: Sequence[Array]) -> None:
        """Look at one inference's raw arrays, in the manifest's order, if it is time to."""
        now_s = time.monotonic()
        if now_s >= self._due_s:
            self._due_s = now_s + self._glimpse_period_s
            self._pending.append(self._sketcher.glimpse(inputs, outputs))

    def add_up(self) -> None:
        """Take in what was looked at since the last call."""
        while self._pending:
            self._sketcher.add(self._pending.popleft())

    def report(self, exporter: Exporter, now_s: float, *, last: bool = False) -> None:
        """Put a sketch into the next payload if it is time to, or this is the `last` of the model."""
        if not last and now_s - self._sent_s < self._period_s:
            return
        self._sent_s = now_s
        self.add_up()
        sketch = self._sketcher.take()
        if sketch is not None:
            _send(sketch, self._reference, exporter, self._model)


def _send(sketch: DataSketch, reference: DataSketch | None, exporter: Exporter, model: Attributes) -> None:
    text = to_json(sketch).decode()
    exporter.add(names.DRIFT_SAMPLES, "{inference}", sketch.samples, {names.DRIFT_SKETCH: text}, model=model)
    if reference is None:
        return
    figures = drift(sketch, reference).model_dump(exclude={"samples"}, exclude_none=True)
    for figure, value in figures.items():
        exporter.set(names.DRIFT, "1", value, {names.DRIFT_FIGURE: figure}, model=model)
