"""`RolloutSpec`: what an operator asks for, as YAML; an unknown key is an error."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

import yaml
from pydantic import BaseModel, Field, field_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError, RolloutError

Seconds = Annotated[float, Field(gt=0)]
Wave = Annotated[int, Field(gt=0, strict=True)] | Annotated[str, Field(pattern=r"^(rest|[1-9][0-9]?%|100%)$")]


class Gates(BaseModel):
    """What a release must show on a device before more devices get it."""

    model_config = CONTRACT
    max_p50_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.5, description="median latency against the same device's own before; 1.5 is past any noise"
    )
    max_p99_ratio: Annotated[float, Field(gt=0)] = Field(
        default=3.0, description="the same for the 99th percentile, which a busy device moves far more"
    )
    max_error_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01, description="of the inferences"
    )
    min_inferences: Annotated[int, Field(gt=0)] = Field(
        default=100, description="on each device, before and after: fewer say nothing about a 99th percentile"
    )
    window_s: Annotated[float, Field(ge=0)] = Field(
        default=60.0, description="seconds that a wave is observed at least"
    )
    timeout_s: Seconds = Field(
        default=900.0,
        description="seconds for a phase of a wave; after it what is missing makes it inconclusive",
    )


class RolloutSpec(BaseModel):
    """One rollout of one release to the devices of one fleet."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    name: Name
    fleet: Name
    release: str = Field(pattern=r"^[^:]+:[^:]+$", description="NAME:VERSION in the registry")
    registry: Path = Field(description="the OCI layout that holds it; the devices pull from the same")
    devices: tuple[Name, ...] | None = Field(default=None, description="None: every device of the fleet")
    profile: str | None = Field(default=None, description="None: devices of every hardware profile")
    waves: tuple[Wave, ...] = Field(
        default=(1, "10%", "rest"), min_length=1, description="devices to add: a number, a share, or the rest"
    )
    gates: Gates = Gates()
    on_failure: Literal["revert", "hold"] = Field(
        default="revert", description="what becomes of exposed devices"
    )
    max_unavailable: Annotated[float, Field(gt=0, lt=1)] = Field(
        default=0.1, description="share of the devices in mid-update at once; one at least, never all"
    )

    @field_validator("waves")
    @classmethod
    def _ends_with_the_rest(cls, waves: tuple[Wave, ...]) -> tuple[Wave, ...]:
        if waves[-1] not in ("rest", "100%") or "rest" in waves[:-1]:
            raise ValueError("the last wave, and only the last, must be 'rest' (or '100%')")
        return waves


def load_spec(path: Path) -> RolloutSpec:
    """Read a specification; a relative registry is relative to the file. Raises `ConfigError`."""
    try:
        document = yaml.safe_load(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("does not exist", where=str(path)) from None
    except (OSError, UnicodeDecodeError, yaml.YAMLError, ValueError) as error:
        raise ConfigError(f"cannot be read as YAML ({error})", where=str(path)) from None
    spec = from_mapping(RolloutSpec, document, where=str(path))
    return spec.model_copy(update={"registry": (path.parent / spec.registry).resolve()})


def plan_waves(spec: RolloutSpec, devices: Sequence[tuple[str, str]]) -> tuple[tuple[str, ...], ...]:
    """The devices of each wave, from (device, profile) pairs.

    Profiles take turns, so that an early wave holds every kind of device. A share counts of all devices.
    Raises `RolloutError` where no device is selected.
    """
    chosen = [
        (device, profile)
        for device, profile in sorted(devices)
        if (spec.devices is None or device in spec.devices)
        and (spec.profile is None or profile == spec.profile)
    ]
    if missing := sorted(set(spec.devices or ()) - {device for device, _ in chosen}):
        raise RolloutError(f"device '{missing[0]}' is not known in fleet '{spec.fleet}'")
    if not chosen:
        raise RolloutError(
            f"no device of fleet '{spec.fleet}' is selected", remedy="see 'edgewright fleet devices'"
        )
    seen: dict[str, int] = {}
    turns: list[tuple[int, str]] = []
    for device, profile in chosen:
        turns.append((seen.get(profile, 0), device))
        seen[profile] = seen.get(profile, 0) + 1
    left = [device for _, device in sorted(turns)]
    waves: list[tuple[str, ...]] = []
    for wave in spec.waves:
        size = len(left) if wave == "rest" else _size(wave, len(chosen))
        if left[:size]:
            waves.append(tuple(left[:size]))
        left = left[size:]
    return tuple(waves)


def _size(wave: int | str, devices: int) -> int:
    if isinstance(wave, int):
        return wave
    return math.ceil(int(re.sub(r"\D", "", wave)) * devices / 100)
