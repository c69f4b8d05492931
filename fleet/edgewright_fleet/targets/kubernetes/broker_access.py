"""How pods reach the broker and prove who they are: settings in a ConfigMap, files from a Secret.

The settings are those that every command takes. A file that they name is, in a pod, the key of that name in a
Secret which an operator has made: no manifest holds a certificate, a key or a password, and none is read here.
"""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings

Json = dict[str, Any]
MOUNT = "/etc/edgewright-broker"
FILES = ("ca_file", "certificate_file", "key_file", "password_file")
KEY = r"[-._a-zA-Z0-9]{1,253}"
"""What the API server takes as a key of a Secret."""


@dataclass(frozen=True)
class BrokerAccess:
    """One kind of pod's way to the broker; `secret` is the name of the Secret. Raises `ConfigError`."""

    settings: BrokerSettings
    secret: str | None = None

    def __post_init__(self) -> None:
        files = self._files()
        if files and self.secret is None:
            given = " ".join(f"--from-file={path}" for path in files.values())
            raise ConfigError(
                f"{', '.join(files)}: pods do not have the files of this machine",
                where=f"broker {self.settings}",
                remedy=f"'kubectl create secret generic NAME {given}', and name that Secret",
            )
        if self.secret is not None and not files:
            raise ConfigError(
                f"Secret '{self.secret}' is for nothing, as no file is named",
                where=f"broker {self.settings}",
                remedy="give a .toml file with ca_file, certificate_file, key_file or password_file as the broker",
            )
        keys: dict[str, Path] = {}
        for name, path in files.items():
            if not re.fullmatch(KEY, path.name):
                raise ConfigError(f"{name}: '{path.name}' can be no key of a Secret")
            if keys.setdefault(path.name, path) != path:
                raise ConfigError(
                    f"{keys[path.name]} and {path} would be one key of the Secret, '{path.name}'"
                )

    def toml(self) -> str:
        """The settings as a pod reads them: the keys of `[broker]`."""
        files = {name: f"{MOUNT}/{path.name}" for name, path in self._files().items()}
        given = self.settings.model_dump(mode="json", exclude_none=True) | files
        # A JSON string is a TOML basic string, and JSON's numbers and truths are TOML's.
        return "".join(f"{name} = {json.dumps(value)}\n" for name, value in given.items())

    def mounts(self) -> list[Json]:
        """What the container mounts."""
        return [{"name": "broker", "mountPath": MOUNT, "readOnly": True}] if self.secret else []

    def volumes(self, mode: int) -> list[Json]:
        """The Secret's keys that are used and no others, with the files' mode."""
        if self.secret is None:
            return []
        keys = sorted({path.name for path in self._files().values()})
        items = [{"key": key, "path": key} for key in keys]
        return [
            {"name": "broker", "secret": {"secretName": self.secret, "items": items, "defaultMode": mode}}
        ]

    def _files(self) -> dict[str, Path]:
        return {name: path for name in FILES if (path := getattr(self.settings, name)) is not None}
