"""A real client, a real socket, and everything that may come over it."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import re
import socket
import threading
import time
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from tritonclient.utils import InferenceServerException

from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.telemetry.window import decode_otlp

X = np.array([[1, 2, 3, 4]], np.uint8)
INFER = "/v2/models/sorter/infer"


def scores(served: Any, x: np.ndarray = X) -> np.ndarray:
    return served.model.run_raw({"x": x})["scores"]


def exchange(api: Any, data: bytes) -> bytes:
    """Send bytes, send no more, and read until the other end closes."""
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(data)
        connection.shutdown(socket.SHUT_WR)
        return read_all(connection)


def read_all(connection: socket.socket) -> bytes:
    parts = []
    while part := connection.recv(1 << 16):
        parts.append(part)
    return b"".join(parts)


def until(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.005)


# --- what a client asks for -------------------------------------------------------------------------------------


@pytest.fixture
def client(served_of: Any, api_of: Any) -> Any:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = api_of(served_of(), port=port)
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    until(lambda: _listens(port))
    client.api = api
    yield client
    client.close()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_tritonclient_finds_the_model(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("sorter") and client.is_model_ready("sorter", "1.0.0")
    assert not client.is_model_ready("sorter", "2.0.0") and not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "edgewright-agent"
    metadata = client.get_model_metadata("sorter")
    assert metadata["inputs"] == [{"name": "x", "datatype": "UINT8", "shape": [1, 4]}]
    assert metadata["outputs"] == [{"name": "scores", "datatype": "INT32", "shape": [1, 3]}]
    assert client.get_model_config("sorter", "1.0.0")["input"][0]["data_type"] == "TYPE_UINT8"
    assert client.get_model_repository_index() == [
        {"name": "sorter", "version": "1.0.0", "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tritonclient_infers(client: Any, binary_in: bool, binary_out: bool | None) -> None:
    x = triton.InferInput("x", [1, 4], "UINT8")
    x.set_data_from_numpy(X, binary_data=binary_in)
    wanted = None if binary_out is None else [triton.InferRequestedOutput("scores", binary_data=binary_out)]
    result = client.infer("sorter", [x], outputs=wanted, request_id="7")
    assert np.array_equal(result.as_numpy("scores"), scores(client.api.served))
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "sorter", "1.0.0")


def test_tritonclient_reads_statistics(client: Any) -> None:
    x = triton.InferInput("x", [1, 4], "UINT8")
    x.set_data_from_numpy(X)
    for _ in range(3):
        client.infer("sorter", [x], model_version="1.0.0")
    until(lambda: client.api.served.spent.inferences == 3)
    (stats,) = client.get_inference_statistics("sorter")["model_stats"]
    assert (stats["name"], stats["version"], stats["inference_count"]) == ("sorter", "1.0.0", 3)
    parts = stats["inference_stats"]
    assert parts["fail"]["count"] == 0
    spent = [parts[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert all(ns > 0 for ns in spent)
    assert abs(sum(spent) - parts["success"]["ns"]) < 5


def test_tritonclient_is_told_what_is_wrong(client: Any) -> None:
    x = triton.InferInput("x", [4], "UINT8")
    x.set_data_from_numpy(X[0])
    with pytest.raises(
        InferenceServerException, match=r"raw input 'x' is uint8\[4\]; it takes uint8\[1, 4\]"
    ):
        client.infer("sorter", [x])
    with pytest.raises(InferenceServerException, match=r"the device serves sorter:1\.0\.0, not 'other'"):
        client.infer("other", [x])
    text = triton.InferInput("x", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"cat"], object))
    with pytest.raises(InferenceServerException, match="has the datatype 'BYTES'; known are BOOL, UINT8"):
        client.infer("sorter", [text])


def test_tritonclient_reads_why_its_request_was_too_large(client: Any) -> None:
    x = triton.InferInput("x", [20 << 20], "UINT8")
    x.set_data_from_numpy(np.zeros(20 << 20, np.uint8))
    with pytest.raises(InferenceServerException, match=r"has 2097\d+ bytes; at most 16777216 are taken"):
        client.infer("sorter", [x])
    assert client.is_server_live()


QUANTISED = {
    "inputs": (
        TensorSpec(
            name="x",
            runtime_name="x",
            shape=(1, 4),
            dtype="uint8",
            quantisation=Quantisation(scale=0.5, zero_point=10),
            permutation=(1, 0),
        ),
    ),
    "outputs": (
        TensorSpec(
            name="scores",
            runtime_name="scores",
            shape=(1, 3),
            dtype="int32",
            quantisation=Quantisation(scale=0.25, zero_point=0),
        ),
    ),
}


def test_a_client_sends_floats_and_gets_floats_where_it_says_so(served_of: Any, api_of: Any) -> None:
    served = served_of(**QUANTISED)
    api = api_of(served)
    shown = api.call("/v2/models/sorter")[1]["inputs"][0]
    assert shown["parameters"] == {"scale": 0.5, "zero_point": 10, "source_shape": [4, 1]}
    assert (shown["datatype"], shown["shape"]) == ("UINT8", [1, 4])

    real = {"name": "x", "datatype": "FP32", "shape": [4, 1], "data": [0.0, 0.5, -1.0, 2.0]}
    status, answer = api.call(INFER, {"inputs": [real], "parameters": {"raw": False}})
    expected = scores(served, np.array([[10, 11, 8, 14]], np.uint8)) * 0.25
    assert status == 200
    assert answer["outputs"] == [
        {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": expected[0].tolist()}
    ]

    status, answer = api.infer([10, 11, 8, 14])
    assert answer["outputs"][0]["data"] == (expected * 4).astype(int)[0].tolist()
    assert answer["outputs"][0]["datatype"] == "INT32"

    status, answer = api.call(INFER, {"inputs": [real]})
    assert status == 400
    assert "raw input 'x' is float32[4, 1]; it takes uint8[1, 4]" in answer["error"]


def test_tritonclient_sends_floats_and_gets_floats(client: Any, served_of: Any) -> None:
    client.api.served = served = served_of("2.0.0", **QUANTISED)
    x = triton.InferInput("x", [4, 1], "FP32")
    x.set_data_from_numpy(np.array([[0.0], [0.5], [-1.0], [2.0]], np.float32))
    got = client.infer("sorter", [x], parameters={"raw": False}).as_numpy("scores")
    assert got.dtype == np.float32
    assert np.array_equal(got, scores(served, np.array([[10, 11, 8, 14]], np.uint8)) * np.float32(0.25))


def test_a_device_without_a_model_is_alive_and_not_ready(api_of: Any) -> None:
    api = api_of(None)
    assert api.call("/v2/health/live") == (200, {"live": True})
    assert api.call("/v2/health/ready") == (400, {"ready": False})
    assert api.infer([1, 2, 3, 4]) == (404, {"error": "the device serves no model yet"})
    assert api.call("/v2/models/stats") == (200, {"model_stats": []})
    assert api.call("/v2/repository/index", {}) == (200, [])


# --- turns, queue and deadline ----------------------------------------------------------------------------------


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
    served = dataclasses.replace(served_of(), attributes=[])  # what the exporter cannot count by
    api = api_of(served)
    body = json.dumps({"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 4], "data": [1, 2, 3, 4]}]})
    answers = exchange(api, f"POST {INFER} HTTP/1.1\r\nContent-Length: {len(body)}\r\n\r\n{body}".encode())
    assert answers.count(b"HTTP/1.1 ") == answers.count(b"HTTP/1.1 200 OK") == 1
    assert "error in the agent while answering" in caplog.text


# --- what no client should send ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "method", "status", "error"),
    [
        ("/", "GET", 404, "there is no '' here; see GET /v2"),
        ("/v2/models", "GET", 404, "there is no '/v2/models' here"),
        ("/v2/models/sorter/trace", "GET", 404, "a model has no 'trace'"),
        ("/v2/models/sorter/versions/9", "GET", 404, "the device serves sorter:1.0.0, not 'sorter:9'"),
        (
            "/v2/repository/models/sorter/unload",
            "POST",
            404,
            "there is no '/v2/repository/models/sorter/unload'",
        ),
        (INFER, "GET", 405, "infer takes a POST"),
        (INFER, "PUT", 501, "Unsupported method"),
        (INFER, "POST", 400, "request: Invalid JSON"),
    ],
)
def test_a_request_for_what_is_not_there_is_answered_in_the_protocols_form(
    api: Any, path: str, method: str, status: int, error: str
) -> None:
    got, answer = api.call(path, method=method)
    assert got == status
    assert error in answer["error"]
    assert "\n" not in answer["error"]


@pytest.mark.parametrize(
    ("lines", "status", "error"),
    [
        ("Content-Length: 99999999999", 413, "the request has 99999999999 bytes; at most 16777216 are taken"),
        ("Content-Length: 99999999\r\nExpect: 100-continue", 413, "the request has 99999999 bytes"),
        ("Content-Length: -1", 400, "Content-Length is not one number"),
        ("Content-Length: 1\r\nContent-Length: 2", 400, "Content-Length is not one number"),
        ("Content-Length: 1_0", 400, "Content-Length is not one number"),
        ("Content-Length: " + "9" * 5000, 400, "Content-Length is not one number"),
        ("Transfer-Encoding: chunked", 411, "send a Content-Length"),
        ("Content-Encoding: gzip\r\nContent-Length: 9", 415, "a compressed body is not taken"),
        (
            "Content-Length: 9\r\nInference-Header-Content-Length: 10",
            400,
            "is not a number up to the Content-Length",
        ),
        (
            "Content-Length: 9\r\nInference-Header-Content-Length: x",
            400,
            "is not a number up to the Content-Length",
        ),
        (
            "Content-Length: 8000000",
            413,
            "the JSON has 8000000 bytes; at most 4194304 are taken; send tensors as",
        ),
        ("X: " + "y" * 70_000, 431, "Line too long"),
        ("\r\n".join(f"X-{i}: y" for i in range(200)), 431, "Too many headers"),
    ],
)
def test_a_request_is_refused_by_its_headers_before_a_body_is_sent(
    api: Any, lines: str, status: int, error: str
) -> None:
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\n{lines}\r\n\r\n".encode())
        head, _, body = read_all(connection).partition(b"\r\n\r\n")
    assert head.startswith(f"HTTP/1.1 {status} ".encode())
    assert error in json.loads(body)["error"]
    assert b"Connection: close" in head
    assert api.answers()


def test_a_client_that_sends_all_before_it_reads_still_reads_why_it_was_refused(api: Any) -> None:
    size = 20 << 20
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: {size}\r\n\r\n".encode())
        connection.sendall(bytes(size))
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_asks_first_is_told_to_go_on(api: Any) -> None:
    document = json.dumps(
        {"inputs": [{"name": "x", "datatype": "UINT8", "shape": [1, 4], "data": [1, 2, 3, 4]}]}
    )
    head = (
        f"POST {INFER} HTTP/1.1\r\nHost: x\r\nExpect: 100-continue\r\nContent-Length: {len(document)}\r\n\r\n"
    )
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(head.encode())
        assert connection.recv(1000) == b"HTTP/1.1 100 Continue\r\n\r\n"
        connection.sendall(document.encode())
        assert connection.recv(1 << 16).startswith(b"HTTP/1.1 200 OK\r\n")


def test_a_body_that_trickles_in_is_cut_off_at_the_deadline(served_of: Any, api_of: Any) -> None:
    api = api_of(served_of(), deadline_s=0.5)
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode())
        stop = threading.Event()

        def trickle() -> None:
            with contextlib.suppress(OSError):
                while not stop.wait(0.05):  # each byte is in time, the whole is not
                    connection.sendall(b" ")

        sender = threading.Thread(target=trickle)
        sender.start()
        answer = read_all(connection)
        stop.set()
        sender.join()
    assert answer.startswith(b"HTTP/1.1 408 ")
    assert b"the request was not whole in 0.5 s" in answer
    assert api.answers()


def test_headers_that_never_end_are_cut_off_at_the_deadline(served_of: Any, api_of: Any) -> None:
    api = api_of(served_of(), deadline_s=0.5)
    with contextlib.closing(api.socket()) as connection:
        connection.sendall(b"POST / HTTP/1.1\r\nHost:")
        assert read_all(connection) == b""
    assert api.answers()


def test_a_client_that_leaves_in_the_middle_harms_nobody(api: Any) -> None:
    head = f"POST {INFER} HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n".encode()
    for part in (b"", head[:20], head, head + b"{" * 500):
        connection = api.socket()
        connection.sendall(part)
        connection.close()
    assert b"the connection ended before the body did" in exchange(api, head + b"{" * 500)
    assert api.answers()
    until(lambda: api.room_taken() == 0)


def test_requests_sent_before_their_answers_are_read_are_answered_in_order(api: Any) -> None:
    answers = exchange(api, b"GET /v2/health/live HTTP/1.1\r\n\r\nGET /v2/health/ready HTTP/1.1\r\n\r\n")
    assert re.findall(rb"{.*?}", answers) == [b'{"live": true}', b'{"ready": true}']


def test_more_connections_than_there_is_room_for_are_closed_and_taken_again_later(api: Any) -> None:
    with contextlib.ExitStack() as stack:
        crowd = [stack.enter_context(contextlib.closing(api.socket())) for _ in range(70)]
        crowd[-1].settimeout(10)
        with contextlib.suppress(ConnectionError):
            assert crowd[-1].recv(1) == b""
        crowd[0].sendall(b"GET /v2/health/live HTTP/1.1\r\n\r\n")
        assert crowd[0].recv(1000).startswith(b"HTTP/1.1 200")

    def answered() -> bool:
        with contextlib.suppress(OSError):
            return api.answers()
        return False

    until(answered)


HEADERS = st.dictionaries(
    st.sampled_from(
        [
            "Content-Length",
            "Transfer-Encoding",
            "Inference-Header-Content-Length",
            "Expect",
            "Connection",
            "Host",
        ]
    )
    | st.text(st.characters(max_codepoint=255), max_size=8),
    st.sampled_from(
        ["0", "5", "-1", "chunked", "100-continue", "close", "keep-alive", "99999999999999999999"]
    )
    | st.integers(0, 80).map(str)
    | st.text(st.characters(max_codepoint=255), max_size=12),
    max_size=5,
)
REQUEST_LINES = st.sampled_from(
    [f"POST {INFER} HTTP/1.1", f"POST {INFER} HTTP/1.0", f"GET {INFER}", "GET /v2 HTTP/1.1", "PRI * HTTP/2.0"]
) | st.text(st.characters(max_codepoint=255), max_size=30)
BODIES = st.binary(max_size=60) | st.sampled_from(
    [b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[1,4],"data":[1,2,3,4]}]}', b'{"inputs":[]}']
)


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(line=REQUEST_LINES, headers=HEADERS, body=BODIES, whole=st.booleans())
def test_whatever_bytes_come_the_next_client_is_served(
    api: Any, caplog: Any, line: str, headers: dict[str, str], body: bytes, whole: bool
) -> None:
    if whole:
        headers = {**headers, "Content-Length": str(len(body))}
    head = "\r\n".join([line, *(f"{name}: {value}" for name, value in headers.items())])
    answer = exchange(api, head.encode("latin-1") + b"\r\n\r\n" + body)
    if answer.startswith(b"HTTP/1.1 "):
        assert int(answer.split()[1]) not in (500, 503)
        assert answer.isascii()
    assert api.answers()
    assert not [entry for entry in caplog.records if entry.levelname in ("ERROR", "CRITICAL")]
