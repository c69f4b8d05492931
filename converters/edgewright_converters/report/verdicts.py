"""What the gate says of each artifact, in its own words, with the figures that it rests on."""

from __future__ import annotations

from collections.abc import Iterable
from html import escape

from edgewright.artifact.manifest import ArtifactManifest, Verdict
from edgewright.figures import MANIFEST_COLUMNS, costs, left_in_float, manifest_row

_ORDER: tuple[Verdict, ...] = ("fail", "inconclusive", "pass")
_HEADING = ("profile", "format", "verdict")


def verdicts(manifests: Iterable[ArtifactManifest]) -> str:
    """One card an artifact."""
    return f"<div class=cards>{''.join(_card(manifest) for manifest in manifests)}</div>"


def _card(manifest: ArtifactManifest) -> str:
    gate = manifest.gate
    verdict = gate.verdict if gate else "inconclusive"
    figures = [
        f"<dt>{escape(column)}<dd>{escape(value)}"
        for column, value in zip(MANIFEST_COLUMNS, manifest_row(manifest), strict=True)
        if column not in _HEADING
    ]
    checks = []
    for check in sorted(gate.checks if gate else (), key=lambda check: _ORDER.index(check.verdict)):
        remedy = f" → {check.remedy}" if check.remedy and check.verdict != "pass" else ""
        checks.append(
            f"<li><span class={check.verdict}>{check.verdict}</span> <b>{escape(check.name)}</b> "
            f"{escape(check.says)} <span class=soft>[{escape(check.how)}]{escape(remedy)}</span>"
        )
    if gate:
        checks += [f"<li><span class=soft>left in float</span> {escape(one)}" for one in left_in_float(gate)]
        checks.append(f"<li class=soft>{escape(costs(gate))}")
    return (
        f"<div class=card><h3>{escape(manifest.profile)}, {manifest.format}: "
        f"<span class={verdict}>{verdict}</span></h3>"
        f"<p class=soft>{manifest.accuracy.samples} samples of the {manifest.accuracy.data} data, executed by "
        f"{escape(manifest.accuracy.executed_by)}; latency on this host, one thread</p>"
        f"<dl>{''.join(figures)}</dl><ul>{''.join(checks)}</ul></div>"
    )
