"""What becomes of a judged candidate: a release with its model card, or nothing.

`better` ships by itself; anything else only where a person says why, which the record and the card keep. Shipping
names the release in the registry and starts no rollout.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
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
    read_card,
)
from edgewright.artifact.release import Artifact, Release, open_artifact, open_release
from edgewright.errors import RetrainingError
from edgewright_fleet.retraining.chain import Chain


def decision(comparison: Comparison | None, *, who: str = "", why: str | None = None) -> Decision:
    """Who lets a candidate out. `why` is a person's reason to do so; `comparison` None: nothing serves yet.

    Raises `RetrainingError` where neither the comparison nor a person does.
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
    raise RetrainingError(
        f"the candidate does not ship by itself; it is {verdict}",
        remedy=f"{more}a person who knows better promotes it by hand and says why",
    )


def ship(
    candidate: Release,
    registry: Layout,
    chain: Chain,
    *,
    comparison: Comparison | None,
    lineage: Lineage,
    data: Sequence[DataSummary],
    at: datetime,
    who: str = "",
    why: str | None = None,
    intended_use: str = "",
    limits: str = "",
    sign: Callable[[str], object] | None = None,
) -> Release:
    """Name the candidate in `registry` with its card, let `sign` sign it by its name, and record it.

    Raises `RetrainingError` where neither the comparison nor a person (`who`, `why`) lets it out, or the registry
    holds something else of that name; `ArtifactError`, `StorageError` with the registry as it was. The card's
    `chain_head` is the record as it stands. After a crash before the record's own link was written, calling again
    finds the release and adds the link.
    """
    name = f"{candidate.name}:{candidate.version}"
    decided = decision(comparison, who=who, why=why)
    artifacts = [open_artifact(candidate.layout, each) for _, each in sorted(candidate.artifacts.items())]
    _check_same(name, artifacts, comparison)
    release = _shipped(registry, name, artifacts, chain)
    if release is None:
        card = ModelCard(
            name=candidate.name,
            version=candidate.version,
            made_at=at,
            intended_use=intended_use,
            limits=limits,
            data=tuple(data),
            lineage=lineage.model_copy(update={"chain_head": chain.head}),
            artifacts=tuple(map(_on_card, artifacts)),
            comparison=comparison,
            decision=decided,
        )
        with registry.undone_on_error():
            for artifact in artifacts:
                for blob in (*artifact.blobs, artifact.descriptor):
                    registry.copy_from(candidate.layout, blob)
            release = publish_with_card(registry, card, tuple(artifact.descriptor for artifact in artifacts))
    if sign is not None:
        sign(name)  # before the record, as a run that is cut short in between does this again
    assert release.card is not None
    evidence: dict[str, JsonValue] = {
        "release": name,
        "digest": release.digest,
        "card": release.card.digest,
        "by": decided.by,
        "who": decided.who,
        "why": decided.why,
    }
    by_hand = f" by hand, {decided.who or 'unknown'}: {decided.why}" if decided.by == "hand" else ""
    chain.add("release", f"{name} promoted{by_hand}", evidence, at)
    return release


def _check_same(name: str, artifacts: Sequence[Artifact], comparison: Comparison | None) -> None:
    """What ships is what was compared, to the byte."""
    if comparison is None:
        return
    compared = {each.candidate.digest for each in comparison.artifacts if each.candidate is not None}
    if compared != {artifact.digest for artifact in artifacts}:
        raise RetrainingError("is not what was compared: its artifacts have changed since", where=name)


def _shipped(registry: Layout, name: str, artifacts: Sequence[Artifact], chain: Chain) -> Release | None:
    """The release of this very run, if it was named before."""
    if name not in registry.names():
        return None
    there = open_release(registry, name)
    if {each.digest for each in there.artifacts.values()} != {artifact.digest for artifact in artifacts}:
        raise RetrainingError(
            f"holds another {name} already",
            where=str(registry.root),
            remedy="give the candidate a new version",
        )
    card = read_card(there)
    return there if card is not None and card.lineage.chain_head == chain.head else None


def _on_card(artifact: Artifact) -> ArtifactOnCard:
    manifest = artifact.manifest
    return ArtifactOnCard(
        profile=manifest.profile,
        format=manifest.format,
        digest=artifact.digest,
        model_bytes=manifest.model_bytes,
        gate=manifest.gate,
    )
