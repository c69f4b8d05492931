"""One way to a broker: settings, a paho client made from them, and a connection that fails in one line.

Used by the agent and the fleet alike. MQTT 5; a client reconnects by itself with a growing delay. A device needs
no session at the broker: what is desired of it is retained, so that it gets the newest at each connection and
not the wishes in between, and its telemetry waits in its own spool. A receiver of telemetry needs one.
"""

from __future__ import annotations

import ssl
import sys
import threading
from pathlib import Path
from typing import Annotated, Any, TypeVar, overload

import paho.mqtt.client as paho
from paho.mqtt.enums import CallbackAPIVersion
from paho.mqtt.packettypes import PacketTypes
from paho.mqtt.properties import Properties
from paho.mqtt.reasoncodes import ReasonCode
from pydantic import BaseModel, Field, model_validator

from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import BrokerError, ConfigError
from edgewright.secret_file import must_be_private

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

CONNECT_TIMEOUT_S = 5.0
AHEAD = 500
"""Messages that a receiver wants ahead of its acknowledgements (MQTT 5, section 3.1.2.11.3): mosquitto sends 20 to
one that does not say, which is one for each time that it wakes up."""
KEEPALIVE_S = 30
"""The broker publishes the last will after 1.5 times this silence (MQTT 5, section 3.1.2.10)."""


class BrokerSettings(BaseModel):
    """Where the broker is and how to prove who we are."""

    model_config = CONTRACT
    host: Annotated[str, Field(min_length=1)] = "127.0.0.1"
    port: Annotated[int, Field(gt=0, lt=65536)] = 1883
    tls: bool = Field(
        default=False, description="needless where a file below is given, as that turns it on too"
    )
    ca_file: Path | None = Field(
        default=None, description="who may vouch for the broker; None: this host's list"
    )
    certificate_file: Path | None = None
    key_file: Path | None = Field(default=None, description="of the certificate; None: in the same file")
    username: str | None = None
    password_file: Path | None = Field(default=None, description="holds the password, so that no log can")

    @model_validator(mode="after")
    def _nothing_is_ignored(self) -> BrokerSettings:
        if self.password_file is not None and self.username is None:
            raise ValueError("password_file needs a username")
        if self.key_file is not None and self.certificate_file is None:
            raise ValueError("key_file needs a certificate_file")
        return self

    def __str__(self) -> str:
        return f"{self.host}:{self.port}"


def load_settings(path: Path) -> BrokerSettings:
    """Read a `.toml` file of the settings; relative paths are relative to it. Raises `ConfigError`."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("does not exist", where=str(path)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from None
    for key in ("ca_file", "certificate_file", "key_file", "password_file"):
        if isinstance(document.get(key), str):
            document[key] = str(path.parent.resolve() / document[key])
    return from_mapping(BrokerSettings, document, where=str(path))


ClientT = TypeVar("ClientT", bound=paho.Client)


@overload
def make_client(
    settings: BrokerSettings, client_id: str, *, will: tuple[str, bytes] | None = None
) -> paho.Client: ...


@overload
def make_client(settings: BrokerSettings, client_id: str, *, kind: type[ClientT]) -> ClientT: ...


def make_client(
    settings: BrokerSettings,
    client_id: str,
    *,
    will: tuple[str, bytes] | None = None,
    kind: type[paho.Client] = paho.Client,
) -> paho.Client:
    """A client of a `kind` that is not connected yet; `will` is (topic, payload), retained at QoS 1.

    Raises `BrokerError` where a certificate, key or password file cannot be used, or others may read it.
    """
    # The embedded broker (rumqttd 0.20) falls over a client id with a slash in it; no name holds a colon, so
    # that FLEET/DEVICE stays unambiguous.
    name = client_id.replace("/", ":")
    client = kind(CallbackAPIVersion.VERSION2, client_id=name, protocol=paho.MQTTv5)
    if settings.username is not None:
        client.username_pw_set(settings.username, _password(settings))
    if settings.tls or settings.ca_file is not None or settings.certificate_file is not None:
        client.tls_set_context(_tls(settings))
    if will is not None:
        client.will_set(will[0], will[1], qos=1, retain=True)
    client.reconnect_delay_set(min_delay=1, max_delay=60)
    return client


def _password(settings: BrokerSettings) -> str | None:
    path = settings.password_file
    if path is None:
        return None
    must_be_private(path, "password_file", BrokerError)
    try:
        return path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise _unusable(path, "password_file", error) from None
    except UnicodeDecodeError:
        raise BrokerError("password_file is not UTF-8 text", where=str(path)) from None


def _tls(settings: BrokerSettings) -> ssl.SSLContext:
    certificate, key = settings.certificate_file, settings.key_file
    try:
        context = ssl.create_default_context(cafile=settings.ca_file)
    except OSError as error:  # ssl.SSLError is one
        raise _unusable(settings.ca_file, "ca_file", error) from None
    if certificate is not None:
        what = "key_file" if key else "certificate_file without a key_file"
        must_be_private(key or certificate, what, BrokerError)
        try:
            # Without a password of its own, an encrypted key would be asked for at the terminal.
            context.load_cert_chain(certificate, key, password=lambda: "")
        except OSError as error:
            raise _unusable(certificate, "certificate_file or its key_file", error) from None
    return context


def _unusable(path: Path | None, what: str, error: OSError) -> BrokerError:
    problem = getattr(error, "reason", None) or error.strerror or str(error)
    return BrokerError(f"{what} cannot be used ({problem})", where=str(path))


def connect(
    client: paho.Client,
    settings: BrokerSettings,
    *,
    timeout_s: float = CONNECT_TIMEOUT_S,
    session_s: int = 0,
) -> None:
    """Connect and start the network thread; returns once the broker accepted.

    For `session_s` after a connection broke, the broker keeps what is sent to us (QoS 1) for the next one of the
    same client id; subscribe only where it says that no session is present. Set `on_connect` before: it is
    called here and at every reconnection. Raises `BrokerError` where the broker is down, silent for
    `timeout_s`, or refuses.
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
    # The embedded broker (rumqttd 0.20) keeps nothing for a client whose first connection asks to begin anew.
    clean_start: Any = False if session_s else paho.MQTT_CLEAN_START_FIRST_ONLY
    try:
        client.connect(
            settings.host,
            settings.port,
            keepalive=KEEPALIVE_S,
            clean_start=clean_start,
            properties=_session(PacketTypes.CONNECT, session_s),
        )
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


def disconnect(client: paho.Client) -> None:
    """Leave the broker, end the session there and stop the network thread."""
    client.disconnect(properties=_session(PacketTypes.DISCONNECT, 0))
    client.loop_stop()


def _session(packet: int, seconds: int) -> Properties:
    properties = Properties(packet)  # type: ignore[no-untyped-call]
    properties.SessionExpiryInterval = seconds
    if seconds:
        properties.ReceiveMaximum = AHEAD
    return properties
