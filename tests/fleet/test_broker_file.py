"""The fleet's commands at a broker that wants a certificate of whoever connects."""

from __future__ import annotations

import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

from conftest import running_mosquitto
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright_fleet.targets.batch_client import BatchClient
from fleet.certificates import make_certificates


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


def test_command_proves_who_it_is_with_the_certificate_of_a_broker_file(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path, make_certificates(tmp_path, "operator")) as settings:
        file = tmp_path / "broker.toml"
        who = 'certificate_file = "operator.pem"\nkey_file = "operator.key"\n'
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n{who}')
        admitted = devices(str(file))
        assert (admitted.returncode, admitted.stdout) == (0, "[]\n"), admitted.stderr
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n')
        refused = devices(str(file))
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    wrong = devices(str(tmp_path / "none.toml"))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_each_message_is_heard_once_over_tls_also_those_of_many_records_and_after_a_broken_connection(
    tmp_path: Path,
) -> None:
    # A TLS record holds 16 kB: most messages come several in a record, some take more records than one.
    sent = [
        number.to_bytes(4, "big") * (1 + number % 97 if number % 50 else 15_000) for number in range(2000)
    ]
    more = "max_queued_messages 0\n"
    with running_mosquitto(tmp_path, make_certificates(tmp_path, "operator") + more) as plain:
        settings = BrokerSettings(
            port=plain.port,
            ca_file=tmp_path / "ca.pem",
            certificate_file=tmp_path / "operator.pem",
            key_file=tmp_path / "operator.key",
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
