"""The two releases that a retraining is about: the one that serves, and its candidate."""

from __future__ import annotations

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import Release, open_artifact, open_release
from edgewright_fleet.retraining.run import Run
from edgewright_fleet.retraining.spec import RetrainingSpec
from edgewright_fleet.retraining.version import newest


def versions(spec: RetrainingSpec) -> list[str]:
    """Of the releases in the registry."""
    if not (spec.registry / "index.json").exists():
        return []
    names = (name.partition(":") for name in Layout.open(spec.registry).names())
    return [version for name, _, version in names if name == spec.release]


def serving_release(spec: RetrainingSpec) -> Release | None:
    """The release that a candidate must beat: the newest in the registry; None for the first."""
    version = newest(versions(spec))
    return open_release(Layout.open(spec.registry), f"{spec.release}:{version}") if version else None


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
