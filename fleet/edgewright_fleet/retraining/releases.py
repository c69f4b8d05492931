"""The two releases that a retraining is about: the one that serves, and its candidate."""

from __future__ import annotations

from collections.abc import Iterator

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import Release, open_artifact, open_release
from edgewright_fleet.retraining.chain import Link
from edgewright_fleet.retraining.run import Run, names
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.version import newest


def versions(spec: RetrainingSpec) -> list[str]:
    """Of the releases in the registry."""
    if not (spec.registry / "index.json").exists():
        return []
    held = (name.partition(":") for name in Layout.open(spec.registry).names())
    return [version for name, _, version in held if name == spec.release]


def serving_release(spec: RetrainingSpec) -> Release | None:
    """The release that a candidate must beat: the newest that no rollout took back. None: there is none."""
    refused = {str(link.evidence["release"]) for link in _refused(spec)}
    version = newest(v for v in versions(spec) if f"{spec.release}:{v}" not in refused)
    return open_release(Layout.open(spec.registry), f"{spec.release}:{version}") if version else None


def _refused(spec: RetrainingSpec) -> Iterator[Link]:
    """The releases that the fleet took back: it runs what it ran before."""
    for name in names(spec.runs, spec.name):
        run = Run(spec.runs / name)
        release = run.chain.last("release")
        if release is not None and run.taken_back:
            yield release


def candidate_release(run: Run) -> Release:
    """The candidate in its own registry. Raises `ArtifactError`."""
    layout = Layout.open(run.folder / "candidate")
    ((name, _),) = layout.names().items()
    return open_release(layout, name)


def class_names(release: Release | None) -> tuple[str, ...] | None:
    """The names of a release's classes, where it has them. Raises `ArtifactError`."""
    if release is None:
        return None
    return open_artifact(release.layout, next(iter(release.artifacts.values()))).manifest.labels
