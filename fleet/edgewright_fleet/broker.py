"""The embedded MQTT broker: rumqttd from the `iotcore` package, for a fleet without a broker of its own.

It listens on the loopback interface alone: it has no passwords and no TLS.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from pathlib import Path

from edgewright.errors import BrokerError
from edgewright.mqtt import BrokerSettings

_CONFIG = """\
id = 0

[router]
id = 0
max_connections = 10010
max_outgoing_packet_count = 200
max_segment_size = 104857600
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


@contextlib.contextmanager
def embedded_broker(port: int) -> Iterator[BrokerSettings]:
    """A broker on 127.0.0.1 at `port`, accepting when the block begins and gone when it ends.

    Raises `BrokerError` where the port is taken or the broker does not start.
    """
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
            yield BrokerSettings(host="127.0.0.1", port=port)
        finally:
            broker.stop()
