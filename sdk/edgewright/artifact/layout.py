"""The OCI image layout: a folder of content-addressed blobs and an index of names for some of them.

Every blob is read through its digest, so a flipped byte anywhere is found before its content is used.
Blobs become visible only when `index.json` is replaced, the last step of a write.
Source: OCI image specification 1.1, "image-layout.md", "descriptor.md".
"""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import os
import shutil
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from edgewright.artifact.manifest import Digest
from edgewright.contract import from_json, to_json
from edgewright.durable_file import durable_writer, storage_error, write_durably
from edgewright.errors import ArtifactError, MissingArtifactError, StorageError

INDEX_TYPE = "application/vnd.oci.image.index.v1+json"
MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
REF_NAME = "org.opencontainers.image.ref.name"

# The specification says to ignore keys one does not know, so that other tools may copy and annotate. What we
# write ourselves holds no key that could be missing unnoticed: a flipped byte in index.json is found too.
_OCI = ConfigDict(frozen=True, extra="ignore", validate_by_name=True, serialize_by_alias=True)
Size = Annotated[int, Field(ge=0)]


class Descriptor(BaseModel):
    """Points at a blob by digest and size."""

    model_config = _OCI
    media_type: str = Field(alias="mediaType")
    digest: Digest
    size: Size
    annotations: dict[str, str] | None = None
    artifact_type: str | None = Field(default=None, alias="artifactType")

    def annotation(self, key: str) -> str:
        """An annotation's value, empty where it has none."""
        return (self.annotations or {}).get(key, "")


class ImageManifest(BaseModel):
    """An OCI image manifest: a config and its layers."""

    model_config = _OCI
    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: Literal["application/vnd.oci.image.manifest.v1+json"] = Field(alias="mediaType")
    artifact_type: str = Field(alias="artifactType")
    config: Descriptor
    layers: tuple[Descriptor, ...]


class ImageIndex(BaseModel):
    """An OCI image index: descriptors of manifests or further indexes."""

    model_config = _OCI
    schema_version: Literal[2] = Field(alias="schemaVersion")
    media_type: Literal["application/vnd.oci.image.index.v1+json"] = Field(alias="mediaType")
    manifests: tuple[Descriptor, ...]
    annotations: dict[str, str] | None = None


class LayoutMarker(BaseModel):
    """The `oci-layout` file."""

    model_config = _OCI
    version: Literal["1.0.0"] = Field(alias="imageLayoutVersion")


def image_index(manifests: tuple[Descriptor, ...], annotations: dict[str, str] | None = None) -> ImageIndex:
    """An index over `manifests`."""
    return ImageIndex(
        schemaVersion=2,
        mediaType="application/vnd.oci.image.index.v1+json",
        manifests=manifests,
        annotations=annotations,
    )


def digest_of(data: bytes | memoryview) -> str:
    """The OCI digest of `data`."""
    return f"sha256:{hashlib.sha256(data).hexdigest()}"


