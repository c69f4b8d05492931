"""The stage `conversion`: the trained model through the same converters and the same gate as any other."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

from pydantic import JsonValue

from edgewright_fleet.retraining.releases import versions
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.stages.step import Step, Tools
from edgewright_fleet.retraining.version import next_version

CALIBRATION_SAMPLES = 100
"""From the field that ranges are set by; fewer: the training data. 100: what a quick conversion takes."""


def check_model(spec: RetrainingSpec) -> None:
    """Build the model, which is converted after its training. Raises `ConversionError` where that cannot be."""
    from edgewright_converters.source import load_source

    _find_code(spec)
    load_source(spec.model)


def convert_candidate(run: Run, spec: RetrainingSpec, tools: Tools) -> Step:
    from edgewright_converters.pipeline import convert

    candidate = run.folder / "candidate"
    if candidate.exists():
        shutil.rmtree(candidate)
    _find_code(spec)
    conversion = spec.conversion
    report = convert(
        spec.model,
        weights=run.folder / "training" / "output" / "model.safetensors",
        calibration=_calibration(run, spec),
        evaluation=spec.data.evaluation,
        training_data=_fine_tuning_data(run, spec),
        fine_tune=conversion.fine_tune,
        profile=conversion.profiles,
        format=conversion.formats,
        max_drop=conversion.max_drop,
        effort=conversion.effort,
        precision=conversion.precision,
        output=candidate,
        name=spec.release,
        version=next_version(versions(spec)),
        report=run.folder / "conversion.html",
        on_step=tools.show,
    )
    gates = {f"{made.profile}/{made.format}": made.gate for made in report.artifacts}
    says = {name: gate.verdict for name, gate in gates.items() if gate}
    evidence: dict[str, JsonValue] = {
        "version": report.version,
        "verdict": report.verdict,
        "verdicts": dict(says),
        "release": report.release_digest,
        "seconds": round(report.seconds, 1),
    }
    if report.reference is None:
        failed = "; ".join(
            check.says for gate in gates.values() if gate for check in gate.checks if check.verdict == "fail"
        )
        return Step(f"the converter's gate failed the candidate: {failed}", evidence, stops=True)
    return Step(
        f"converted to {len(gates)} artifacts of {spec.release}:{report.version}, gate: {report.verdict}",
        evidence,
    )


def _find_code(spec: RetrainingSpec) -> None:
    if str(spec.code) not in sys.path:
        sys.path.insert(0, str(spec.code))


def _fine_tuning_data(run: Run, spec: RetrainingSpec) -> str | None:
    """What INT8 is fine-tuned on where nothing else meets the budget; None: it is not here."""
    if (run.folder / "field.npz").is_file():
        return str(run.folder / "field.npz")
    return spec.data.training if Path(spec.data.training).exists() else None


def _calibration(run: Run, spec: RetrainingSpec) -> str:
    """What INT8 ranges are set by: as in the field, where enough of it is known."""
    if spec.data.calibration is not None:
        return spec.data.calibration
    link = run.chain.last("data")
    counts = link.evidence.get("field_counts") if link else None
    known = counts.get("training") if isinstance(counts, dict) else None
    enough = isinstance(known, int) and known >= CALIBRATION_SAMPLES
    return str(run.folder / "field.npz") if enough else spec.data.training
