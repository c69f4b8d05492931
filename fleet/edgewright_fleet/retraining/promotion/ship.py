"""What becomes of a judged candidate: a release with its model card, or nothing.

`better` ships by itself; anything else only where a person says why, which the record and the card keep. Shipping
names the release in the registry and starts no rollout.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from pydantic import JsonValue

from edgewright.artifact.comparison import Comparison
from edgewright.artifact.layout import Layout
from edgewright.artifact.model_card import (
    ArtifactOnCard,
    DataSummary,
    Decision,
    Lineage,
    ModelCard,
    publish_with_card,
)
from edgewright.artifact.release import Release, open_artifact
from edgewright.errors import RolloutError
from edgewright_fleet.retraining.chain import Chain


def record_comparison(chain: Chain, candidate: Release, comparison: Comparison, at: datetime) -> None:
    """Add the comparison to the record, whatever its verdict."""
    evidence: dict[str, JsonValue] = {
        "candidate": f"{candidate.name}:{candidate.version}",
        "candidate_digest": candidate.digest,
        "serving": str(comparison.serving),
        "serving_digest": comparison.serving.digest,
        "verdict": comparison.verdict,
        "checks": [check.model_dump(mode="json", exclude_none=True) for check in comparison.checks],
        "samples_needed": comparison.samples_needed,
    }
    chain.add("comparison", f"{comparison.verdict}: {comparison.says}", evidence, at)


def decision(comparison: Comparison | None, *, who: str = "", why: str | None = None) -> Decision:
    """Who lets a candidate out. `why` is a person's reason to do so; `comparison` None: nothing serves yet.

    Raises `RolloutError` where neither the comparison nor a person does.
    """
    if why is not None and why.strip():
        return Decision(by="hand", who=who, why=why.strip())
    if comparison is not None and comparison.verdict == "better":
        return Decision(by="comparison", why=comparison.says)
    verdict = (
        "not compared: nothing serves yet"
        if comparison is None
        else f"{comparison.verdict}: {comparison.says}"
    )
    needed = comparison.samples_needed if comparison is not None else None
    more = f"about {needed} labelled samples would decide it; or " if needed else ""
    raise RolloutError(
        f"the candidate does not ship by itself; it is {verdict}",
        remedy=f"{more}a person who knows better promotes it by hand and says why",
    )


def ship(
    candidate: Release,
    registry: Layout,
    chain: Chain,
    *,
    decided: Decision,
    comparison: Comparison | None,
    lineage: Lineage,
    data: Sequence[DataSummary],
    at: datetime,
    intended_use: str = "",
    limits: str = "",
) -> Release:
    """Name the candidate in `registry` with its card, and record it. Raises `ArtifactError`, `StorageError`.

    The card's `chain_head` is the record as it stands when this is called. A failure leaves the registry as it
    was; calling again after a crash gives the release once more and one more link.
    """
    artifacts = [open_artifact(candidate.layout, each) for _, each in sorted(candidate.artifacts.items())]
    card = ModelCard(
        name=candidate.name,
        version=candidate.version,
        made_at=at,
        intended_use=intended_use,
        limits=limits,
        data=tuple(data),
        lineage=lineage.model_copy(update={"chain_head": chain.head}),
        artifacts=tuple(
            ArtifactOnCard(
                profile=artifact.manifest.profile,
                format=artifact.manifest.format,
                digest=artifact.digest,
                model_bytes=artifact.manifest.model_bytes,
                gate=artifact.manifest.gate,
            )
            for artifact in artifacts
        ),
        comparison=comparison,
        decision=decided,
    )
    with registry.undone_on_error():
        for artifact in artifacts:
            for blob in (*artifact.blobs, artifact.descriptor):
                registry.copy_from(candidate.layout, blob)
        release = publish_with_card(registry, card, tuple(artifact.descriptor for artifact in artifacts))
    by_hand = f" by hand, {decided.who or 'unknown'}: {decided.why}" if decided.by == "hand" else ""
    assert release.card is not None
    evidence: dict[str, JsonValue] = {
        "release": f"{release.name}:{release.version}",
        "digest": release.digest,
        "card": release.card.digest,
        "by": decided.by,
        "who": decided.who,
        "why": decided.why,
    }
    chain.add("release", f"{release.name}:{release.version} promoted{by_hand}", evidence, at)
    return release
