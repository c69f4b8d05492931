"""The page: the verdict first, then the pictures, in one file that asks nothing of anyone else."""

from __future__ import annotations

from html import escape
from pathlib import Path
from typing import TYPE_CHECKING

from edgewright.durable_file import write_durably
from edgewright_converters.evidence import SAMPLES_OF
from edgewright_converters.report.candidates import candidates
from edgewright_converters.report.layers import layers
from edgewright_converters.report.ranges import ranges
from edgewright_converters.report.rungs import rungs
from edgewright_converters.report.style import STYLE
from edgewright_converters.report.verdicts import verdicts

if TYPE_CHECKING:
    from edgewright_converters.pipeline import ConversionReport


def write_page(report: ConversionReport, path: Path) -> None:
    """Write the page, durably and in one step. Raises `StorageError`."""
    write_durably(path, page(report).encode())


def page(report: ConversionReport) -> str:
    """The whole page."""
    title = escape(f"{report.name}:{report.version}")
    evidence = report.evidence
    where = f"written to {report.reference}" if report.reference else "nothing was written"
    sections = [
        f"<h1>{title}: <span class={report.verdict}>{report.verdict}</span></h1>",
        f"<p>{escape(where)}, in {report.seconds:.0f} s.</p>",
        "<p class=note>Every figure is measured on the host that converted, but for those that say <em>predicted"
        "</em>.</p>",
        *(f"<p class=inconclusive>Warning: {escape(warning)}</p>" for warning in report.warnings),
        "<h2>The gate</h2>",
        verdicts(report.artifacts),
        "<h2>What each rung of the ladder bought</h2>",
        rungs(report.attempts),
        "<h2>Accuracy against latency and size</h2>",
        candidates(
            report.attempts,
            evidence.tried if evidence else (),
            report.artifacts,
            SAMPLES_OF[evidence.data if evidence else "calibration"],
        ),
    ]
    if evidence is not None:
        users: dict[str, list[str]] = {}
        for manifest in report.artifacts:
            users.setdefault(manifest.model_digest, []).append(manifest.profile)
        named = {digest: ", ".join(profiles) for digest, profiles in users.items()}
        sections += ["<h2>Error of each layer as the target computes it</h2>", layers(evidence, named)]
        if evidence.activations and any(file.precision == "int8" for file in evidence.files):
            sections += ["<h2>Range of each activation and its grid</h2>", ranges(evidence)]
    if report.artifacts:
        made = report.artifacts[0].provenance
        tools = ", ".join(f"{name} {version}" for name, version in made.tools.items())
        sections.append(f"<p class=note>From {escape(made.source)} by {escape(tools)}.</p>")
    return (
        f"<!doctype html><html lang=en><head><meta charset=utf-8><title>{title}</title>"
        '<meta name=viewport content="width=device-width,initial-scale=1">'
        f"<style>{STYLE}</style></head><body>{''.join(sections)}</body></html>\n"
    )
