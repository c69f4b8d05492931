"""A real S3-compatible server for the tests: Ceph's object gateway over a monitor and one store in memory.

All three are Debian's (`ceph-mon`, `ceph-osd`, `radosgw`), on ports of the loopback interface that were free, with
their files in a folder of the test.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shutil
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest

from edgewright.object_store.s3 import S3Store
from edgewright.object_store.s3_requests import Address, Requests
from edgewright.object_store.signature import Credentials

PROGRAMS = ("ceph-mon", "ceph-osd", "radosgw", "radosgw-admin", "ceph")
CREDENTIALS = Credentials("device-access", "device-secret")
START_S = 90.0


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@dataclass
class Gateway:
    """The three daemons."""

    folder: Path
    monitor: int = field(default_factory=free_port)
    port: int = field(default_factory=free_port)
    tls_port: int = field(default_factory=free_port)
    processes: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    @property
    def tls_endpoint(self) -> str:
        return f"https://127.0.0.1:{self.tls_port}"

    @property
    def certificate(self) -> Path:
        """Of the endpoint with TLS, which vouches for itself."""
        return self.folder / "certificate.pem"

    def url(self, bucket: str, prefix: str = "") -> str:
        return f"s3://{bucket}/{prefix}?endpoint={self.endpoint}"

    def make_bucket(self) -> str:
        bucket = f"b{uuid.uuid4().hex[:20]}"
        Requests(Address.of(bucket, "", self.endpoint, "us-east-1"), CREDENTIALS).call("PUT", None)
        return bucket

    def store(self, bucket: str, prefix: str = "") -> S3Store:
        return S3Store(Address.of(bucket, prefix, self.endpoint, "us-east-1"), CREDENTIALS)

    def start(self) -> None:
        osd = str(uuid.uuid4())
        for name in ("mon", "osd"):
            (self.folder / name).mkdir(parents=True)
        (self.folder / "keyring").touch()
        self._make_certificate()
        (self.folder / "ceph.conf").write_text(self._configuration())
        address = f"[v2:127.0.0.1:{self.monitor}/0]"
        self._do("ceph-mon", "--mkfs", "-i", "a", "--public-addrv", address)
        self._run("ceph-mon", "-i", "a", "-f")
        self._until("the monitor", lambda: self._do("ceph", "osd", "new", osd) == "0")
        self._do("ceph-osd", "-i", "0", "--mkfs", "--osd-uuid", osd)
        self._run("ceph-osd", "-i", "0", "-f")
        self._until("the store", lambda: "1 up" in self._do("ceph", "osd", "stat"))
        self.start_gateway()
        self.make_user("device", CREDENTIALS)

    def make_user(self, name: str, credentials: Credentials) -> None:
        self._do(
            "radosgw-admin",
            "user",
            "create",
            f"--uid={name}",
            f"--display-name={name}",
            f"--access-key={credentials.access_key}",
            f"--secret-key={credentials.secret_key}",
        )

    def start_gateway(self) -> None:
        self._run("radosgw", "-n", "client.rgw", "-f")
        self._until("the gateway", self._answers)

    def stop_gateway(self) -> None:
        """As a broken link: what it stored stays."""
        process = self.processes.pop("radosgw")
        process.kill()
        process.wait(30)

    def stop(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait(30)

    def _make_certificate(self) -> None:
        key = self.folder / "key.pem"
        subject = ["-subj", "/CN=127.0.0.1", "-addext", "subjectAltName=IP:127.0.0.1", "-days", "2"]
        command = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", *subject]
        subprocess.run(
            [*command, "-keyout", str(key), "-out", str(self.certificate)], check=True, capture_output=True
        )
        (self.folder / "both.pem").write_bytes(key.read_bytes() + self.certificate.read_bytes())

    def _answers(self) -> bool:
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=5)
        try:
            connection.request("GET", "/")
            return connection.getresponse().status == 200
        finally:
            connection.close()

    def _run(self, program: str, *arguments: str) -> None:
        log = (self.folder / f"{program}.out").open("ab")
        self.processes[program] = subprocess.Popen(self._command(program, *arguments), stdout=log, stderr=log)

    def _do(self, program: str, *arguments: str) -> str:
        command = self._command(program, *arguments)
        done = subprocess.run(command, capture_output=True, text=True, timeout=START_S, check=False)
        assert done.returncode == 0, done.stderr[-2000:]
        return done.stdout.strip()

    def _command(self, program: str, *arguments: str) -> list[str]:
        return [program, "-c", str(self.folder / "ceph.conf"), *arguments]

    def _until(self, what: str, holds: object) -> None:
        end = time.monotonic() + START_S
        while time.monotonic() < end:
            with contextlib.suppress(OSError, http.client.HTTPException, AssertionError):
                if holds():  # type: ignore[operator]
                    return
            time.sleep(0.1)
        raise AssertionError(f"{what} of Ceph did not start: see {self.folder}")

    def _configuration(self) -> str:
        here = self.folder
        tls = f"ssl_endpoint=127.0.0.1:{self.tls_port} ssl_certificate={here}/both.pem"
        return f"""
[global]
fsid = {uuid.uuid4()}
mon initial members = a
mon host = [v2:127.0.0.1:{self.monitor}/0]
public addr = 127.0.0.1
cluster addr = 127.0.0.1
ms bind ipv6 = false
ms mon client mode = crc
auth cluster required = none
auth service required = none
auth client required = none
keyring = {here}/keyring
run dir = {here}
admin socket = {here}/$name.asok
pid file = {here}/$name.pid
log file = {here}/$name.log
mon data = {here}/mon
osd data = {here}/osd
osd objectstore = memstore
memstore device bytes = 1073741824
mon allow pool size one = true
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 1
osd pool default pgp num = 1
osd crush chooseleaf type = 0
paxos propose interval = 0.05
paxos min wait = 0.01
mon osd cache size = 10

[client.rgw]
rgw frontends = beast endpoint=127.0.0.1:{self.port} {tls}
rgw thread pool size = 8
rgw enable gc threads = false
rgw enable lc threads = false
rgw enable quota threads = false
"""


@pytest.fixture(scope="session")
def gateway(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Gateway]:
    """One for all tests: it takes some ten seconds to start."""
    path = f"{os.environ['PATH']}:/usr/sbin"
    missing = [program for program in PROGRAMS if shutil.which(program, path=path) is None]
    if missing:
        pytest.skip(f"needs {missing[0]}: apt-get install ceph-mon ceph-osd ceph-common radosgw")
    server = Gateway(tmp_path_factory.mktemp("ceph"))
    try:
        server.start()
        yield server
    finally:
        server.stop()
