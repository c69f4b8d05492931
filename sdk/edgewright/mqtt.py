"""One way to a broker: settings, a paho client made from them, and a connection that fails in one line.

Used by the agent and the fleet alike. MQTT 5; a client reconnects by itself with a growing delay.
"""

from __future__ import annotations

import ssl
import threading
from pathlib import Path
from typing import Annotated, Any

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT
from edgewright.errors import BrokerError

CONNECT_TIMEOUT_S = 5.0
KEEPALIVE_S = 30
"""The broker publishes the last will after 1.5 times this silence (MQTT 5, section 3.1.2.10)."""


class BrokerSettings(BaseModel):
    """Where the broker is and how to prove who we are; TLS is used as soon as `ca_file` is given."""

    model_config = CONTRACT
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 1883
    username: str | None = None
    password_file: Path | None = Field(default=None, description="holds the password, so that no log can")
    ca_file: Path | None = None
    certificate_file: Path | None = None
    key_file: Path | None = None

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def make_client(
    settings: BrokerSettings, client_id: str, *, will: tuple[str, bytes] | None = None
) -> paho.Client:
    """A client that is not connected yet; `will` is (topic, payload), retained at QoS 1.

    Raises `BrokerError` where a certificate, key or password file cannot be used.
    """
    # The embedded broker (rumqttd 0.20) falls over a client id with a slash in it.
    name = client_id.replace("/", ".")
    client = paho.Client(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    try:
        if settings.username is not None:
            secret = (
                settings.password_file.read_text(encoding="utf-8").strip() if settings.password_file else None
            )
            client.username_pw_set(settings.username, secret)
        if settings.ca_file is not None:
            context = ssl.create_default_context(cafile=str(settings.ca_file))
            if settings.certificate_file is not None:
                key = str(settings.key_file) if settings.key_file else None
                context.load_cert_chain(str(settings.certificate_file), key)
            client.tls_set_context(context)
    except OSError as error:  # ssl.SSLError is one
        raise BrokerError(f"a credential cannot be used ({error})", where=str(settings)) from None
    if will is not None:
        client.will_set(will[0], will[1], qos=1, retain=True)
    client.reconnect_delay_set(min_delay=1, max_delay=60)
    return client


def connect(client: paho.Client, settings: BrokerSettings, *, timeout_s: float = CONNECT_TIMEOUT_S) -> None:
    """Connect and start the network thread; returns once the broker accepted.

    Set `on_connect` before: it is called here and at every reconnection. Raises `BrokerError` where the
    broker is down, silent for `timeout_s`, or refuses.
    """
    answered = threading.Event()
    refusal: list[str] = []
    wanted: Any = client.on_connect  # paho types it as the union over its callback versions

    def on_connect(
        c: paho.Client, userdata: Any, flags: Any, reason: ReasonCode, properties: Any = None
    ) -> None:
        if reason.is_failure:
            refusal.append(str(reason))
        elif wanted is not None:
            wanted(c, userdata, flags, reason, properties)
        answered.set()

    client.on_connect = on_connect
    try:
        client.connect(settings.host, settings.port, keepalive=KEEPALIVE_S)
    except OSError as error:
        raise BrokerError(
            f"the MQTT broker cannot be reached ({error.strerror or error})",
            where=str(settings),
            remedy="start one with 'edgewright fleet broker' or name another host and port",
        ) from None
    client.loop_start()
    if not answered.wait(timeout_s) or refusal:
        client.loop_stop()
        problem = f"refuses the connection ({refusal[0]})" if refusal else f"is silent for {timeout_s:g} s"
        raise BrokerError(f"the MQTT broker {problem}", where=str(settings), remedy="check its log")
