from __future__ import annotations

import json
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import edgewright_agent.feed as feed_module
from edgewright.artifact.release import find_artifact
from edgewright.errors import DataError, EdgewrightError, RuntimeUnavailableError
from edgewright.runtime.model import Model, load_artifact
from edgewright_agent.feed import Feed
from edgewright_agent.sinks.json_lines import JsonLines
from edgewright_agent.sinks.sink_error import SinkError
from edgewright_agent.sources.source import Sample, SampleError, SourceMissingError

ROW = {"x": np.zeros((1, 4), np.uint8)}


def missing() -> Any:
    raise SourceMissingError("is not there")


class Script:
    """A source that does one thing after the other, and the last for ever."""

    def __init__(self, *steps: Callable[[], Sample | None]) -> None:
        self.steps = list(steps)
        self.closed = False

    def next(self, timeout_s: float) -> Sample | None:
        return (self.steps.pop(0) if len(self.steps) > 1 else self.steps[0])()

    def close(self) -> None:
        self.closed = True


def gives(prepare: Callable[[Model], Any], *, ready: bool = False) -> Callable[[], Sample]:
    return lambda: Sample(1000.0, prepare, ready)


def fails(error: EdgewrightError) -> Callable[[Model], Any]:
    def prepare(model: Model) -> Any:
        raise error

    return prepare


@pytest.fixture
def model(registry: Any) -> Model:
    registry.release("1.0.0")
    return load_artifact(find_artifact(registry.root))


@pytest.fixture
def errors() -> list[Exception]:
    return []


def test_an_input_says_when_it_was_captured_and_what_preparing_it_took(
    model: Model, errors: list[Exception]
) -> None:
    script = Script(gives(lambda m: ROW), lambda: None, gives(lambda m: ROW, ready=True))
    feed = Feed("d", lambda: script, lambda: None, errors.append)
    first, nothing, raw = (feed.next(model) for _ in range(3))
    assert first is not None
    assert first.preprocessing_s is not None
    assert (first.inputs, first.captured_s, first.preprocessing_s > 0) == (ROW, 1000.0, True)
    assert nothing is None
    assert raw is not None
    assert raw.preprocessing_s is None
    feed.close()
    assert (script.closed, errors) == (True, [])


def test_a_source_that_fails_is_counted_each_time_and_logged_once_until_it_works(
    model: Model, errors: list[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    script = Script(missing, missing, gives(fails(SampleError("is noise"))), missing, gives(lambda m: ROW))
    feed = Feed("d", lambda: script, lambda: None, errors.append)
    with caplog.at_level(logging.WARNING):
        assert [feed.next(model) is None for _ in range(5)] == [True, True, True, True, False]
    assert [type(error).__name__ for error in errors] == [
        "SourceMissingError",
        "SourceMissingError",
        "SampleError",
        "SourceMissingError",
    ]
    assert [record.getMessage() for record in caplog.records] == [
        "the source gives trouble: is not there",
        "the source gives trouble: is noise",
        "the source gives trouble: is not there",
        "the source works again",
    ]


@pytest.mark.parametrize(
    ("open_it", "kind"),
    [
        (missing, "SourceMissingError"),
        (lambda: Script(gives(fails(RuntimeUnavailableError("no Pillow")))), "RuntimeUnavailableError"),
        (lambda: Script(gives(fails(SourceMissingError("no file")))), "SourceMissingError"),
    ],
)
def test_what_cannot_be_opened_is_tried_again_after_growing_pauses(
    open_it: Any, kind: str, model: Model, errors: list[Exception], monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [100.0]
    monkeypatch.setattr(feed_module.time, "monotonic", lambda: now[0])
    feed = Feed("d", open_it, lambda: None, errors.append)
    tried = []
    for _ in range(200):
        before = len(errors)
        assert feed.next(model) is None
        if len(errors) > before:
            tried.append(now[0] - 100.0)
        now[0] += 1.0
    assert tried == [0, 1, 3, 7, 15, 31, 63, 123, 183]
    assert {type(error).__name__ for error in errors} == {kind}


def test_data_that_does_not_fit_is_the_models_failure(model: Model, errors: list[Exception]) -> None:
    feed = Feed("d", lambda: Script(gives(fails(DataError("shape")))), lambda: None, errors.append)
    with pytest.raises(DataError, match="shape"):
        feed.next(model)
    assert errors == []


def test_the_sink_hears_the_real_outputs_and_its_failures_harm_nobody(
    model: Model, errors: list[Exception], tmp_path: Path
) -> None:
    path = tmp_path / "predictions.jsonl"
    sink = JsonLines(path, max_bytes=4096, keep=1)
    feed = Feed("line-3", lambda: Script(gives(lambda m: ROW)), lambda: sink, errors.append)
    taken = feed.next(model)
    assert taken is not None
    outputs = {"scores": np.array([[1, -2, 3]], np.int32)}
    path.mkdir()  # as good as a disk that takes nothing, and for root too
    feed.tell(model, taken, outputs)
    assert [type(error) for error in errors] == [SinkError]
    assert str(errors[0]).startswith(f"a prediction is lost: {path}")
    path.rmdir()
    feed.tell(model, taken, outputs)
    feed.close()
    (line,) = path.read_text().splitlines()
    assert json.loads(line) == {
        "schema": 1,
        "device": "line-3",
        "model": "sorter",
        "version": "1.0.0",
        "captured": "1970-01-01T00:16:40Z",
        "values": {"scores": [1.0, -2.0, 3.0]},
    }
