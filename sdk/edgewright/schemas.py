"""The contracts that have a JSON Schema file, for readers in other languages; run the module to write them."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel

from edgewright.active_slot import SlotState
from edgewright.artifact.manifest import ArtifactManifest
from edgewright.artifact.model_card import ModelCard
from edgewright.contract import schema_text
from edgewright.field_sample import FieldSample
from edgewright.prediction import Prediction
from edgewright.telemetry.window import TelemetryWindow
from edgewright.twin import DesiredState, DeviceStatus, ReportedState

FOLDER = Path(__file__).parent / "schema"
SCHEMAS: dict[str, type[BaseModel]] = {
    "active-slot": SlotState,
    "artifact-manifest": ArtifactManifest,
    "model-card": ModelCard,
    "field-sample": FieldSample,
    "prediction": Prediction,
    "telemetry-window": TelemetryWindow,
    "twin-desired": DesiredState,
    "twin-reported": ReportedState,
    "twin-status": DeviceStatus,
}


def main() -> None:
    """Write the schema files anew; the tests fail while one is out of date."""
    for name, model in SCHEMAS.items():
        (FOLDER / f"{name}.schema.json").write_text(schema_text(model), encoding="utf-8")


if __name__ == "__main__":
    main()
