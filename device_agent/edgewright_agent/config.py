"""`AgentConfig`: what `agent.toml` holds, each key with its unit and the reason of its default.

An unknown key is an error, as a misspelt one would otherwise leave a default in force without a word.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright.telemetry.names import Encoding

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

Seconds = Annotated[float, Field(gt=0)]


class SourceConfig(BaseModel):
    """Where the inputs of inferences come from."""

    model_config = CONTRACT
    kind: Literal["golden", "npz"] = "golden"
    """`golden`: the artifact's own vectors in turn, so that a device without data still has a latency."""
    path: Path | None = None
    """Of `npz` alone: arrays by input name, or `x` where there is one input; the first axis is the samples."""
    rate_hz: Annotated[float, Field(gt=0, le=10_000)] = 1.0
    """Inferences a second. 1: sixty in a telemetry window, and next to no load on the smallest board."""

    @model_validator(mode="after")
    def _npz_has_a_path(self) -> SourceConfig:
        if (self.kind == "npz") != (self.path is not None):
            raise ValueError("kind 'npz' needs a path, and only it takes one")
        return self


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
    source: SourceConfig = SourceConfig()
    threads: Annotated[int, Field(gt=0, le=256)] = 1
    """Of the runtime. 1: small models are slower with more under load, and the device has other work."""
    telemetry_period_s: Seconds = 60.0
    """Seconds between two metrics payloads. 60: a gate sees a bad release within minutes, at 0.8 kB each."""
    telemetry_encoding: Encoding = "protobuf"
    """`protobuf` is deflated OTLP; `json` is for people and simple receivers, at five times the size."""
    telemetry_spool_bytes: Annotated[int, Field(ge=1 << 16, le=1 << 32)] = 16 << 20
    """Bytes of disk for payloads that the broker does not have yet. 16 MiB: 2.8 days at the default period."""
    watch_s: Seconds = 10.0
    """Seconds that a new release is watched before it is kept. 10: ten inferences at the default rate."""
    watch_max_error_share: Annotated[float, Field(ge=0, lt=1)] = 0.05
    """Share of the inferences while watching that may fail; more rolls back. 0.05: of ten, none."""
    prove_timeout_s: Seconds = 60.0
    """Seconds to load a model and run its golden vectors; a slow board with a large one needs tens."""
    accept_failed_artifacts: bool = False
    """Whether to take an artifact that failed the converter's gate. false: nobody rolls out by accident what was
    found too inaccurate, left in float or too large; true is for a device on a desk."""


_PATHS = ("registry", "state_dir", "profile")
_BROKER_PATHS = ("password_file", "ca_file", "certificate_file", "key_file")


def load_config(path: Path) -> AgentConfig:
    """Read an `agent.toml`. Raises `ConfigError`: one line that names the file and the key."""
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise ConfigError("does not exist", where=str(path)) from None
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from None
    _resolve(document, _PATHS, path.parent)
    _resolve(document.get("broker"), _BROKER_PATHS, path.parent)
    _resolve(document.get("source"), ("path",), path.parent)
    return from_mapping(AgentConfig, document, where=str(path))


def _resolve(table: Any, keys: tuple[str, ...], folder: Path) -> None:
    if not isinstance(table, dict):
        return
    for key in keys:
        value = table.get(key)
        # A profile is a name unless it looks like a file.
        if isinstance(value, str) and (key != "profile" or value.endswith(".toml")):
            table[key] = str(folder.resolve() / value)
