"""`RolloutSpec`: what an operator asks for, as YAML. Which devices that means is in `waves.py`.

An unknown key is an error. The JSON Schema file in `schema/` is generated from the models here.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, field_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT
from edgewright.errors import ConfigError
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.maintenance import MaintenanceWindow, is_zone
from edgewright_fleet.spec_file import read_spec

Count = Annotated[int, Field(gt=0, strict=True)]
Wave = Count | Annotated[str, Field(pattern=r"^(rest|[1-9][0-9]?%|100%)$")]


class Growth(BaseModel):
    """Waves that grow: each is `growth` times the one before, until all devices are in one."""

    model_config = CONTRACT
    first: Count = Field(default=1, description="devices of the first wave")
    growth: Annotated[float, Field(gt=1, le=100)] = Field(
        default=2.0, description="how many times the wave before; 2: 1,000 devices are ten waves"
    )
    largest: Count | None = Field(default=None, description="devices of a wave at most; None: no limit")

    def sizes(self, devices: int) -> Iterator[int]:
        """The size of each wave, which are as many as hold all devices."""
        size, left = float(self.first), devices
        while left > 0:
            wave = min(left, int(size), self.largest or left)
            yield wave
            left, size = left - wave, min(size * self.growth, devices)


class RolloutSpec(BaseModel):
    """One rollout of one release to the devices of one fleet."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    fleet: Name
    release: str = Field(pattern=r"^[^:]+:[^:]+$", description="NAME:VERSION in the registry")
    registry: Path = Field(
        description="folder of the OCI layout that holds it; the devices pull from the same"
    )
    reverts: Name | None = Field(
        default=None,
        description="a rollout of this fleet and release that has ended, whose devices go back to what each ran "
        "before it; then waves and gates say nothing. None: the release is rolled out",
    )
    devices: Literal["all"] | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        default="all", description="every device of the fleet, or these by name"
    )
    except_devices: tuple[Name, ...] = Field(default=(), description="devices to hold back, by name")
    profile: str | None = Field(default=None, description="None: devices of every hardware profile")
    labels: dict[Name, Name] = Field(
        default_factory=dict,
        description="only devices that report all of these, such as `cluster: berlin`",
    )
    running: Annotated[tuple[str, ...], Field(min_length=1)] | None = Field(
        default=None,
        description="only devices that run one of these now, NAME:VERSION. None: whatever they run",
    )
    waves: Annotated[tuple[Wave, ...], Field(min_length=1)] | Growth = Field(
        default=(1, "10%", "rest"),
        description="devices to add in each wave: a number, a share of all, or the rest; or how waves grow. One "
        "device first, since one is enough to see what is broken everywhere",
    )
    paced_by_evidence: bool = Field(
        default=True,
        description="whether few devices are without a verdict at once while little is known, and more as devices "
        "pass. true: what 'plan' promises; false: as many as may be unavailable, so that a bad release is found "
        "as soon and has reached more devices by then",
    )
    devices_per_minute: Annotated[float, Field(gt=0)] | None = Field(
        default=None,
        description="how many devices are told to update in a minute at most. None: as many as may be "
        "unavailable; a number spares a registry or a slow uplink",
    )
    maintenance: tuple[MaintenanceWindow, ...] = Field(
        default=(), description="when devices may be told to update, by their own clocks; none: at any time"
    )
    time_zone: str = Field(default="UTC", description="of devices that do not report one")
    max_deferrals: Annotated[int, Field(ge=0, le=1000)] = Field(
        default=3,
        description="how often a device that is in use may put its update off; then it is told all the same. 3: "
        "an hour and a half of the agent's half hours",
    )
    gates: Gates = Gates()
    on_failure: Literal["revert", "hold"] = Field(
        default="revert",
        description="what becomes of exposed devices: back to what they ran, or held for inspection",
    )
    max_unavailable: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1,
        description="share of the devices in mid-update at once, rounded down, one at least, never all. 0.1: "
        "a tenth of the fleet may be lost to a bad download without being missed",
    )
    accept_failed_artifacts: bool = Field(
        default=False,
        description="whether to roll out what failed the converter's gate. false: devices refuse it too, "
        "unless their own configuration says otherwise",
    )

    def room(self, devices: int) -> int:
        """How many of so many devices may be in mid-update at once."""
        return max(1, int(self.max_unavailable * devices))

    @field_validator("time_zone")
    @classmethod
    def _is_a_zone(cls, zone: str) -> str:
        if not is_zone(zone):
            raise ValueError("is no time zone that is known here, such as Europe/Berlin")
        return zone

    @field_validator("waves")
    @classmethod
    def _ends_with_the_rest(cls, waves: tuple[Wave, ...] | Growth) -> tuple[Wave, ...] | Growth:
        if isinstance(waves, Growth):
            return waves
        if waves[-1] not in ("rest", "100%") or "rest" in waves[:-1]:
            raise ValueError("the last wave, and only the last, must be 'rest' (or '100%')")
        return waves


def load_spec(path: Path, **defaults: Any) -> RolloutSpec:
    """Read a specification; a relative registry is relative to the file. Raises `ConfigError`.

    `defaults` are for keys that the file may lack where it is read for something that does not need them.
    """
    spec = read_spec(RolloutSpec, path, defaults)
    try:
        return spec.model_copy(update={"registry": (path.parent / spec.registry).resolve()})
    except (OSError, ValueError) as error:  # a loop of links, a null byte
        raise ConfigError(f"registry: {error}", where=str(path)) from None
