from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, cast

from edgewright.artifact.manifest import TensorSpec
from edgewright.latency_benchmark import TURN, interleaved_seconds
from edgewright.runtime.model import Model

WARM_UPS = 5


@dataclass
class Counted:
    """Says in one list whose inference it was."""

    name: str
    order: list[str]
    inputs: Sequence[TensorSpec] = field(default_factory=tuple)

    def run_raw(self, _feed: Any) -> dict[str, Any]:
        self.order.append(self.name)
        return {}


def taken(*names: str, seconds: float = 0.0) -> tuple[list[list[float]], list[tuple[str, int]]]:
    order: list[str] = []
    models = [cast("Model", Counted(name, order)) for name in names]
    times = interleaved_seconds(models, seconds=seconds)
    return times, [(name, len(list(turn))) for name, turn in groupby(order[WARM_UPS * len(names) :])]


def test_models_take_turns_whose_first_inference_is_not_counted() -> None:
    times, turns = taken("float", "int8")
    rounds = len(times[0]) // TURN
    assert [name for name, _ in turns] == ["float", "int8"] * rounds
    assert {inferences for _, inferences in turns} == {TURN + 1}
    assert len(times[0]) == len(times[1]) == rounds * TURN >= 20


def test_model_alone_has_nobody_to_take_turns_with() -> None:
    times, turns = taken("alone")
    assert turns == [("alone", len(times[0]))]
