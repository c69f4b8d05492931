"""Turns at the runtime, the queue in front of it, and the deadline."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np

from device_agent.serving.exchanges import INFER, exchange, scores, until
from edgewright.telemetry.window import decode_otlp


def test_a_request_in_flight_finishes_on_the_version_it_began_with(served_of: Any, api_of: Any) -> None:
    old, new = served_of("1.0.0"), served_of("2.0.0")
    assert not np.array_equal(scores(old), scores(new))
    api = api_of(old)
    with ThreadPoolExecutor() as pool:
        with old.turn:  # the runtime is busy: the request waits
            early = pool.submit(api.infer, [1, 2, 3, 4])
            until(lambda: api.room_taken() == 1)
            api.served = new
            late = pool.submit(api.infer, [1, 2, 3, 4]).result(10)
        early = early.result(10)
    for (status, answer), served, version in ((early, old, "1.0.0"), (late, new, "2.0.0")):
        assert (status, answer["model_version"]) == (200, version)
        assert answer["outputs"][0]["data"] == scores(served)[0].tolist()


def test_an_idle_connection_holds_no_model_that_no_longer_serves(served_of: Any, api_of: Any) -> None:
    api = api_of(served_of("1.0.0"))
    model = weakref.ref(api.served.model)
    with contextlib.closing(api.http()) as connection:
        connection.request("GET", "/v2/models/sorter")
        assert connection.getresponse().read()
        api.served = None
        until(lambda: model() is None)
        connection.request("GET", "/v2/health/live")
        assert connection.getresponse().status == 200


def test_a_full_queue_is_answered_503_at_once_and_those_in_it_are_served(served_of: Any, api_of: Any) -> None:
    served = served_of()
    api = api_of(served, queue=1)
    with ThreadPoolExecutor() as pool:
        with served.turn:
            waiting = [pool.submit(api.infer, [1, 2, 3, 4]) for _ in range(2)]
            until(lambda: api.room_taken() == 2)
            begun = time.monotonic()
            status, answer = api.infer([1, 2, 3, 4])
            assert (status, answer) == (503, {"error": "as many requests wait as may; send fewer at once"})
            assert time.monotonic() - begun < 5  # far below the deadline, on a busy machine too
            assert api.call("/v2/health/live")[0] == 200
        assert [request.result(10)[0] for request in waiting] == [200, 200]
    assert api.answers()


def test_an_inference_that_cannot_begin_before_the_deadline_is_answered_504(
    served_of: Any, api_of: Any
) -> None:
    served = served_of()
    api = api_of(served, deadline_s=0.3)
    with served.turn:
        status, answer = api.infer([1, 2, 3, 4])
    assert (status, answer["error"]) == (
        504,
        "the runtime was busy until the deadline; send fewer requests at once",
    )
    assert served.tally.inferences == 0  # nothing ran: the model is not to blame
    assert api.answers()


def test_many_clients_at_once_each_get_their_own_answer(served_of: Any, api_of: Any) -> None:
    served = served_of()
    api = api_of(served, queue=100)
    inputs = [[i, 2 * i, 3, 255 - i] for i in range(60)]
    with ThreadPoolExecutor(12) as pool:
        answers = list(pool.map(api.infer, inputs))
    for x, (status, answer) in zip(inputs, answers, strict=True):
        assert status == 200
        assert answer["outputs"][0]["data"] == scores(served, np.array([x], np.uint8))[0].tolist()
    assert served.tally.inferences == 60


def test_an_error_of_the_runtime_is_the_clients_answer_and_counts_as_a_failed_inference(
    served_of: Any, api_of: Any
) -> None:
    served = served_of(kind="lookup", rows=8)
    api = api_of(served)
    x = {"name": "x", "datatype": "INT64", "shape": [1], "data": [800]}
    status, answer = api.call(INFER, {"inputs": [x]})
    assert status == 500
    assert answer["error"].startswith("the runtime failed: ")
    assert api.call(INFER, {"inputs": [x | {"data": [1]}]})[0] == 200
    assert (served.tally.errors, served.tally.inferences) == (1, 2)
    until(lambda: served.spent.inferences == 1)
    (window,) = decode_otlp(api.exporter.collect())
    assert (window.errors, window.latency.count) == (1, 1)


def test_a_mistake_of_ours_after_the_answer_is_logged_and_never_a_second_answer(
    served_of: Any, api_of: Any, caplog: Any
) -> None:
    served = dataclasses.replace(served_of(), spent=None)  # what the durations cannot be added to
    api = api_of(served)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
    answers = exchange(api, f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 OK") == 1
    assert "error in the agent while answering" in caplog.text
