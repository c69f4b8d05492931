"""Artifacts and releases in an OCI layout: how they are put in, found by reference, and taken out verified.

A release is an OCI index named `NAME:VERSION` over one image manifest per profile and format, as a
container registry holds one image per platform. Media types follow the CNCF ModelPack specification
(model-spec v0.0.7) where it has one.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from edgewright.artifact.golden import GoldenVectors, golden_from_bytes
from edgewright.artifact.layout import (
    INDEX_TYPE,
    MANIFEST_TYPE,
    REF_NAME,
    Descriptor,
    ImageIndex,
    ImageManifest,
    Layout,
    image_index,
)
from edgewright.artifact.manifest import ArtifactManifest
from edgewright.contract import from_json, to_json
from edgewright.durable_file import storage_error
from edgewright.errors import ArtifactError

ARTIFACT_TYPE = "application/vnd.cncf.model.manifest.v1+json"
CONFIG_TYPE = "application/vnd.edgewright.artifact.manifest.v1+json"
MODEL_TYPE = "application/vnd.cncf.model.weight.v1.raw"
GOLDEN_TYPE = "application/vnd.cncf.model.dataset.v1.raw"
CARD_TYPE = "application/vnd.edgewright.model-card.v1+json"
FILE_PATH = "org.cncf.model.filepath"
PROFILE = "dev.edgewright.profile"
FORMAT = "dev.edgewright.format"
VERDICT = "dev.edgewright.verdict"
"""The gate's, so that who reads a release alone knows it; the manifest says why, and decides on a device."""

_REFERENCE = re.compile(
    r"oci:(?P<path>[^@]+?)(?:@(?P<digest>sha256:[0-9a-f]{64})|:(?P<name>[^:/@]+:[^:/@]+))"
)


@dataclass(frozen=True)
class Artifact:
    """An artifact in a layout whose every blob was checked when it was opened."""

    layout: Layout
    descriptor: Descriptor
    manifest: ArtifactManifest
    model_path: Path
    golden_descriptor: Descriptor
    blobs: tuple[Descriptor, ...]

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    def golden(self) -> GoldenVectors:
        """The golden vectors, read anew and verified."""
        return golden_from_bytes(self.layout.read(self.golden_descriptor))


@dataclass(frozen=True)
class Release:
    """One version of a model: its artifacts by (profile, format), each still a descriptor."""

    layout: Layout
    descriptor: Descriptor
    name: str
    version: str
    artifacts: dict[tuple[str, str], Descriptor]
    card: Descriptor | None = None
    """Of its model card, which `model_card` reads; None where it has none."""

    @property
    def digest(self) -> str:
        return self.descriptor.digest

    def choose(self, profile: str, formats: Sequence[str]) -> Descriptor:
        """The artifact for `profile` in the first of `formats` that the release holds.

        Raises `ArtifactError` that names what the release does hold.
        """
        for model_format in formats:
            if descriptor := self.artifacts.get((profile, model_format)):
                return descriptor
        held = ", ".join(sorted(f"{p} ({f})" for p, f in self.artifacts)) or "nothing"
        raise ArtifactError(
            f"no artifact for profile '{profile}' in {' or '.join(formats)}; it holds {held}",
            where=f"{self.name}:{self.version}",
            remedy=f"convert it with --profile {profile}",
        )


def put_artifact(layout: Layout, manifest: ArtifactManifest, model: bytes, golden: bytes) -> Descriptor:
    """Store an artifact's blobs; it becomes visible with the release that `publish` names."""
    model_layer = layout.put(model, MODEL_TYPE, {FILE_PATH: f"model.{manifest.format}"})
    golden_layer = layout.put(golden, GOLDEN_TYPE, {FILE_PATH: "golden.npz"})
    if model_layer.digest != manifest.model_digest or golden_layer.digest != manifest.golden.digest:
        raise ArtifactError("the manifest's digests do not match its model and golden vectors")
    image = ImageManifest(
        schemaVersion=2,
        mediaType="application/vnd.oci.image.manifest.v1+json",
        artifactType=ARTIFACT_TYPE,
        config=layout.put(to_json(manifest), CONFIG_TYPE),
        layers=(model_layer, golden_layer),
    )
    annotations = {PROFILE: manifest.profile, FORMAT: manifest.format}
    if manifest.gate is not None:
        annotations[VERDICT] = manifest.gate.verdict
    return layout.put(to_json(image), MANIFEST_TYPE, annotations)


