"""Where a device's predictions go: one file a kind of sink; `open_sink` chooses."""

from __future__ import annotations

from typing import Protocol

from edgewright.mqtt import BrokerSettings
from edgewright.twin import topic
from edgewright_agent.feed_config import SinkConfig


class Sink(Protocol):
    """Takes predictions as JSON, one at a time."""

    def put(self, prediction: bytes) -> None:
        """Take one. Raises `SinkError` where it cannot; it is lost then."""
        ...

    def close(self) -> None: ...


def open_sink(config: SinkConfig, *, fleet: str, device: str, broker: BrokerSettings) -> Sink | None:
    """The sink of a configuration, None where there is none. Raises `BrokerError` for a credential."""
    if config.kind == "mqtt":
        from edgewright_agent.sinks.topic_sink import TopicSink

        name = config.topic or topic(fleet, device, "predictions")
        return TopicSink(config.broker or broker, f"{fleet}/{device}/sink", name)
    if config.kind == "jsonl":
        from edgewright_agent.sinks.json_lines import JsonLines

        assert config.path is not None
        return JsonLines(config.path, max_bytes=config.max_bytes, keep=config.keep)
    return None
