"""The fleet's commands at a broker that wants a certificate of whoever connects."""

from __future__ import annotations

import shutil
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright_fleet.targets.batch_client import BatchClient
from fleet.conftest import running_mosquitto


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate authority, and certificates of the broker and of an operator."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    for name, more in (
        ("ca", ["-addext", "basicConstraints=critical,CA:TRUE"]),
        ("broker", ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]),
        ("operator", ["-CA", "ca.pem", "-CAkey", "ca.key"]),
    ):
        line = [
            "openssl",
            "req",
            "-x509",
            *key,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-subj",
            f"/CN={name}",
        ]
        subprocess.run([*line, *more], cwd=tmp_path, check=True, capture_output=True)
        (tmp_path / f"{name}.key").chmod(0o600)
    return tmp_path


def tls(certificates: Path) -> str:
    return (
        f"user root\nrequire_certificate true\ncafile {certificates}/ca.pem\n"
        f"certfile {certificates}/broker.pem\nkeyfile {certificates}/broker.key\nmax_queued_messages 0\n"
    )


def devices(broker: str) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-m",
        "edgewright_cli.main",
        "fleet",
        "devices",
        "--fleet",
        "f",
        "--broker",
        broker,
    ]
    return subprocess.run([*line, "--json"], check=False, capture_output=True, text=True, timeout=60)


def test_command_proves_who_it_is_with_the_certificate_of_a_broker_file(certificates: Path) -> None:
    with running_mosquitto(certificates, tls(certificates)) as settings:
        file = certificates / "broker.toml"
        who = 'certificate_file = "operator.pem"\nkey_file = "operator.key"\n'
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n{who}')
        admitted = devices(str(file))
        assert (admitted.returncode, admitted.stdout) == (0, "[]\n"), admitted.stderr
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n')
        refused = devices(str(file))
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    wrong = devices(str(certificates / "none.toml"))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_each_message_is_heard_once_over_tls_also_those_of_many_records_and_after_a_broken_connection(
    certificates: Path,
) -> None:
    # A TLS record holds 16 kB: most messages come several in a record, some take more records than one.
    sent = [
        number.to_bytes(4, "big") * (1 + number % 97 if number % 50 else 15_000) for number in range(2000)
    ]
    with running_mosquitto(certificates, tls(certificates)) as plain:
        settings = BrokerSettings(
            port=plain.port,
            ca_file=certificates / "ca.pem",
            certificate_file=certificates / "operator.pem",
            key_file=certificates / "operator.key",
        )
        heard: list[bytes] = []
        hearer = make_client(settings, "hearer", kind=BatchClient)
        hearer.take = lambda where, payload: heard.append(payload)
        subscribed = threading.Event()
        hearer.on_connect = lambda client, *_: client.subscribe("a/b", 1)
        hearer.on_subscribe = lambda *_: subscribed.set()
        connect(hearer, settings, session_s=60)
        assert subscribed.wait(20)
        sayer = make_client(settings, "sayer")
        connect(sayer, settings)
        for number, payload in enumerate(sent):
            message = sayer.publish("a/b", payload, qos=1)
            if number == len(sent) // 2:
                message.wait_for_publish(20)
                broken = hearer.socket()
                assert isinstance(broken, socket.socket)
                broken.shutdown(socket.SHUT_RDWR)
        message.wait_for_publish(20)
        end = time.monotonic() + 60
        while len(set(heard)) < len(sent) and time.monotonic() < end:
            time.sleep(0.05)
        # What had no answer when the connection broke comes again, and is the same.
        assert sorted(set(heard)) == sorted(sent)
        assert len(heard) - len(sent) <= len(sent) // 2
        for client in (sayer, hearer):
            disconnect(client)
