"""Where a device's inputs come from: one file a kind of source; `open_source` chooses."""

from __future__ import annotations

from edgewright.mqtt import BrokerSettings
from edgewright_agent.feed_config import SourceConfig
from edgewright_agent.sources.source import Source


def open_source(config: SourceConfig, *, broker: BrokerSettings, client_id: str) -> Source:
    """The source of a configuration; `broker` is the one that is meant where it names none.

    Raises the error family where something that it needs is not installed or a credential cannot be used. What
    is not there yet is no error here, but of the source's `next`.
    """
    if config.kind == "camera":
        from edgewright_agent.sources.camera import Camera

        assert config.camera is not None
        return Camera(config.camera, silent_s=config.silent_s)
    if config.kind == "mqtt":
        from edgewright_agent.sources.topic import TopicSource

        assert config.topic is not None
        return TopicSource(
            config.broker or broker,
            client_id,
            config.topic,
            payload=config.payload,
            max_bytes=config.max_bytes,
            silent_s=config.silent_s,
        )
    if config.kind == "images":
        from edgewright_agent.sources.images import ImageFiles

        assert config.path is not None
        return ImageFiles(config.path, repeat=config.repeat)
    from edgewright_agent.sources.recorded import Recorded, golden_rows, npz_rows

    path = config.path
    return Recorded(golden_rows if path is None else lambda model: npz_rows(path, model.inputs))