@dataclass(frozen=True)
class Layout:
    """An OCI image layout at `root`. Several processes may read it while one writes."""

    root: Path
    _added: list[Path] = field(default_factory=list, compare=False, repr=False)

    @staticmethod
    def open(root: Path) -> Layout:
        """The layout at `root`. Raises `ArtifactError` where there is none."""
        marker = root / "oci-layout"
        try:
            data = marker.read_bytes()
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            problem = "is not an artifact or registry folder (no oci-layout file)"
            raise MissingArtifactError(problem, where=str(root)) from None
        except OSError as error:
            raise storage_error(error, marker) from None
        from_json(LayoutMarker, data, where=str(marker), error=ArtifactError)
        return Layout(root)

    @staticmethod
    def create(root: Path) -> Layout:
        """The layout at `root`, made there if the folder is missing or empty. Raises `StorageError`."""
        refuse_strange(root)
        index, marker = root / "index.json", root / "oci-layout"
        if not marker.is_file():
            try:
                write_durably(index, to_json(image_index(())))
                write_durably(marker, to_json(LayoutMarker(imageLayoutVersion="1.0.0")))
            except StorageError:
                with contextlib.suppress(OSError):
                    index.unlink(missing_ok=True)
                raise
        return Layout.open(root)

    @staticmethod
    def anew(root: Path, keep: Collection[str]) -> Layout:
        """An empty layout in place of whatever is at `root`, but for the blobs there that have a digest of `keep`.

        A copy into it goes on where one that was cut short ended. Raises `StorageError`.
        """
        spared = {Layout(root).path_of(digest) for digest in keep}
        try:
            for path in (*sorted(root.rglob("*"), reverse=True), root):
                if path.is_dir() and not path.is_symlink():
                    with contextlib.suppress(OSError):  # one that holds what is spared
                        path.rmdir()
                elif path not in spared:
                    path.unlink(missing_ok=True)
        except OSError as error:
            raise storage_error(error, root) from None
        write_durably(root / "index.json", to_json(image_index(())))
        write_durably(root / "oci-layout", to_json(LayoutMarker(imageLayoutVersion="1.0.0")))
        return Layout(root)

    def path_of(self, digest: str) -> Path:
        """Where the blob of a digest lies."""
        algorithm, _, value = digest.partition(":")
        return self.root / "blobs" / algorithm / value

    def put(self, data: bytes, media_type: str, annotations: dict[str, str] | None = None) -> Descriptor:
        """Store a blob durably and return its descriptor. Raises `StorageError`."""
        descriptor = Descriptor(
            mediaType=media_type, digest=digest_of(data), size=len(data), annotations=annotations
        )
        path = self.path_of(descriptor.digest)
        if not self._holds(descriptor):
            write_durably(path, data)
            self._added.append(path)
        return descriptor

    def copy_from(self, other: Layout, descriptor: Descriptor) -> None:
        """Copy one blob, verified while it is copied; a blob that is here and sound is not copied again.

        Raises `ArtifactError` for a source that is missing or corrupt, `StorageError` where a file cannot be
        read or written.
        """
        if self._holds(descriptor):
            return
        source, target = other.path_of(descriptor.digest), self.path_of(descriptor.digest)
        hasher = hashlib.sha256()
        with durable_writer(target) as writer:
            for chunk in _chunks(source):
                hasher.update(chunk)
                writer.write(chunk)
            if f"sha256:{hasher.hexdigest()}" != descriptor.digest:
                raise _corrupt(source)
        self._added.append(target)

    def read(self, descriptor: Descriptor) -> bytes:
        """The verified content of a blob. Raises `ArtifactError` if it is missing or does not match."""
        path = self.path_of(descriptor.digest)
        # No further than that: a longer one must not fill the memory before it is found out.
        data = _read(path, descriptor.size + 1)
        if len(data) != descriptor.size or digest_of(data) != descriptor.digest:
            raise _corrupt(path)
        return data

    def verify(self, descriptor: Descriptor) -> Path:
        """The path of a blob whose content was just checked, without holding it in memory.

        Raises `ArtifactError` if it is missing or does not match, `StorageError` where it cannot be read.
        """
        path = self.path_of(descriptor.digest)
        if _measured(path) != (descriptor.digest, descriptor.size):
            raise _corrupt(path)
        return path

    def index(self) -> ImageIndex:
        """The names in this layout. Raises `ArtifactError`, `StorageError`."""
        path = self.root / "index.json"
        return from_json(ImageIndex, _read(path), where=str(path), error=ArtifactError)

    def names(self) -> dict[str, Descriptor]:
        """Each reference name with what it points at."""
        return {d.annotation(REF_NAME): d for d in self.index().manifests if d.annotation(REF_NAME)}

    def tag(self, name: str, descriptor: Descriptor) -> None:
        """Let `name` point at a stored blob, durably and in one step."""
        with self.locked():
            kept = tuple(d for d in self.index().manifests if d.annotation(REF_NAME) != name)
            annotations = {**(descriptor.annotations or {}), REF_NAME: name}
            named = descriptor.model_copy(update={"annotations": annotations})
            write_durably(self.root / "index.json", to_json(image_index((*kept, named))))

    @contextlib.contextmanager
    def undone_on_error(self) -> Iterator[None]:
        """Remove the blobs that the block added, if it ends in an error: nothing half-written stays."""
        self._added.clear()
        try:
            yield
        except BaseException:
            for path in self._added:
                path.unlink(missing_ok=True)
            raise

    def remove(self) -> None:
        """Take the whole layout away again: for a folder that an operation made and could not fill."""
        shutil.rmtree(self.root, ignore_errors=True)

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Keep others from changing names and signatures meanwhile; not for a block that takes it again."""
        try:
            descriptor = os.open(self.root, os.O_RDONLY | os.O_DIRECTORY)
        except OSError as error:
            raise storage_error(error, self.root) from None
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)

    def _holds(self, descriptor: Descriptor) -> bool:
        try:
            return _measured(self.path_of(descriptor.digest))[0] == descriptor.digest
        except (ArtifactError, StorageError):
            return False  # missing, or on a bad sector: it is written anew


def refuse_strange(root: Path) -> None:
    """Raise `StorageError` for what is neither a layout nor room for one."""
    remedy = "choose a new or empty folder"
    try:
        if root.exists() and not root.is_dir():
            raise StorageError("is a file, not a folder", where=str(root), remedy=remedy)
        strange = root.is_dir() and any(root.iterdir()) and not (root / "oci-layout").is_file()
    except OSError as error:
        raise storage_error(error, root) from None
    if strange:
        raise StorageError("is a folder with other files in it", where=str(root), remedy=remedy)


def digest_of_file(path: Path) -> str:
    """The digest of a file's bytes, read a mebibyte at a time. Raises `ArtifactError`, `StorageError`."""
    return _measured(path)[0]


def _measured(path: Path) -> tuple[str, int]:
    """The digest and the size of a file."""
    hasher, size = hashlib.sha256(), 0
    for chunk in _chunks(path):
        hasher.update(chunk)
        size += len(chunk)
    return f"sha256:{hasher.hexdigest()}", size


def _chunks(path: Path) -> Iterator[bytes]:
    """A file a mebibyte at a time; what goes wrong with it names it, whatever the reader does meanwhile."""
    try:
        with path.open("rb") as file:
            while chunk := file.read(1 << 20):
                yield chunk
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise storage_error(error, path) from None


def _read(path: Path, at_most: int = -1) -> bytes:
    try:
        with path.open("rb") as file:
            return file.read(at_most)
    except FileNotFoundError:
        raise _missing(path) from None
    except OSError as error:
        raise storage_error(error, path) from None


def _missing(path: Path) -> ArtifactError:
    return MissingArtifactError("a part of the artifact is missing", where=str(path), remedy="fetch it again")


def _corrupt(path: Path) -> ArtifactError:
    return ArtifactError("is corrupt: its digest does not match", where=str(path), remedy="fetch it again")


def is_away(error: BaseException, root: Path) -> bool:
    """Whether an error says that what lies below `root` is not there or cannot be read, not that it is wrong."""
    return isinstance(error, MissingArtifactError | StorageError) and Path(error.where).is_relative_to(root)
