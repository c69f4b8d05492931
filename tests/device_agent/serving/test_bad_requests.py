"""What no client should send, over a real socket."""

from __future__ import annotations

import contextlib
import json
import re
import threading
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from device_agent.serving.exchanges import INFER, exchange, read_all, until


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


DOCUMENTS = st.integers(0, 255).map(
    lambda x: b'{"inputs":[{"name":"x","datatype":"UINT8","shape":[1,4],"data":[1,2,3,%3d]}]}' % x
)


@st.composite
def requests(draw: st.DrawFn) -> bytes:
    """One after which the connection stays open, with any line ends, and blank lines in its body."""
    line = draw(
        st.sampled_from([f"POST {INFER} HTTP/1.1", "GET /v2/health/live HTTP/1.1", "GET /no HTTP/1.1"])
    )
    blank = draw(st.sampled_from([b"", b"\r\n\r\n", b"\n\n"]))
    body = blank + draw(DOCUMENTS) + blank if line.startswith("POST") else b""
    end = draw(st.sampled_from(["\r\n", "\n"]))
    asks = draw(st.sampled_from([[], ["Expect: 100-continue"]]))
    return end.join([line, f"Content-Length: {len(body)}", *asks, "", ""]).encode() + body


@settings(max_examples=100, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(sent=st.lists(st.tuples(requests(), st.integers(1, 3)), min_size=1, max_size=4))
def test_requests_on_one_connection_are_answered_as_each_on_its_own(
    api: Any, sent: list[tuple[bytes, int]]
) -> None:
    all_of_them = [request for request, times in sent for _ in range(times)]
    assert exchange(api, b"".join(all_of_them)) == b"".join(exchange(api, one) for one in all_of_them)
