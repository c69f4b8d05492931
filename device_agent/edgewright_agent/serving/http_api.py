"""One connection to the inference API: HTTP requests in, answers out, whatever the other end sends.

The HTTP is that of the standard library's `http.server`, a thread a connection: nothing to install, and no request
is handed from one thread to another. Bare servers that took 150 kB over a Unix socket and gave 4 kB back, call by
call in turns on a busy two-core x86-64 host, took at the median: `http.server` 0.15 to 0.20 ms, httptools 0.20 to
0.23, h11 0.31 to 0.46 (both in threads, too), aiohttp 0.35. It leaves to us what is here: lengths, deadlines and
errors. A request is refused before its body is read where its length or the queue says so; one that trickles in is
cut off.
"""

from __future__ import annotations

import contextlib
import io
import json
import logging
import re
import socket
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler
from threading import Semaphore
from typing import Any

import numpy as np

from edgewright.errors import DataError, EdgewrightError
from edgewright_agent.config import ServingConfig
from edgewright_agent.exporter import Exporter
from edgewright_agent.inference import (
    Durations,
    InferenceFailedError,
    Served,
    TurnMissedError,
    execute,
    record,
)
from edgewright_agent.serving import documents
from edgewright_agent.serving.channel import Channel
from edgewright_agent.serving.protocol import read_request, write_response

log = logging.getLogger("edgewright.agent")
HEADER_LENGTH = "Inference-Header-Content-Length"
MAX_JSON_BYTES = 4 << 20
"""Of the JSON of one request: parsed, it takes ten times its bytes as numbers, twenty as empty lists."""
ALIGNMENT = 16
"""Bytes: what NumPy gives an array, and more than any of the protocol's data types takes."""
IDLE_S = 300.0
"""How long a connection may stay open between two requests."""
LINGER_S = 2.0
"""How long a refused client may go on sending; cut off at once it would never read why."""
_MODEL = re.compile(r"/v2/models/(?P<name>[^/]+)(?:/versions/(?P<version>[^/]+))?(?:/(?P<action>[a-z]+))?")


class RefusedError(EdgewrightError):
    """A request that is answered with an error status."""

    def __init__(self, status: HTTPStatus, problem: str, *, remedy: str = "") -> None:
        super().__init__(problem, remedy=remedy)
        self.status = status


@dataclass(frozen=True)
class Service:
    """What all connections share: the model of the moment, the limits, and the room for requests."""

    config: ServingConfig
    current: Callable[[], Served | None]
    exporter: Exporter
    room: Semaphore
    """A place for the request that runs and one for each that waits."""


