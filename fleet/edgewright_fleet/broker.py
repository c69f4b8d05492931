"""The embedded MQTT broker: rumqttd from the `iotcore` package, for a fleet without a broker of its own.

It listens on the loopback interface alone, since it has no passwords and no TLS (rumqttd's own default is every
interface). It keeps retained messages in memory: a fleet that must survive a restart of its broker runs mosquitto.
"""

from __future__ import annotations

import contextlib
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from edgewright.errors import BrokerError
from edgewright.mqtt import BrokerSettings

_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 10485760
max_segment_count = 10

[v5.1]
name = "v5-loopback"
listen = "127.0.0.1:{port}"
next_connection_delay_ms = 1

[v5.1.connections]
connection_timeout_ms = 60000
max_payload_size = 1048576
max_inflight_count = 100
dynamic_filters = true
"""


def is_embedded(connack: Any) -> bool:
    """Whether a broker's CONNACK has the properties that rumqttd 0.20 sends, and no other broker that we know.

    It ends its router, and so serves nobody any more, when the last member of a shared subscription that has a
    session goes while messages are unanswered; and it takes shared subscriptions of one group name for one.
    """
    return connack is not None and connack.json() == {"TopicAliasMaximum": 4096}


@contextlib.contextmanager
def embedded_broker(port: int) -> Iterator[BrokerSettings]:
    """A broker on 127.0.0.1 at `port`, accepting when the block begins and gone when it ends.

    It is a process of its own, which ends with this one even where this one is killed.
    Raises `BrokerError` where the port is taken or the broker does not start.
    """
    with _running(port):
        yield BrokerSettings(host="127.0.0.1", port=port)


def serve_broker(port: int, on_ready: Callable[[BrokerSettings], None]) -> None:
    """Run the broker until Ctrl-C. Raises `BrokerError` if it ends by itself."""
    with _running(port) as broker:
        on_ready(BrokerSettings(host="127.0.0.1", port=port))
        while broker.is_running:
            time.sleep(0.5)
    raise BrokerError("the embedded broker ended by itself", where=f"127.0.0.1:{port}")


@contextlib.contextmanager
def _running(port: int) -> Iterator[Any]:
    from iotcore.broker import Broker, port_in_use

    where = f"127.0.0.1:{port}"
    if port_in_use(port):
        raise BrokerError("the port is taken", where=where, remedy="choose another with --port")
    with tempfile.TemporaryDirectory() as folder:
        config = Path(folder) / "rumqttd.toml"
        config.write_text(_CONFIG.format(port=port), encoding="utf-8")
        broker = Broker(config_path=str(config))
        try:
            broker.start()
        except (RuntimeError, OSError, ValueError) as error:
            raise BrokerError(f"the embedded broker does not start ({error})", where=where) from None
        try:
            yield broker
        finally:
            broker.stop()
