"""The hub's HTTP server: the standard library's, one thread a connection, with the headers that every answer
has.

Plain HTTP and loopback by default; on a network it belongs behind a proxy that speaks TLS, whose address is
given as an origin. Connections, waits and bodies are bounded, so that a slow or endless client costs one
thread for a while.
"""

from __future__ import annotations

import contextlib
import gzip
import logging
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qsl, unquote, urlsplit

from edgewright.errors import ConfigError
from edgewright_fleet.hub.site import Request, Response, Site

log = logging.getLogger("edgewright.hub")
MAX_BODY = 4096
MAX_CONNECTIONS = 128
WAIT_S = 15.0
HEADERS = (
    (
        "Content-Security-Policy",
        "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; connect-src 'self'; "
        "form-action 'self'; base-uri 'none'; frame-ancestors 'none'",
    ),
    ("X-Frame-Options", "DENY"),
    ("X-Content-Type-Options", "nosniff"),
    # Not no-referrer, with which browsers send forms with the origin "null".
    ("Referrer-Policy", "same-origin"),
    ("Cross-Origin-Opener-Policy", "same-origin"),
    ("Cross-Origin-Resource-Policy", "same-origin"),
    ("Permissions-Policy", "camera=(), geolocation=(), microphone=()"),
)


class _Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 64

    def __init__(self, address: tuple[str, int], site: Site) -> None:
        self.site = site
        self._free = threading.BoundedSemaphore(MAX_CONNECTIONS)
        super().__init__(address, _Handler)

    def process_request(self, request: Any, client_address: Any) -> None:
        if self._free.acquire(blocking=False):
            super().process_request(request, client_address)
        else:
            self.shutdown_request(request)

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._free.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection ended early", exc_info=True)


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    server_version, sys_version = "edgewright-hub", ""
    timeout = WAIT_S
    server: _Server

    def do_GET(self) -> None:
        if self.headers.get("Content-Length") or self.headers.get("Transfer-Encoding"):
            self.close_connection = True  # what follows is no request
        self._answer(b"")

    do_HEAD = do_GET  # noqa: N815 - the name that http.server looks for

    def do_POST(self) -> None:
        length = self.headers.get("Content-Length", "")
        chunked = self.headers.get("Transfer-Encoding") is not None
        if chunked or not length.isdecimal() or int(length) > MAX_BODY:
            self.close_connection = True
            self._send(Response(413, b"too long\n", "text/plain"))
            return
        self._answer(self.rfile.read(int(length)))

    def send_error(self, code: int, message: str | None = None, explain: str | None = None) -> None:
        """What http.server itself refuses, with the headers that every answer has."""
        self.close_connection = True
        self._send(Response(code, b"refused\n", "text/plain"))

    def _answer(self, body: bytes) -> None:
        parts = urlsplit(self.path)
        headers = {key.lower(): value for key, value in self.headers.items()}
        method = "POST" if self.command == "POST" else "GET"
        request = Request(method, unquote(parts.path), dict(parse_qsl(parts.query)), headers, body)
        try:
            response = self.server.site.respond(request)
        except Exception:  # a fault of ours must not end the hub, nor show its inside
            log.exception("%s %s", method, ascii(parts.path))
            response = Response(500, b"the hub failed; see its log\n", "text/plain")
        self._send(response)

    def _send(self, response: Response) -> None:
        body = response.body
        self.send_response(response.status)
        for name, value in (*HEADERS, *response.headers):
            self.send_header(name, value)
        if not any(name == "Cache-Control" for name, _ in response.headers):
            self.send_header("Cache-Control", "no-store")
        asked = getattr(self, "headers", None)  # there are none where the first line is no HTTP
        if len(body) > 1024 and asked and "gzip" in asked.get("Accept-Encoding", ""):
            body = gzip.compress(body, 5)
            self.send_header("Content-Encoding", "gzip")
        self.send_header("Content-Type", response.content_type)
        self.send_header("Content-Length", str(len(body)))
        if self.close_connection:
            self.send_header("Connection", "close")
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(body)

    def log_message(self, format: str, *args: Any) -> None:  # noqa: A002 - the name it has there
        log.debug(format, *args)


@contextlib.contextmanager
def serving(site: Site, host: str, port: int) -> Iterator[int]:
    """The site served while the block runs; gives its port, as 0 takes a free one. Raises `ConfigError`."""
    try:
        server = _Server((host, port), site)
    except OSError as error:
        raise ConfigError(
            f"cannot be listened on ({error.strerror or error})",
            where=f"{host}:{port}",
            remedy="choose another --listen",
        ) from None
    thread = threading.Thread(target=server.serve_forever, name="hub-web", daemon=True)
    thread.start()
    try:
        yield int(server.server_address[1])
    finally:
        server.shutdown()
        server.server_close()
        thread.join(5)