class Connection(BaseHTTPRequestHandler):
    """Answers the requests of one connection, one after another."""

    protocol_version = "HTTP/1.1"
    service: Service  # set by the listener, on a class of its own

    def setup(self) -> None:
        self.connection = self.request
        self._channel = Channel(self.connection)
        self.rfile = self._reader = io.BufferedReader(self._channel)
        self.wfile = io.BufferedWriter(self._channel, 1 << 16)
        self._unread = 0
        # That `command`, `path` and `headers` are read from: a client sends the same again and again, and to parse
        # it is most of what HTTP costs.
        self._head = b""

    def handle_one_request(self) -> None:
        self._channel.deadline = time.monotonic() + IDLE_S
        self.close_connection = True
        with contextlib.suppress(TimeoutError):
            if begun := self._reader.peek(1):
                self._channel.deadline = time.monotonic() + self.service.config.deadline_s
                if self._head and begun.startswith(self._head):
                    self._reader.read(len(self._head))
                    self.close_connection = False
                    self.do_GET()
                else:
                    super().handle_one_request()
                    again = not self.close_connection and "Expect" not in self.headers
                    self._head = _whole_head(begun) if again else b""

    def do_GET(self) -> None:
        """Answer, with the protocol's error where there is one."""
        # Read once: a request ends on the version it began with. Not kept: a connection that is idle must not hold
        # a model in memory that no longer serves.
        served = self.service.current()
        self._answered = False
        try:
            self._unread = self._content_length()
            self._route(self.path.partition("?")[0].rstrip("/"), served)
        except EdgewrightError as error:
            self._refuse(_status_of(error), error)
        except OSError:  # the other end is gone or too slow: nobody reads an answer
            self.close_connection = True
        except Exception:  # no request may end the agent or go without an answer
            log.exception("error in the agent while answering %s", self.path)
            self.close_connection = True
            if not self._answered:
                self._refuse(HTTPStatus.INTERNAL_SERVER_ERROR, "error in the agent; its log says more")

    do_POST = do_GET  # noqa: N815 - the name that http.server looks for

    def handle_expect_100(self) -> bool:
        """Let a client that asks first send its body, unless it is refused anyway."""
        try:
            self._content_length()
        except RefusedError as error:
            self._refuse(error.status, error)
            return False
        self.wfile.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        self.wfile.flush()
        return True

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What the standard library refuses: no HTTP, a method or version that nobody has."""
        self.close_connection = True
        self._refuse(HTTPStatus(code), message or HTTPStatus(code).phrase)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the base class's name
        log.debug(format, *args)

    def _content_length(self) -> int:
        if "Transfer-Encoding" in self.headers:
            problem = "a body in chunks is not taken; send a Content-Length"
            raise self._final(HTTPStatus.LENGTH_REQUIRED, problem)
        if "Content-Encoding" in self.headers:
            raise self._final(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "a compressed body is not taken")
        lengths = set(self.headers.get_all("Content-Length", ["0"]))
        text = lengths.pop()
        if lengths or not (text.isascii() and text.isdigit()) or len(text) > 18:
            raise self._final(HTTPStatus.BAD_REQUEST, "Content-Length is not one number")
        length, limit = int(text), self.service.config.max_request_bytes
        if length > limit:
            raise self._final(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the request has {length} bytes; at most {limit} are taken",
            )
        return length

    def _final(self, status: HTTPStatus, problem: str) -> RefusedError:
        """An error after which nobody knows where the next request begins."""
        self.close_connection = True
        return RefusedError(status, problem)

    def _route(self, path: str, served: Served | None) -> None:
        if path == "/v2/health/live":
            self._answer({"live": True})
        elif path == "/v2/health/ready":
            # The protocol: 200 is yes, 4xx is no.
            self._answer({"ready": served is not None}, HTTPStatus.OK if served else HTTPStatus.BAD_REQUEST)
        elif path == "/v2":
            self._answer(documents.server_metadata())
        elif path == "/v2/repository/index":
            self._answer(documents.repository_index(served))
        elif path == "/v2/models/stats":
            self._answer(documents.statistics(served) if served else {"model_stats": []})
        elif match := _MODEL.fullmatch(path):
            self._route_model(_named(served, match["name"], match["version"]), match["action"])
        else:
            raise RefusedError(HTTPStatus.NOT_FOUND, f"there is no {path[:80]!r} here", remedy="see GET /v2")

    def _route_model(self, served: Served, action: str | None) -> None:
        if action is None:
            self._answer(documents.model_metadata(served))
        elif action == "ready":
            self._answer({"ready": True})
        elif action == "config":
            self._answer(documents.model_configuration(served))
        elif action == "stats":
            self._answer(documents.statistics(served))
        elif action != "infer":
            raise RefusedError(HTTPStatus.NOT_FOUND, f"a model has no {action[:40]!r}", remedy="see GET /v2")
        elif self.command != "POST":
            raise RefusedError(HTTPStatus.METHOD_NOT_ALLOWED, "infer takes a POST")
        elif not self.service.room.acquire(blocking=False):
            raise RefusedError(
                HTTPStatus.SERVICE_UNAVAILABLE, "as many requests wait as may", remedy="send fewer at once"
            )
        else:
            try:
                body, headers, spent = self._infer(served)
            finally:
                self.service.room.release()
            self._send(HTTPStatus.OK, body, headers)
            # After the answer, so that nobody waits for the bookkeeping.
            record(served, self.service.exporter, spent)

    def _infer(self, served: Served) -> tuple[bytes, Mapping[str, str], Durations]:
        """The answer's body and headers, and where the time went."""
        document, tensors = self._body()
        begun = time.perf_counter()
        model, release = served.model, served.content.release
        request = read_request(document, tensors, model.outputs)
        prepared = model.prepare(request.inputs, raw=request.raw)
        preprocessing = time.perf_counter() - begun
        results, spent = execute(served, self.service.exporter, prepared, deadline=self._channel.deadline)
        ran = time.perf_counter()
        outputs = model.finish(results, raw=request.raw)
        response = write_response(request, outputs, model=release.name, version=release.version)
        headers = {}
        if response.tensors:
            headers = {"Content-Type": "application/octet-stream", HEADER_LENGTH: str(len(response.json))}
        body = b"".join((response.json, *response.tensors))
        return body, headers, spent + Durations(preprocessing, postprocessing=time.perf_counter() - ran)

    def _body(self) -> tuple[bytes, memoryview]:
        """The JSON and what follows it. Raises `RefusedError`."""
        length = self._unread
        text = self.headers.get(HEADER_LENGTH, str(length))
        json_length = int(text) if text.isascii() and text.isdigit() and len(text) <= 18 else -1
        if not 0 <= json_length <= length:
            raise DataError(f"{HEADER_LENGTH} is not a number up to the Content-Length, {length}")
        if json_length > MAX_JSON_BYTES:
            raise RefusedError(
                HTTPStatus.REQUEST_ENTITY_TOO_LARGE,
                f"the JSON has {json_length} bytes; at most {MAX_JSON_BYTES} are taken",
                remedy="send tensors as binary data",
            )
        # Read at once, with the tensors where the processor wants them.
        before = -json_length % ALIGNMENT
        body = np.empty(before + length, np.uint8).data[before:]
        try:
            received = self._reader.readinto(body)
        except TimeoutError:
            raise self._final(
                HTTPStatus.REQUEST_TIMEOUT, f"the request was not whole in {self.service.config.deadline_s} s"
            ) from None
        if received < length:
            raise self._final(HTTPStatus.BAD_REQUEST, "the connection ended before the body did")
        self._unread = 0
        return bytes(body[:json_length]), body[json_length:]

    def _refuse(self, status: HTTPStatus, problem: EdgewrightError | str) -> None:
        self._answer({"error": str(problem)}, status)

    def _answer(self, document: Any, status: HTTPStatus = HTTPStatus.OK) -> None:
        self._send(status, json.dumps(document).encode())

    def _send(self, status: HTTPStatus, body: bytes, headers: Mapping[str, str] | None = None) -> None:
        """Write an answer; a body that nobody read goes the way of the connection."""
        self._answered = True
        self.close_connection = self.close_connection or self._unread > 0
        self.send_response_only(status)
        for name, value in {"Content-Type": "application/json", **(headers or {})}.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self._channel.deadline = time.monotonic() + self.service.config.deadline_s
        try:
            self.end_headers()
            self.wfile.write(body)
            self.wfile.flush()
            if self.close_connection:
                self._linger()
        except OSError:  # the other end is gone or does not read
            self.close_connection = True

    def _linger(self) -> None:
        self.connection.shutdown(socket.SHUT_WR)
        self._channel.deadline = time.monotonic() + LINGER_S
        while self._reader.read1(1 << 16):
            pass


def _whole_head(begun: bytes) -> bytes:
    """Request line and headers; nothing where they have not come whole, or with line ends that hide their own."""
    head = begun[: begun.find(b"\r\n\r\n") + 4]
    return head if len(head) > 4 and head.count(b"\n") == head.count(b"\r\n") else b""


def _named(served: Served | None, name: str, version: str | None) -> Served:
    if served is None:
        raise RefusedError(HTTPStatus.NOT_FOUND, "the device serves no model yet")
    release = served.content.release
    if name != release.name or version not in (None, release.version):
        asked = f"{name}:{version}" if version else name
        raise RefusedError(HTTPStatus.NOT_FOUND, f"the device serves {release}, not {asked[:80]!r}")
    return served


def _status_of(error: EdgewrightError) -> HTTPStatus:
    if isinstance(error, RefusedError):
        return error.status
    if isinstance(error, TurnMissedError):
        return HTTPStatus.GATEWAY_TIMEOUT
    if isinstance(error, InferenceFailedError):
        return HTTPStatus.INTERNAL_SERVER_ERROR
    return HTTPStatus.BAD_REQUEST
