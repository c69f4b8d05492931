"""The kinds of failure that a user of Edgewright meets, in one family.

Every error says what was wrong, where, and what to do, in one line; the command prints that line and
exits with 2. Catch `EdgewrightError` for all of them.
"""

from __future__ import annotations

from pydantic import ValidationError

from edgewright_profiles.errors import EdgewrightError, ProfileError

__all__ = [
    "ArtifactError",
    "BrokerError",
    "ClusterError",
    "ConfigError",
    "ConversionError",
    "DataError",
    "EdgewrightError",
    "MissingArtifactError",
    "ProfileError",
    "RetrainingError",
    "RolloutError",
    "RuntimeUnavailableError",
    "StorageError",
    "TrustError",
    "first_violation",
]


class ArtifactError(EdgewrightError):
    """An artifact or release is missing, corrupt or not what it says it is."""


class MissingArtifactError(ArtifactError):
    """It is not there, or a part of it: not copied yet, or on a disk or a network that is away."""


class DataError(EdgewrightError):
    """Input, calibration or evaluation data has the wrong name, shape, dtype or values."""


class ConversionError(EdgewrightError):
    """A model cannot be loaded, exported, quantised or verified."""


class RuntimeUnavailableError(EdgewrightError):
    """No installed runtime can execute the artifact."""


class ConfigError(EdgewrightError):
    """A configuration or specification file cannot be read or does not hold."""


class BrokerError(EdgewrightError):
    """The MQTT broker cannot be reached or refuses us."""


class ClusterError(EdgewrightError):
    """A Kubernetes cluster cannot be reached or refuses us; `status` is the HTTP status, 0 where none came."""

    def __init__(self, problem: str, *, where: str = "", remedy: str = "", status: int = 0) -> None:
        super().__init__(problem, where=where, remedy=remedy)
        self.status = status

    @property
    def passes(self) -> bool:
        """Whether it is one of a server that restarts or is busy."""
        return self.status in (0, 429) or self.status >= 500


class RolloutError(EdgewrightError):
    """A rollout cannot be started, found or changed."""


class RetrainingError(EdgewrightError):
    """A training run or a retraining cannot be started, found or carried on."""


class TrustError(EdgewrightError):
    """A release is not signed as it must be, or keys or signatures are missing, out of date or unusable."""


class StorageError(EdgewrightError):
    """The disk is full, read-only or fails."""


def first_violation(error: ValidationError) -> tuple[str, str]:
    """The first violation of a pydantic model, as (place, what is wrong), each fit for one line."""
    detail = error.errors(include_url=False)[0]
    place = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return place, "no such key"
    if detail["type"] in ("model_type", "model_attributes_type", "dict_type"):
        return place, "must be keys with values"
    return place, detail["msg"].removeprefix("Value error, ")
