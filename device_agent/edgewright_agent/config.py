"""`AgentConfig`: what `agent.toml` holds, each key with its unit and the reason of its default.

An unknown key is an error, as a misspelt one would otherwise leave a default in force without a word.
"""

from __future__ import annotations

import os
import re
import sys
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

from pydantic import BaseModel, Field, field_validator, model_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright.telemetry.names import Encoding
from edgewright_agent.feed_config import SINK_PATHS, SOURCE_PATHS, SinkConfig, SourceConfig, is_path

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

if TYPE_CHECKING:
    from edgewright_agent.sampling_config import SamplingConfig
else:  # `load_config` reads the table where there is one: its model costs a quarter of a megabyte
    SamplingConfig = Any

SOCKET_PATH_BYTES = 107
"""unix(7): `sun_path` holds 108, the last of which is a zero."""
Seconds = Annotated[float, Field(gt=0)]


class ServingConfig(BaseModel):
    """Where applications on the device reach the model, and how much they may ask at once."""

    model_config = CONTRACT
    socket: Path | None = None
    """Path of a Unix socket, read and written by the agent's user and group alone. None: no such socket."""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """TCP port. None: no TCP, as every user and program of the device may connect to a port."""
    address: IPv4Address | IPv6Address = IPv4Address("127.0.0.1")
    """Address of the port. Loopback: the API knows no passwords; another address is for a network you trust."""
    max_request_bytes: Annotated[int, Field(ge=1024, le=1 << 31)] = 16 << 20
    """Bytes of one request; a larger one is refused unread. 16 MiB: 1,182 × 1,182 × 3 values of FP32."""
    queue: Annotated[int, Field(ge=0, le=1000)] = 8
    """Requests that may wait behind the one that runs. 8: with their bodies at most 144 MiB of memory."""
    deadline_s: Annotated[float, Field(gt=0, le=3600)] = 10.0
    """Seconds from a request's first byte until its inference must begin. 10: eight that take a second each."""

    @model_validator(mode="after")
    def _listens_somewhere(self) -> ServingConfig:
        if self.socket is None and self.port is None:
            raise ValueError("needs a socket, a port or both")
        if self.socket is not None and len(os.fsencode(self.socket)) > SOCKET_PATH_BYTES:
            raise ValueError(f"the path of the socket is longer than {SOCKET_PATH_BYTES} bytes")
        return self


class TrustConfig(BaseModel):
    """Whose releases this device takes."""

    model_config = CONTRACT
    root: Path
    """The root.json of 'edgewright trust init', which says whose signatures count. It is read at each update."""


