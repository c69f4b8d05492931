"""Where the inference API listens: a Unix socket, a TCP port, or both, for as long as the agent runs.

An address that cannot be had (a port that is taken, a folder that is not there yet) is tried again and again: it
must not keep the device from serving its own sources and from taking the update that mends it.
"""

from __future__ import annotations

import contextlib
import logging
import socket
import socketserver
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright_agent.config import ServingConfig
from edgewright_agent.exporter import Exporter
from edgewright_agent.inference import Served
from edgewright_agent.serving.http_api import Connection, Service

log = logging.getLogger("edgewright.agent")
MAX_CONNECTIONS = 64
"""Open at once, each a thread; many more than the applications of a device."""
RETRY_S = 5.0
"""Between two attempts to listen."""
GOODBYE_S = 2.0
"""How long a stop waits for the requests in flight."""
POLL_S = 0.5
"""Between two looks at whether to stop."""


class Listener(socketserver.ThreadingMixIn, socketserver.TCPServer):
    """A socket that listens, and a thread for each of its connections."""

    daemon_threads = True
    block_on_close = False
    allow_reuse_address = True
    request_queue_size = MAX_CONNECTIONS

    def __init__(self, service: Service, address: Path | tuple[str, int]) -> None:
        """Listen at a path or at an address and port. Raises `OSError`."""
        self.address_family = family(address)
        self._doors = threading.Semaphore(MAX_CONNECTIONS)
        handler = type("Connection", (Connection,), {"service": service})
        super().__init__(address, handler, bind_and_activate=False)  # type: ignore[arg-type]
        try:
            if isinstance(address, Path):
                free(address)
                self.socket.bind(str(address))
                address.chmod(0o660)  # nobody can connect before it listens, two lines below
            else:
                self.server_bind()
            self.server_activate()
        except OSError:
            self.server_close()
            raise

    def get_request(self) -> tuple[socket.socket, Any]:
        try:
            connection, peer = super().get_request()
        except OSError:
            time.sleep(POLL_S)  # out of file descriptors: the same would come again at once
            raise
        if self.address_family != socket.AF_UNIX:
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return connection, peer

    def verify_request(self, request: Any, client_address: Any) -> bool:
        """Take a connection while there is room for it; others are closed, and clients may try again."""
        return self._doors.acquire(blocking=False)

    def process_request(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request(request, client_address)
        except RuntimeError:  # the system has no more threads
            self._doors.release()
            raise

    def process_request_thread(self, request: Any, client_address: Any) -> None:
        try:
            super().process_request_thread(request, client_address)
        finally:
            self._doors.release()

    def handle_error(self, request: Any, client_address: Any) -> None:
        log.debug("a connection to the inference API broke", exc_info=True)


def family(address: Path | tuple[str, int]) -> socket.AddressFamily:
    """The family of sockets that an address belongs to."""
    if isinstance(address, Path):
        return socket.AF_UNIX
    return socket.AF_INET6 if ":" in address[0] else socket.AF_INET


def free(path: Path) -> None:
    """Remove a socket that a process left behind when it was killed. Raises `OSError` where one listens."""
    if not path.is_socket():
        return  # whatever else is there, bind says so
    with socket.socket(socket.AF_UNIX) as probe:
        probe.settimeout(1.0)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)


@contextlib.contextmanager
def listening(
    config: ServingConfig, current: Callable[[], Served | None], exporter: Exporter
) -> Iterator[Service]:
    """Answer requests with what `current` gives while the block runs; the end lets those in flight finish."""
    service = Service(config, current, exporter, threading.Semaphore(config.queue + 1))
    addresses: list[Path | tuple[str, int]] = []
    if config.socket is not None:
        addresses.append(config.socket)
    if config.port is not None:
        addresses.append((str(config.address), config.port))
        if not config.address.is_loopback:
            log.warning(
                "the inference API is open to the network at %s: it knows no passwords", config.address
            )
    stopping = threading.Event()
    threads = [
        threading.Thread(target=_listen, args=(service, address, stopping), name="inference API", daemon=True)
        for address in addresses
    ]
    for thread in threads:
        thread.start()
    try:
        yield service
    finally:
        stopping.set()
        for thread in threads:
            thread.join()
        end = time.monotonic() + GOODBYE_S
        for _ in range(config.queue + 1):
            service.room.acquire(timeout=max(0.0, end - time.monotonic()))


def _listen(service: Service, address: Path | tuple[str, int], stopping: threading.Event) -> None:
    complained = False
    while not stopping.is_set():
        try:
            listener = Listener(service, address)
        except OSError as error:
            if not complained:
                log.warning("cannot listen at %s (%s); trying again", address, error.strerror or error)
            complained = True
            stopping.wait(RETRY_S)
            continue
        log.info("the inference API listens at %s", address)
        with listener:
            listener.timeout = POLL_S
            while not stopping.is_set():
                listener.handle_request()
        if isinstance(address, Path):
            address.unlink(missing_ok=True)
        return
