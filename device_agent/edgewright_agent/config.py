"""`AgentConfig`: what `agent.toml` holds."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, Field, model_validator

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

Seconds = Annotated[float, Field(gt=0)]


class SourceConfig(BaseModel):
    """Where the inputs of inferences come from."""

    model_config = CONTRACT
    kind: Literal["golden", "npz"] = Field(
        default="golden",
        description="golden: the artifact's own vectors, so that an idle device has a latency",
    )
    path: Path | None = Field(
        default=None, description="npz: arrays by input name, or x; first axis the samples"
    )
    rate_hz: Annotated[float, Field(gt=0, le=10_000)] = Field(default=1.0, description="inferences a second")

    @model_validator(mode="after")
    def _npz_has_a_path(self) -> SourceConfig:
        if (self.kind == "npz") != (self.path is not None):
            raise ValueError("kind 'npz' needs a path, and only it takes one")
        return self


class AgentConfig(BaseModel):
    """One device's settings. Relative paths are relative to the file."""

    model_config = CONTRACT
    fleet: Name
    device: Name
    profile: str = Field(description="a built-in hardware profile, or a .toml file of one")
    registry: Path = Field(description="the OCI layout that releases are pulled from")
    state_dir: Path = Field(description="holds the two slots; must survive reboots")
    broker: BrokerSettings = BrokerSettings()
    source: SourceConfig = SourceConfig()
    threads: Annotated[int, Field(gt=0, le=256)] = Field(default=1, description="of the runtime")
    telemetry_period_s: Seconds = Field(default=60.0, description="between two reports of metrics")
    watch_s: Seconds = Field(default=10.0, description="a new release is watched this long before it is kept")
    watch_max_error_share: Annotated[float, Field(ge=0, lt=1)] = Field(
        default=0.05, description="of the inferences while watching; more rolls back"
    )
    prove_timeout_s: Seconds = Field(
        default=60.0,
        description="a load and four inferences; a slow board with a large model needs tens of seconds",
    )


_PATHS = ("registry", "state_dir", "profile")
_BROKER_PATHS = ("password_file", "ca_file", "certificate_file", "key_file")


def load_config(path: Path) -> AgentConfig:
    """Read an `agent.toml`. Raises `ConfigError` with file and key."""
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