def publish(layout: Layout, name: str, version: str, artifacts: Sequence[Descriptor]) -> Release:
    """Name a release over stored artifacts. This is the one step that makes it visible."""
    index = image_index(tuple(artifacts), {"org.opencontainers.image.title": name})
    layout.tag(f"{name}:{version}", layout.put(to_json(index), INDEX_TYPE))
    return open_release(layout, f"{name}:{version}")


def open_release(layout: Layout, name: str) -> Release:
    """The release that `NAME:VERSION` points at. Raises `ArtifactError` that lists the names there are."""
    names = layout.names()
    if name not in names:
        held = ", ".join(sorted(names)) or "none"
        raise ArtifactError(f"no release '{name}'; releases there: {held}", where=str(layout.root))
    return _release(layout, names[name], name)


def open_release_by_digest(layout: Layout, name: str, digest: str, size: int | None = None) -> Release:
    """The release `NAME:VERSION` with exactly this digest, whether or not the name points there still.

    `size` in bytes is what its index is known to have, from a signature; None: whatever it has.
    """
    path = layout.path_of(digest)
    try:
        size = path.stat().st_size if size is None else size
    except FileNotFoundError:
        size = 0  # reading it says that it is missing
    except OSError as error:
        raise storage_error(error, path) from None
    return _release(layout, Descriptor(mediaType=INDEX_TYPE, digest=digest, size=size), name)


def _release(layout: Layout, descriptor: Descriptor, name: str) -> Release:
    where = str(layout.path_of(descriptor.digest))
    if descriptor.media_type != INDEX_TYPE:
        raise ArtifactError(f"'{name}' is not a release ({descriptor.media_type})", where=where)
    index = from_json(ImageIndex, layout.read(descriptor), where=where, error=ArtifactError)
    cards = [d for d in index.manifests if d.artifact_type == CARD_TYPE]
    artifacts = {(d.annotation(PROFILE), d.annotation(FORMAT)): d for d in index.manifests if d not in cards}
    model, _, version = name.partition(":")
    return Release(layout, descriptor, model, version, artifacts, cards[0] if cards else None)


def open_artifact(layout: Layout, descriptor: Descriptor) -> Artifact:
    """Open an artifact, checking the digest of every blob of it. Raises `ArtifactError`."""
    where = str(layout.path_of(descriptor.digest))
    image = from_json(ImageManifest, layout.read(descriptor), where=where, error=ArtifactError)
    if image.artifact_type != ARTIFACT_TYPE or image.config.media_type != CONFIG_TYPE:
        raise ArtifactError(f"is not an Edgewright artifact ({image.config.media_type})", where=where)
    config_path = str(layout.path_of(image.config.digest))
    manifest = from_json(ArtifactManifest, layout.read(image.config), where=config_path, error=ArtifactError)
    layers = {layer.digest: layer for layer in image.layers}
    try:
        model, golden = layers[manifest.model_digest], layers[manifest.golden.digest]
    except KeyError as missing:
        raise ArtifactError(f"lists no layer {missing}", where=where) from None
    for layer in image.layers:
        layout.verify(layer)
    return Artifact(
        layout=layout,
        descriptor=descriptor,
        manifest=manifest,
        model_path=layout.path_of(model.digest),
        golden_descriptor=golden,
        blobs=(image.config, *image.layers),
    )


def copy_artifact(artifact: Artifact, target: Layout) -> Artifact:
    """Copy an artifact into another layout, every byte verified on its way; the manifest comes last."""
    for blob in (*artifact.blobs, artifact.descriptor):
        target.copy_from(artifact.layout, blob)
    manifest = artifact.manifest
    target.tag(f"{manifest.name}:{manifest.version}", artifact.descriptor)
    return open_artifact(target, artifact.descriptor)


@dataclass(frozen=True)
class Reference:
    """`oci:FOLDER:NAME:VERSION` or `oci:FOLDER@sha256:DIGEST`."""

    folder: Path
    name: str | None
    digest: str | None


