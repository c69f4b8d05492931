"""`AgentConfig`: what `agent.toml` holds, each key with its unit and the reason of its default.

An unknown key is an error, as a misspelt one would otherwise leave a default in force without a word.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Annotated, Any

from pydantic import BaseModel, Field

from edgewright.artifact.manifest import Name
from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright_agent.feed_config import SINK_PATHS, SOURCE_PATHS, SinkConfig, SourceConfig, is_path

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

Seconds = Annotated[float, Field(gt=0)]


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
    sink: SinkConfig = SinkConfig()
    threads: Annotated[int, Field(gt=0, le=256)] = 1
    """Of the runtime. 1: small models are slower with more under load, and the device has other work."""
    telemetry_period_s: Seconds = 60.0
    """Seconds between two metrics payloads. 60: a gate sees a bad release within minutes, at 2 kB each."""
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
    for name, keys in (("source", SOURCE_PATHS), ("sink", SINK_PATHS)):
        table = document.get(name)
        _resolve(table, keys, path.parent)
        if isinstance(table, dict):
            _resolve(table.get("broker"), _BROKER_PATHS, path.parent)
    return from_mapping(AgentConfig, document, where=str(path))


def _resolve(table: Any, keys: tuple[str, ...], folder: Path) -> None:
    if not isinstance(table, dict):
        return
    for key in keys:
        value = table.get(key)
        # A profile is a name unless it looks like a file.
        if is_path(key, value) and (key != "profile" or value.endswith(".toml")):
            table[key] = str(folder.resolve() / value)
