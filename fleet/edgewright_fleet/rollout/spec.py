"""`RolloutSpec`: what an operator asks for, as YAML, and which devices that means, wave by wave.

An unknown key is an error. The JSON Schema file in `schema/` is generated from the models here.
"""

from __future__ import annotations

import math
import re
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, Field, field_validator, model_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError, RolloutError

Seconds = Annotated[float, Field(gt=0)]
Wave = Annotated[int, Field(gt=0, strict=True)] | Annotated[str, Field(pattern=r"^(rest|[1-9][0-9]?%|100%)$")]


Share = Annotated[float, Field(gt=0, lt=1)]


class Gates(BaseModel):
    """What a release must show on a device, and on all of them together, before more devices get it."""

    model_config = CONTRACT
    alpha: Annotated[float, Field(ge=1e-9, le=0.5)] = Field(
        default=0.01,
        description="probability, at most, that a healthy release is aborted by the tests over devices, all "
        "looks and metrics together. 0.01: one night in a hundred is lost to chance",
    )
    power: Annotated[float, Field(gt=0.5, lt=1)] = Field(
        default=0.95,
        description="with which probability 'plan' states how many devices a bad release reaches at most. "
        "0.95: the usual one",
    )
    healthy_failure_share: Annotated[float, Field(ge=1e-6, lt=0.5)] = Field(
        default=0.01,
        description="share of devices that fail with any release (full disk, broken download, worn flash): "
        "so many stop nothing. 0.01: one in a hundred, as comparisons of rollout rules assume",
    )
    bad_failure_share: Share = Field(
        default=0.05,
        description="least share of failing devices that is worth a stop; greater ones are found sooner. "
        "0.05: nearer to the healthy share needs devices without end (0.02: some 1,200)",
    )
    max_p50_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.5,
        description="median latency over the same device's own before, a ratio. 1.5: a quiet device's median "
        "moves by a few per cent between runs, so this is past any noise",
    )
    max_p99_ratio: Annotated[float, Field(gt=0)] = Field(
        default=3.0,
        description="the same for the 99th percentile. 3: other work on the device moves a tail far more "
        "than a median",
    )
    max_energy_ratio: Annotated[float, Field(gt=0)] = Field(
        default=2.0,
        description="measured energy above idle of an inference over the same device's own before, a ratio. "
        "2: sensors of 1 % and an idle power that wanders lie far below",
    )
    max_typical_p50_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.1,
        description="the same ratio of the median device, the drift of devices on the old release taken off. "
        "1.1: a slowdown that one device cannot show and a fleet can",
    )
    max_typical_p99_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.3,
        description="the same for the 99th percentile. 1.3: tails wander, even of the median device",
    )
    max_typical_energy_ratio: Annotated[float, Field(gt=0)] = Field(
        default=1.15,
        description="the same for energy. 1.15: a device's idle power is known to a few per cent",
    )
    max_temperature_c: float = Field(
        default=85.0,
        description="of a device that was cooler before. 85: where a Raspberry Pi is throttled fully",
    )
    max_class_distance: Annotated[float, Field(gt=0, le=1)] = Field(
        default=0.5,
        description="Jensen–Shannon distance of the answers (shares of the top classes) from the same "
        "device's with the old release. 0.5: two sketches of 100 samples in 32 classes lie 0.33 "
        "apart by chance",
    )
    required: tuple[Literal["energy", "temperature", "drift"], ...] = Field(
        default=(),
        description="figures without which a device stays inconclusive. None: not every device has the sensors",
    )
    max_error_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.01,
        description="errors over inferences on each device, 0 to 1. 0.01: the agent's own rollback has "
        "caught what fails outright, what is left is rare inputs",
    )
    min_inferences: Annotated[int, Field(gt=0)] = Field(
        default=100,
        description="successful inferences on each device, before and after. 100: with fewer, a 99th "
        "percentile is the maximum",
    )
    window_s: Annotated[float, Field(ge=0)] = Field(
        default=60.0,
        description="seconds that a wave is observed at least after its last commit. 60: past the warm-up of "
        "caches, and several telemetry periods",
    )
    timeout_s: Seconds = Field(
        default=900.0,
        description="seconds for a baseline, a device's update, an observation or a revert; after it what is "
        "missing makes the rollout inconclusive. 900: a slow link fetches an artifact in it",
    )

    @model_validator(mode="after")
    def _can_tell_bad_from_healthy(self) -> Gates:
        if self.bad_failure_share <= self.healthy_failure_share:
            raise ValueError(
                "bad_failure_share must be greater than healthy_failure_share, or no test can tell"
            )
        return self

    @model_validator(mode="after")
    def _outlasts_the_window(self) -> Gates:
        if self.timeout_s <= self.window_s:
            raise ValueError("timeout_s must be greater than window_s, or no wave can pass in time")
        return self


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
    devices: Literal["all"] | Annotated[tuple[Name, ...], Field(min_length=1)] = Field(
        default="all", description="every device of the fleet, or these by name"
    )
    profile: str | None = Field(default=None, description="None: devices of every hardware profile")
    waves: tuple[Wave, ...] = Field(
        default=(1, "10%", "rest"),
        min_length=1,
        description="devices to add in each wave: a number, a share of all, or the rest. One device first, "
        "since one is enough to see what is broken everywhere",
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

    @field_validator("waves")
    @classmethod
    def _ends_with_the_rest(cls, waves: tuple[Wave, ...]) -> tuple[Wave, ...]:
        if waves[-1] not in ("rest", "100%") or "rest" in waves[:-1]:
            raise ValueError("the last wave, and only the last, must be 'rest' (or '100%')")
        return waves


def load_spec(path: Path) -> RolloutSpec:
    """Read a specification; a relative registry is relative to the file. Raises `ConfigError`."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("does not exist", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from None
    spec = from_mapping(RolloutSpec, _parse(text, str(path)), where=str(path))
    try:
        return spec.model_copy(update={"registry": (path.parent / spec.registry).resolve()})
    except (OSError, ValueError) as error:  # a loop of links, a null byte
        raise ConfigError(f"registry: {error}", where=str(path)) from None


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}{error.problem or 'is not YAML'}", where=where) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"is not YAML ({error})", where=where) from None
    # PyYAML's constructors let these through for a tagged scalar that does not hold, such as `!!int ""`.
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ConfigError(f"holds a value that YAML does not know ({error})", where=where) from None


def plan_waves(
    spec: RolloutSpec, devices: Sequence[tuple[str, str]], offline: Collection[str] = ()
) -> tuple[tuple[str, ...], ...]:
    """The devices of each wave, from (device, profile) pairs.

    Profiles take turns, so that an early wave holds every kind of device; those that are `offline` come last,
    so that a canary is one that can answer. A share counts of all devices.
    Raises `RolloutError` where no device is selected.
    """
    chosen = [
        (device, profile)
        for device, profile in sorted(devices)
        if (spec.devices == "all" or device in spec.devices)
        and (spec.profile is None or profile == spec.profile)
    ]
    named = () if spec.devices == "all" else spec.devices
    if missing := sorted(set(named) - {device for device, _ in devices}):
        raise RolloutError(f"device '{missing[0]}' is not known in fleet '{spec.fleet}'")
    if not chosen:
        raise RolloutError(
            f"no device of fleet '{spec.fleet}' is selected", remedy="see 'edgewright fleet devices'"
        )
    seen: dict[str, int] = {}
    turns: list[tuple[bool, int, str]] = []
    for device, profile in sorted(chosen, key=lambda pair: pair[0] in offline):
        turns.append((device in offline, seen.get(profile, 0), device))
        seen[profile] = seen.get(profile, 0) + 1
    left = [device for _, _, device in sorted(turns)]
    waves: list[tuple[str, ...]] = []
    for size in wave_sizes(spec, len(chosen)):
        waves.append(tuple(left[:size]))
        left = left[size:]
    return tuple(waves)


def wave_sizes(spec: RolloutSpec, devices: int) -> tuple[int, ...]:
    """How many of so many devices each wave adds; waves that nobody is left for are left out."""
    sizes: list[int] = []
    left = devices
    for wave in spec.waves:
        size = min(left, left if wave == "rest" else _size(wave, devices))
        if size:
            sizes.append(size)
        left -= size
    return tuple(sizes)


def _size(wave: int | str, devices: int) -> int:
    if isinstance(wave, int):
        return wave
    return math.ceil(int(re.sub(r"\D", "", wave)) * devices / 100)