def parse_reference(text: str) -> Reference:
    """Read a reference. Raises `ArtifactError` with the two forms it may have."""
    match = _REFERENCE.fullmatch(text)
    if match is None:
        raise ArtifactError(
            f"'{text}' is not a reference", remedy="write oci:FOLDER:NAME:VERSION or oci:FOLDER@sha256:DIGEST"
        )
    return Reference(Path(match["path"]), match["name"], match["digest"])


def find_artifact(
    target: str | Path, profile: str | None = None, model_format: str | None = None
) -> Artifact:
    """The artifact that a folder or a reference names, narrowed by profile and format where it is a release.

    A folder that holds a single name needs no more than its path. Raises `ArtifactError` that lists the
    choices where more than one artifact is left.
    """
    if isinstance(target, str) and target.startswith("oci:"):
        reference = parse_reference(target)
        layout = Layout.open(reference.folder)
        descriptor = _resolve(layout, reference)
    else:
        layout = Layout.open(Path(target))
        names = layout.names()
        if len(names) != 1:
            held = ", ".join(sorted(names)) or "none"
            raise ArtifactError(
                f"holds {len(names)} releases ({held})",
                where=str(target),
                remedy="write oci:FOLDER:NAME:VERSION",
            )
        ((name, descriptor),) = names.items()
        if descriptor.media_type == INDEX_TYPE:
            descriptor = open_release(layout, name).descriptor
    if descriptor.media_type == MANIFEST_TYPE:
        return open_artifact(layout, descriptor)
    return open_artifact(layout, _narrow(_release(layout, descriptor, str(target)), profile, model_format))


def open_all(target: str) -> list[Artifact]:
    """Every artifact that a folder or a reference leads to, each with all its digests checked."""
    layout, found = _found(target)
    artifacts = []
    for name, descriptor in found:
        if descriptor.media_type == INDEX_TYPE:
            release = _release(layout, descriptor, name)
            artifacts += [open_artifact(layout, a) for a in release.artifacts.values()]
        else:
            artifacts.append(open_artifact(layout, descriptor))
    return artifacts


def open_releases(target: str) -> list[Release]:
    """Every release that a folder or a reference leads to."""
    layout, found = _found(target)
    return [_release(layout, d, name) for name, d in found if d.media_type == INDEX_TYPE]


def _found(target: str) -> tuple[Layout, list[tuple[str, Descriptor]]]:
    if target.startswith("oci:"):
        reference = parse_reference(target)
        layout = Layout.open(reference.folder)
        descriptor = _resolve(layout, reference)
        return layout, [(reference.name or descriptor.annotation(REF_NAME) or target, descriptor)]
    layout = Layout.open(Path(target))
    return layout, sorted(layout.names().items())


def _resolve(layout: Layout, reference: Reference) -> Descriptor:
    names = layout.names()
    if reference.name is not None:
        if reference.name not in names:
            held = ", ".join(sorted(names)) or "none"
            raise ArtifactError(
                f"no release '{reference.name}'; releases there: {held}", where=str(layout.root)
            )
        return names[reference.name]
    candidates = list(names.values())
    for name, descriptor in names.items():
        if descriptor.media_type == INDEX_TYPE:
            candidates += open_release(layout, name).artifacts.values()
    for descriptor in candidates:
        if descriptor.digest == reference.digest:
            return descriptor
    raise ArtifactError(f"nothing with digest {reference.digest}", where=str(layout.root))


def _narrow(release: Release, profile: str | None, model_format: str | None) -> Descriptor:
    left = {
        key: descriptor
        for key, descriptor in release.artifacts.items()
        if (profile is None or key[0] == profile) and (model_format is None or key[1] == model_format)
    }
    if len(left) == 1:
        return next(iter(left.values()))
    held = ", ".join(sorted(f"{p} ({f})" for p, f in (left or release.artifacts)))
    problem = (
        f"holds {held}" if left else f"holds nothing for {profile or ''} {model_format or ''}; only {held}"
    )
    raise ArtifactError(problem, where=release.name, remedy="name the profile and the format of one of them")
