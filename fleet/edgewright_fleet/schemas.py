"""The fleet's contracts that have a JSON Schema file; run the module to write them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from edgewright.contract import schema_text
from edgewright_fleet.retraining.chain import Link
from edgewright_fleet.retraining.field_data.data_set import DataSetEntry, DataSetManifest
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.triggers.policy import TriggerPolicy
from edgewright_fleet.retraining.triggers.trigger import NotFired, Trigger
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import RolloutState

FOLDER = Path(__file__).parent / "schema"
SCHEMAS: dict[str, type[BaseModel]] = {
    "data-set": DataSetManifest,
    "data-set-entry": DataSetEntry,
    "retraining-not-fired": NotFired,
    "retraining-trigger": Trigger,
    "retraining-trigger-policy": TriggerPolicy,
    "training-job": TrainingJob,
    "retraining": RetrainingSpec,
    "retraining-link": Link,
    "rollout": RolloutSpec,
    "rollout-state": RolloutState,
}


def main() -> None:
    """Write the schema files anew; the tests fail while one is out of date."""
    for name, model in SCHEMAS.items():
        (FOLDER / f"{name}.schema.json").write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    main()
