"""The receiver against a real mosquitto: passwords, TLS, sessions, brokers that go away or say nothing."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from conftest import free_port
from edgewright import mqtt_receiver
from edgewright.errors import BrokerError
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.mqtt_packets import Message
from edgewright.mqtt_receiver import Receiver


@contextlib.contextmanager
def broker(folder: Path, port: int, *lines: str) -> Iterator[BrokerSettings]:
    program = shutil.which("mosquitto", path="/usr/sbin:/usr/local/sbin:/usr/bin:/usr/local/bin")
    if program is None:
        pytest.skip("mosquitto is not installed")
    config = folder / f"mosquitto-{port}.conf"
    user = ("user root",) if os.geteuid() == 0 else ()  # or it could not read what is in our folder
    config.write_text(
        "\n".join((*user, f"listener {port} 127.0.0.1", *(lines or ("allow_anonymous true",)))) + "\n"
    )
    process = subprocess.Popen([program, "-c", str(config)], stderr=subprocess.DEVNULL)
    try:
        for _ in range(100):
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 0.2):
                break
            time.sleep(0.05)
        yield BrokerSettings(host="127.0.0.1", port=port)
    finally:
        process.terminate()
        process.wait(10)


def publish(settings: BrokerSettings, *payloads: bytes, topic: str = "t/x", retain: bool = False) -> None:
    client = make_client(settings, "publisher")
    connect(client, settings)
    for payload in payloads:
        client.publish(topic, payload, qos=1, retain=retain).wait_for_publish(10)
    disconnect(client)


def gather(receiver: Receiver, count: int, *, wait_s: float = 10.0) -> list[Message]:
    found: list[Message] = []
    end_s = time.monotonic() + wait_s
    while len(found) < count and time.monotonic() < end_s:
        found += receiver.receive(0.3, linger_s=0.05, most=500)
        receiver.acknowledge()
    return found


def test_every_message_arrives_once_and_in_order(tmp_path: Path) -> None:
    with broker(tmp_path, free_port()) as settings:
        publish(settings, b"kept", topic="t/kept", retain=True)
        receiver = Receiver(settings, "r", ["t/#"], session_s=60)
        sent = [b"%d" % number * (1 + number % 700) for number in range(1000)]
        publisher = threading.Thread(target=publish, args=(settings, *sent))
        publisher.start()
        found = gather(receiver, 1001)
        publisher.join()
        receiver.close()
    assert found[0] == Message("t/kept", b"kept", found[0].number)
    assert [message.payload for message in found[1:]] == sent


def test_a_message_of_megabytes_arrives_whole(tmp_path: Path) -> None:
    with broker(tmp_path, free_port()) as settings:
        receiver = Receiver(settings, "r", ["t/#"], session_s=60)
        large = bytes(range(256)) * 12_000
        publish(settings, large, b"", b"small")
        assert [message.payload for message in gather(receiver, 3)] == [large, b"", b"small"]
        receiver.close()


def test_what_was_not_acknowledged_comes_again_and_what_was_does_not(tmp_path: Path) -> None:
    with broker(tmp_path, free_port()) as settings:
        receiver = Receiver(settings, "r", ["t/#"], session_s=60)
        publish(settings, b"1", b"2")
        assert len(gather(receiver, 2)) == 2
        publish(settings, b"3", b"4")
        assert len(receiver.receive(5, linger_s=0.3, most=9)) == 2  # and is killed before it can say so
        receiver._socket.close()  # type: ignore[union-attr]
        publish(settings, b"5")
        again = Receiver(settings, "r", ["t/#"], session_s=60)
        assert [message.payload for message in gather(again, 3)] == [b"3", b"4", b"5"]
        again.close()


def test_a_broker_that_comes_back_is_found_again(tmp_path: Path) -> None:
    port = free_port()
    with broker(tmp_path, port) as settings:
        receiver = Receiver(settings, "r", ["t/#"], session_s=60)
        assert receiver.connected
    assert receiver.receive(0.5, linger_s=0.05, most=9) == []
    assert not receiver.connected
    receiver.acknowledge()
    with broker(tmp_path, port) as settings:
        end_s = time.monotonic() + 15
        while not receiver.connected and time.monotonic() < end_s:
            receiver.receive(0.3, linger_s=0.05, most=9)
        publish(settings, b"back")
        assert [message.payload for message in gather(receiver, 1)] == [b"back"]
        receiver.close()


def test_a_password_opens_and_a_wrong_one_is_one_line(tmp_path: Path) -> None:
    users = tmp_path / "users"
    subprocess.run(
        ["mosquitto_passwd", "-b", "-c", str(users), "hub", "right"], check=True, capture_output=True
    )
    lines = ("allow_anonymous false", f"password_file {users}")
    with broker(tmp_path, free_port(), *lines) as settings:
        for word in ("right", "wrong"):
            secret = tmp_path / word
            secret.write_text(word + "\n")
            secret.chmod(0o600)
            known = settings.model_copy(update={"username": "hub", "password_file": secret})
            if word == "right":
                receiver = Receiver(known, "r", ["t/#"], session_s=0)
                publish(known, b"in")
                assert [message.payload for message in gather(receiver, 1)] == [b"in"]
                receiver.close()
            else:
                with pytest.raises(BrokerError, match="refuses the connection") as caught:
                    Receiver(known, "r", ["t/#"], session_s=0)
                assert "wrong" not in str(caught.value)


def test_telemetry_comes_over_mutual_tls_too(tmp_path: Path) -> None:
    ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    for name in ("server", "hub"):
        command = ["openssl", "req", "-x509", *ec, "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        command += ["-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1"]
        subprocess.run(command, cwd=tmp_path, check=True, capture_output=True)
    (tmp_path / "hub.key").chmod(0o600)
    lines = [
        f"certfile {tmp_path}/server.pem",
        f"keyfile {tmp_path}/server.key",
        f"cafile {tmp_path}/hub.pem",
    ]
    with broker(
        tmp_path, free_port(), *lines, "require_certificate true", "allow_anonymous true"
    ) as settings:
        known = settings.model_copy(
            update={
                "ca_file": tmp_path / "server.pem",
                "certificate_file": tmp_path / "hub.pem",
                "key_file": tmp_path / "hub.key",
            }
        )
        receiver = Receiver(known, "r", ["t/#"], session_s=60)
        sent = [b"%d" % number * 900 for number in range(300)]
        publisher = threading.Thread(target=publish, args=(known, *sent))
        publisher.start()
        assert [message.payload for message in gather(receiver, 300)] == sent
        publisher.join()
        receiver.close()
        with pytest.raises(BrokerError):
            Receiver(settings.model_copy(update={"ca_file": tmp_path / "hub.pem"}), "r", ["t"], session_s=0)


def test_who_listens_and_says_nothing_or_no_mqtt_is_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(mqtt_receiver, "CONNECT_TIMEOUT_S", 0.5)
    for answer in (
        b"",
        b"HTTP/1.1 400 Bad Request\r\n\r\n",
        b"\x20\x00",
        b"\x20\x03\x00\x00\x00\x90\x04\x00\x01\x00\x87",
    ):
        with socket.create_server(("127.0.0.1", 0)) as server:

            def serve(server: socket.socket = server, answer: bytes = answer) -> None:
                with contextlib.suppress(OSError):
                    connection, _ = server.accept()
                    connection.sendall(answer)
                    time.sleep(1.0)

            threading.Thread(target=serve, daemon=True).start()
            settings = BrokerSettings(port=server.getsockname()[1])
            with pytest.raises(BrokerError) as caught:
                Receiver(settings, "r", ["t/#"], session_s=0)
            assert "\n" not in str(caught.value)


def test_a_quiet_connection_is_kept_alive_and_a_dead_one_is_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(mqtt_receiver, "KEEPALIVE_S", 1)
    with broker(tmp_path, free_port()) as settings:
        receiver = Receiver(settings, "r", ["t/#"], session_s=60)
        for _ in range(8):  # the broker would end it after 1.5 s of silence
            receiver.receive(0.5, linger_s=0.05, most=9)
        assert receiver.connected
        publish(settings, b"still here")
        assert len(gather(receiver, 1)) == 1
        monkeypatch.setattr(receiver, "_send", lambda _: None)
        receiver._heard_s -= 10
        receiver.receive(0.1, linger_s=0.05, most=9)
        assert not receiver.connected
        receiver.close()