class AgentConfig(BaseModel):
    """One device's settings. Relative paths are relative to the file."""

    model_config = CONTRACT
    fleet: Name
    """The fleet's name, the first part of every topic."""
    device: Name
    """This device's name, unique in its fleet."""
    profile: str
    """A built-in hardware profile, or the path of a `.toml` file of one."""
    registry: Path
    """The OCI layout that releases are pulled from."""
    state_dir: Path
    """Holds the two slots and the pointer; must survive reboots."""
    broker: BrokerSettings = BrokerSettings()
    """The broker on this host where nothing else is said."""
    labels: dict[Name, Name] = Field(default_factory=dict)
    """What a rollout may select this device by, such as `site = "lab"`; `cluster` is one by convention."""
    time_zone: str | None = None
    """IANA name, such as `Europe/Berlin`, by which a rollout's maintenance windows are meant. None: not told."""
    source: SourceConfig = SourceConfig()
    sink: SinkConfig = SinkConfig()
    serving: ServingConfig | None = None
    """The inference API. None: nothing listens, as a device may serve its own sources alone."""
    trust: TrustConfig | None = None
    """Whose signature a release needs. None: what the fleet names is taken as the registry has it."""
    sampling: SamplingConfig | None = None
    """Inputs for training. None: none is kept."""
    threads: Annotated[int, Field(gt=0, le=256)] = 1
    """Of the runtime. 1: small models are slower with more under load, and the device has other work."""
    telemetry_period_s: Seconds = 60.0
    """Seconds between two metrics payloads. 60: a gate sees a bad release within minutes, at 0.8 kB each."""
    telemetry_encoding: Encoding = "protobuf"
    """`protobuf` is deflated OTLP; `json` is for people and simple receivers, at five times the size."""
    telemetry_spool_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 32)] = 16 << 20
    """Bytes of disk for payloads that the broker does not have yet. 16 MiB: 2.8 days at the default period."""
    download_retry_s: Annotated[float, Field(ge=0)] = 600.0
    """Seconds for which a registry that is away is asked again; a newer wish ends it. 600: shorter than a rollout
    waits for a device, so that it is told the reason. 0: the update fails at once."""
    sketch_period_s: Seconds = 300.0
    """Seconds between two sketches of the data, 0.5 kB each, by which drift is found. 300: data drifts over hours,
    not within a minute."""
    sketch_samples: Annotated[int, Field(gt=0, le=1_000_000)] = 1200
    """Inferences that a sketch looks at, evenly over its period; 50 µs of processor time each. 1200: four a
    second, and chance alone gives ten classes a population stability index of 0.008."""
    watch_s: Seconds = 10.0
    """Seconds that a new release is watched at least before it is kept. 10: ten inferences at the default rate."""
    watch_inferences: Annotated[int, Field(ge=0)] = 12
    """Inferences that a new release is watched for at least. 12: fewer say nothing about the latency."""
    watch_max_s: Seconds = 60.0
    """Seconds after which a release that met with fewer inferences is kept on what was seen; `watch_s` where that
    is longer. 60: a device without work does not hold up a rollout, and the release was proved before."""
    watch_max_error_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the inferences while watching that may fail; more rolls back. 0.05: of ten, none."""
    watch_hang_s: Seconds = 30.0
    """Seconds that one inference may take while watching; then the agent rolls back and restarts. 30: far beyond
    the budget of any profile, and not beyond the patience of a user."""
    watch_max_slowdown: Annotated[float, Field(ge=0)] = 2.0
    """How many times the median latency of the release before the new one's may be, for certain; 0 turns the check
    off. 2: what a device's other work does to a latency is less as a rule."""
    watch_max_heating_c: Annotated[float, Field(ge=0)] = 20.0
    """Degrees Celsius that the device may be hotter than before the update; throttling that began with the release
    counts as well. 0 turns both off. 20: more than the sun does in a minute."""
    prove_timeout_s: Seconds = 60.0
    """Seconds to load a model, run its golden vectors and measure it; a slow board with a large one needs tens. A
    quarter of it is for measuring."""
    prove_runs: Annotated[int, Field(ge=0, le=10_000)] = 300
    """Inferences to measure the latency by; fewer where they take longer than their time. 0: not measured.
    300: where p99 is within its limit, three of them are beyond; eleven are not chance."""
    prove_max_p99_s: Seconds | None = None
    """Seconds that the 99th percentile of the latency may be. None: the profile's budget."""
    prove_max_memory_bytes: Annotated[int, Field(gt=0)] | None = None
    """Bytes that the model may take beyond its runtime. None: the profile's budget."""
    prove_budgets: bool = True
    """Whether a release that misses these two limits fails; false: they are measured and logged alone."""
    accept_failed_artifacts: bool = False
    """Whether to take an artifact that failed the converter's gate. false: nobody rolls out by accident what was
    found too inaccurate, left in float or too large; true is for a device on a desk."""

    @field_validator("time_zone")
    @classmethod
    def _is_known(cls, zone: str | None) -> str | None:
        # By name alone: a device may lack the data of the zone, and only the fleet computes with it.
        if zone is not None and not re.fullmatch(r"[A-Za-z0-9_+-]+(/[A-Za-z0-9_+-]+)*", zone):
            raise ValueError("is no IANA time zone, such as Europe/Berlin")
        return zone


_PATHS = ("registry", "state_dir", "profile")
_BROKER_PATHS = ("password_file", "ca_file", "certificate_file", "key_file")


def load_config(path: Path, device: str | None = None) -> AgentConfig:
    """Read an `agent.toml`; `device` stands for the file's, where one file is for many devices.

    Raises `ConfigError`: one line that names the file and the key.
    """
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("does not exist", where=str(path), remedy=_where_the_template_is()) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from None
    if device is not None:
        document["device"] = device
    _resolve(document, _PATHS, path.parent)
    _resolve(document.get("broker"), _BROKER_PATHS, path.parent)
    for name, keys in (("source", SOURCE_PATHS), ("sink", SINK_PATHS)):
        table = document.get(name)
        _resolve(table, keys, path.parent)
        if isinstance(table, dict):
            _resolve(table.get("broker"), _BROKER_PATHS, path.parent)
    _resolve(document.get("serving"), ("socket",), path.parent)
    _resolve(document.get("trust"), ("root",), path.parent)
    if "sampling" in document:
        from edgewright_agent.sampling_config import SamplingConfig

        _resolve(document["sampling"], ("url", "credentials_file"), path.parent)
        document["sampling"] = from_mapping(SamplingConfig, document["sampling"], where=f"{path}, [sampling]")
    return from_mapping(AgentConfig, document, where=str(path))


def _where_the_template_is() -> str:
    import sysconfig  # for this error alone

    template = Path(sysconfig.get_path("data"), "share/edgewright/agent.toml")
    return f"copy {template} and name fleet, device and profile" if template.exists() else "see --config"


def _resolve(table: Any, keys: tuple[str, ...], folder: Path) -> None:
    if not isinstance(table, dict):
        return
    for key in keys:
        value = table.get(key)
        # A profile is a name unless it looks like a file.
        if is_path(value) and (key != "profile" or value.endswith(".toml")):
            table[key] = str(folder.resolve() / value)
