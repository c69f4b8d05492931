"""`SourceConfig` and `SinkConfig`: the tables `[source]` and `[sink]` of `agent.toml`.

A kind takes the keys that mean something to it; another key is an error, as an unknown one is.
"""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal, TypeGuard

from pydantic import BaseModel, Field, model_validator

from edgewright.contract import CONTRACT
from edgewright.mqtt import BrokerSettings

Topic = Annotated[str, Field(min_length=1, max_length=1000, pattern=r"^[^#+\x00]*$")]
"""One topic: a filter with # or + would mix what several senders say."""
Payload = Literal["npy", "raw", "image"]


def _check_keys(config: BaseModel, kind: str, needs: dict[str, str], takes: dict[str, set[str]]) -> None:
    need = needs.get(kind)
    if need is not None and getattr(config, need) is None:
        raise ValueError(f"kind '{kind}' needs a {need}")
    extra = config.model_fields_set - takes[kind] - {"kind", "rate_hz"}
    if extra:
        raise ValueError(f"kind '{kind}' takes no {sorted(extra)[0]}")


class SourceConfig(BaseModel):
    """Where the inputs of inferences come from. What it cannot give is reported and tried again."""

    model_config = CONTRACT
    kind: Literal["golden", "npz", "images", "camera", "mqtt"] = "golden"
    """`golden`: the artifact's own vectors in turn, so that a device without data still has a latency."""
    path: Path | None = None
    """Of `npz`: arrays by input name, or `x` where there is one input; the first axis is the samples. Of `images`:
    a folder, with those in it, or a glob; files that come later are taken too."""
    repeat: bool = False
    """Of `images`: whether to start over after the last file. false: each file once, until it changes."""
    camera: Annotated[str, Field(min_length=1)] | None = None
    """Of `camera`: `/dev/video0`, `rtsp://…`, or a video file. It holds a password where the camera has one."""
    topic: Topic | None = None
    """Of `mqtt`: one message is one sample."""
    payload: Payload = "npy"
    """Of `mqtt`: `npy`, an array as NumPy writes it, of real values in the source model's shape; `raw`, the bytes
    of the artifact's own input; `image`, a JPEG, PNG, WebP or BMP file, preprocessed as the manifest says."""
    max_bytes: Annotated[int, Field(gt=0, le=256 << 20)] = 4 << 20
    """Of `mqtt`: larger messages are refused. 4 MiB: a photo of 12 megapixels."""
    silent_s: Annotated[float, Field(gt=0)] = 60.0
    """Of `camera` and `mqtt`: seconds without a sample that are reported as an error. 60: a telemetry period."""
    broker: BrokerSettings | None = None
    """Of `mqtt`: None is the broker of the fleet."""
    rate_hz: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Inferences a second, at most. 1: sixty in a telemetry window, and next to no load on the smallest board."""

    @model_validator(mode="after")
    def _has_the_keys_of_its_kind(self) -> SourceConfig:
        takes: dict[str, set[str]] = {
            "golden": set(),
            "npz": {"path"},
            "images": {"path", "repeat"},
            "camera": {"camera", "silent_s"},
            "mqtt": {"topic", "payload", "max_bytes", "silent_s", "broker"},
        }
        needs = {"npz": "path", "images": "path", "camera": "camera", "mqtt": "topic"}
        _check_keys(self, self.kind, needs, takes)
        return self


class SinkConfig(BaseModel):
    """Where the predictions of the source's inputs go."""

    model_config = CONTRACT
    kind: Literal["none", "mqtt", "jsonl"] = "none"
    topic: Topic | None = None
    """Of `mqtt`. None: `edgewright/v1/FLEET/DEVICE/predictions`."""
    broker: BrokerSettings | None = None
    """Of `mqtt`: None is the broker of the fleet."""
    path: Path | None = None
    """Of `jsonl`: a file of one JSON object a line; a full one becomes PATH.1, PATH.1 becomes PATH.2 …"""
    max_bytes: Annotated[int, Field(ge=4096, le=1 << 40)] = 10 << 20
    """Of `jsonl`: bytes of a file. 10 MiB: some 40,000 predictions."""
    keep: Annotated[int, Field(ge=1, le=1000)] = 3
    """Of `jsonl`: full files that are kept."""

    @model_validator(mode="after")
    def _has_the_keys_of_its_kind(self) -> SinkConfig:
        takes: dict[str, set[str]] = {
            "none": set(),
            "mqtt": {"topic", "broker"},
            "jsonl": {"path", "max_bytes", "keep"},
        }
        _check_keys(self, self.kind, {"jsonl": "path"}, takes)
        return self


SOURCE_PATHS = ("path", "camera")
SINK_PATHS = ("path",)


def is_path(value: Any) -> TypeGuard[str]:
    """Whether a value is a file here, and not an address elsewhere."""
    return isinstance(value, str) and "://" not in value
