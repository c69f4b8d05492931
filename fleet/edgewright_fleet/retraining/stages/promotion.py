"""The stages `comparison`, `release` and `rollout`: better than what serves, named with its card, handed over."""

from __future__ import annotations

import shlex
from collections.abc import Callable, Iterator
from importlib import metadata

from edgewright.artifact.comparison import Comparison
from edgewright.artifact.layout import Layout, digest_of_file
from edgewright.artifact.model_card import DataSummary, Lineage, Training
from edgewright.artifact.release import open_artifact, open_release
from edgewright.contract import from_json, to_json
from edgewright.durable_file import write_durably
from edgewright_fleet.retraining.field_data.data_set import Part
from edgewright_fleet.retraining.field_data.reading import DataSet, open_data_set
from edgewright_fleet.retraining.promotion.handover import rollout_spec, write_rollout
from edgewright_fleet.retraining.promotion.samples import held_out_samples
from edgewright_fleet.retraining.promotion.ship import ship
from edgewright_fleet.retraining.promotion.verdict import judge
from edgewright_fleet.retraining.releases import candidate_release, serving_release
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.stages.data import data_digest, field_samples
from edgewright_fleet.retraining.stages.step import Step, Tools


def compare_candidate(run: Run, spec: RetrainingSpec, tools: Tools) -> Step:
    # It loads the converters, which reading a run's state need not.
    from edgewright_fleet.retraining.promotion.comparison import compare

    serving, candidate = serving_release(spec), candidate_release(run)
    if serving is None:
        return Step(
            "nothing serves yet, so that a person decides", {"verdict": "inconclusive", "ships": False}
        )
    first = next(iter(candidate.artifacts.values()))
    manifest = open_artifact(candidate.layout, first).manifest
    held_out = held_out_samples(spec.data.evaluation, manifest)
    tools.show(0, 1, f"comparing with {serving.name}:{serving.version} as INT8 artifacts", 0.0)
    found = compare(serving, candidate, held_out, field_samples(run))
    comparison = judge(serving, candidate, found, spec.promotion.criteria)
    write_durably(run.folder / "comparison.json", to_json(comparison))
    ships = comparison.verdict == "better" and not spec.promotion.by_hand
    waits = "; a person must say yes" if comparison.verdict == "better" and not ships else ""
    return Step(
        f"{comparison.verdict}: {comparison.says}{waits}",
        {
            "serving": str(comparison.serving),
            "serving_digest": comparison.serving.digest,
            "candidate_digest": candidate.digest,
            "verdict": comparison.verdict,
            "ships": ships,
            "comparison": digest_of_file(run.folder / "comparison.json"),
            "samples_needed": comparison.samples_needed,
        },
    )


def release_candidate(run: Run, spec: RetrainingSpec, tools: Tools) -> Step | None:
    path = run.folder / "comparison.json"
    approval = run.chain.last("approval")
    comparison = from_json(Comparison, path.read_bytes(), where=str(path)) if path.is_file() else None
    ship(
        candidate_release(run),
        Layout.create(spec.registry),
        run.chain,
        comparison=comparison,
        lineage=_lineage(run, spec, comparison),
        data=_data_on_card(run, spec),
        at=tools.now(),
        who=str(approval.evidence["by"]) if approval else "",
        why=approval.says if approval else None,
        intended_use=spec.intended_use,
        limits=spec.limits,
        sign=signed_by(spec),
    )
    return None


def signed_by(spec: RetrainingSpec) -> Callable[[str], object] | None:
    """What signs a release; None: nobody. Raises `TrustError` where it could not."""
    if spec.signing is None:
        return None
    from edgewright.trust.repository import Signing  # it takes a package of its own

    signing = Signing.open(spec.registry, spec.signing.keys, spec.signing.passphrase_file)
    signing.check()
    return signing.sign


def hand_over(run: Run, spec: RetrainingSpec, tools: Tools) -> Step:
    link = run.chain.last("release")
    assert link is not None
    release = open_release(Layout.open(spec.registry), str(link.evidence["release"]))
    if spec.promotion.rollout is None:
        return Step(f"{release.name}:{release.version} is in the registry; no rollout was asked for", {})
    path = next(run.folder.glob("rollout/*.yaml"), None) or write_rollout(
        rollout_spec(spec.promotion.rollout, release), run.folder / "rollout"
    )
    if not spec.promotion.start:
        command = shlex.join(["edgewright", "fleet", "rollout", "start", str(path), *_options(spec)])
        return Step(f"ready: {command}", {"rollout": path.stem})
    phase, says = tools.roll_out(path, spec.promotion.cluster)
    return Step(f"rollout {path.stem} {says}", {"rollout": path.stem, "phase": phase})


def _options(spec: RetrainingSpec) -> Iterator[str]:
    """That say to a command in which cluster the rollout is."""
    cluster = spec.promotion.cluster
    for name, value in cluster.model_dump(exclude_defaults=True).items() if cluster else ():
        yield from (f"--{name}", str(value))


def _lineage(run: Run, spec: RetrainingSpec, comparison: Comparison | None) -> Lineage:
    trigger, training = run.chain.last("trigger"), run.chain.last("training")
    module = spec.code / f"{spec.training.function.partition(':')[0].replace('.', '/')}.py"
    return Lineage(
        base=comparison.serving if comparison else None,
        trigger=trigger.says if trigger else "",
        training=Training(
            function=spec.training.function,
            code_digest=digest_of_file(module) if module.is_file() else None,
            parameters=dict(spec.training.parameters),
            seed=spec.training.seed,
            ranks=spec.training.nodes * spec.training.processes_per_node,
            weights_digest=str(training.evidence["weights"]) if training else None,
            tools={name: metadata.version(name) for name in ("edgewright", "torch")},
        ),
    )


def _data_on_card(run: Run, spec: RetrainingSpec) -> list[DataSummary]:
    candidate = candidate_release(run)
    manifest = open_artifact(candidate.layout, next(iter(candidate.artifacts.values()))).manifest
    found = [
        DataSummary(
            used_for="training",
            digest=data_digest(spec.data.training),
            samples=None,
            lineage=spec.data.training,
        ),
        DataSummary(
            used_for="held-out evaluation",
            digest=data_digest(spec.data.evaluation),
            samples=manifest.accuracy.samples,
            labelled=manifest.accuracy.samples if manifest.accuracy.artifact_accuracy else None,
            lineage=spec.data.evaluation,
        ),
    ]
    if (run.folder / "field").is_dir():
        data = open_data_set(run.folder / "field")
        found += [_field_summary(data, "training"), _field_summary(data, "evaluation")]
    return found


def _field_summary(data: DataSet, part: Part) -> DataSummary:
    times = sorted(entry.captured for entry in data.entries(part))
    devices = len({entry.device for entry in data.entries(part)})
    policies = sorted({entry.policy for entry in data.entries(part)})
    return DataSummary(
        used_for=f"field, {part}",
        digest=data.digest,
        samples=len(times),
        labelled=len(times),
        first_at=times[0] if times else None,
        last_at=times[-1] if times else None,
        lineage=f"sampled by {devices} devices, labelled by hand",
        privacy=f"kept by the devices' policies {', '.join(policies)}",
    )
