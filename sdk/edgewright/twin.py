"""The twin contract: what a device should run, what it runs and whether it is there, retained on MQTT.

Topics: `edgewright/v1/{fleet}/{device}/desired` (fleet → device), `…/reported`, `…/status` (the last will)
`…/metrics` and `…/predictions` (device → fleet). Metrics are OTLP, predictions are in `prediction`, every other
message is the JSON of a model below.
"""

from __future__ import annotations

import re
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from edgewright.artifact.manifest import Digest, Name
from edgewright.contract import CONTRACT
from edgewright.errors import ConfigError

ROOT = "edgewright/v1"
Leaf = Literal["desired", "reported", "status", "metrics", "predictions"]
_TOPIC = re.compile(r"edgewright/v1/(?P<fleet>[^/+#]+)/(?P<device>[^/+#]+)/(?P<leaf>[a-z]+)")

Phase = Literal[
    "idle",
    "downloading",
    "verifying",
    "proving",
    "switching",
    "watching",
    "committed",
    "rolling-back",
    "failed",
]
"""Where a device is in the life of an update."""
GOLDEN_REFUSAL = "golden check"
"""How the reason begins where a release did not compute on the device what the converter computed."""
UNTRUSTED = "untrusted"
"""How it begins where a release is not signed as the root that the device pins wants it."""


def topic(fleet: str, device: str, leaf: Leaf) -> str:
    """The topic of one message of a device; `+` stands for any fleet or device in a subscription."""
    return f"{ROOT}/{fleet}/{device}/{leaf}"


def parse_topic(text: str) -> tuple[str, str, str]:
    """(fleet, device, leaf) of a topic. Raises `ConfigError` for a topic that is not ours."""
    match = _TOPIC.fullmatch(text)
    if match is None:
        raise ConfigError(f"'{text}' is not a topic of {ROOT}")
    return match["fleet"], match["device"], match["leaf"]


class ReleaseReference(BaseModel):
    """One release, exactly: its digest decides, name and version are for people."""

    model_config = CONTRACT
    name: Name
    version: Name
    digest: Digest = Field(description="of the release's OCI index")

    def __str__(self) -> str:
        return f"{self.name}:{self.version}"


class DesiredState(BaseModel):
    """What the fleet wants of a device."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    release: ReleaseReference
    rollout: str = Field(description="the rollout that asked, for the device's log and report")
    revert: bool = Field(default=False, description="true where an older version is meant, not a mistake")


class RunningRelease(BaseModel):
    """What a device serves."""

    model_config = CONTRACT
    release: ReleaseReference
    artifact: Digest = Field(description="of the artifact's OCI manifest")
    runtime: str = Field(description="the runtime and version that executes it")


class ReportedState(BaseModel):
    """What a device runs and where it is with an update; `sequence` grows with each report of a boot."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    device: Name
    profile: Name
    boot: str = Field(description="differs at every start of the agent")
    sequence: Annotated[int, Field(ge=0)]
    phase: Phase
    running: RunningRelease | None = Field(default=None, description="None: nothing to serve yet")
    target: ReleaseReference | None = Field(default=None, description="what the phase is about")
    rollout: str | None = None
    reason: str | None = Field(default=None, description="why the last update failed or was rolled back")
    labels: dict[Name, Name] = Field(
        default_factory=dict, description="what a rollout may select by, as its owner set them on the device"
    )
    time_zone: str | None = Field(default=None, description="IANA name; None: not told")
    deferred_until_s: float | None = Field(
        default=None, ge=0, description="in use, and asks not to be updated before this Unix time"
    )


class DeviceStatus(BaseModel):
    """Whether the device is connected: its birth at each connection, its death by itself or as its last will."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    online: bool
    boot: str = Field(description="differs at every start of the agent")
    payloads: Annotated[int, Field(ge=0)] = Field(
        default=0,
        description="telemetry payloads made in this boot so far, so that the sequences below it exist; of a "
        "last will, when the agent connected",
    )
