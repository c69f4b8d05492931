"""The device's end: whether a release is signed, by the keys that a pinned root leads to, and not in the past.

The client is python-tuf's; here are the fetcher that reads a registry's folder, and its refusals in one line each.
Its memory is a folder that the caller keeps (`known`): without it, all holds but that older metadata is refused.
"""

from __future__ import annotations

import contextlib
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from tuf.api.exceptions import (
    BadVersionNumberError,
    DownloadError,
    DownloadHTTPError,
    ExpiredMetadataError,
    RepositoryError,
    UnsignedMetadataError,
)
from tuf.api.metadata import Metadata, Root, Targets
from tuf.ngclient import FetcherInterface, Updater, UpdaterConfig

from edgewright.durable_file import storage_error
from edgewright.errors import MissingArtifactError, TrustError
from edgewright.trust import first_root, metadata_folder

ROLES = ("root", "targets", "snapshot", "timestamp")
CHUNK_BYTES = 1 << 16
LIMITS = UpdaterConfig(root_max_length=1 << 16, snapshot_max_length=1 << 14, targets_max_length=4 << 20)
"""Bytes of each file that are read at most. 4 MiB of targets: some 30,000 releases."""


@dataclass(frozen=True)
class SignedRole:
    """What one role of The Update Framework signed last."""

    role: str
    version: int
    expires: datetime
    threshold: int
    keys: tuple[str, ...]
    """Ids of those that may sign."""
    signed_by: tuple[str, ...]
    """Ids of those that did."""


@dataclass(frozen=True)
class SignedRegistry:
    """A registry whose every signature holds and is in date."""

    roles: dict[str, SignedRole]
    releases: dict[str, tuple[str, int]]
    """Digest and size in bytes of each signed release's index, by `NAME:VERSION`."""

    @property
    def good_until(self) -> datetime:
        """When the first of its roles is out of date."""
        return min(role.expires for role in self.roles.values())

    def signers(self, name: str, digest: str) -> tuple[str, ...]:
        """Ids of the keys that signed `NAME:VERSION` with this digest; none where it is not signed."""
        return self.roles["targets"].signed_by if self.releases.get(name, ("",))[0] == digest else ()


class _Folder(FetcherInterface):
    """Reads the files of a registry by their paths; remembers the last one, which tuf's errors do not name."""

    last = Path()

    def _fetch(self, url: str) -> Iterator[bytes]:
        self.last = Path(url)
        try:
            with self.last.open("rb") as file:
                while chunk := file.read(CHUNK_BYTES):
                    yield chunk
        except FileNotFoundError:
            raise DownloadHTTPError("is missing", 404) from None
        except OSError as error:
            raise storage_error(error, self.last) from None


def verify_release(
    registry: Path, name: str, digest: str, *, root: Path | None = None, known: Path | None = None
) -> int:
    """The size in bytes of the index of `NAME:VERSION`, where it is signed with this digest.

    From a pinned root, or from the registry's own first one where there is None. Raises `TrustError`;
    `MissingArtifactError` and `StorageError` where the registry is away.
    """
    signed = verify_registry(registry, root=root, known=known)
    if name not in signed.releases:
        raise TrustError(f"{name} is not signed", where=str(registry), remedy="edgewright trust sign")
    found, size = signed.releases[name]
    if found != digest:
        problem = f"{name} is signed with another digest, {found}, not {digest}"
        raise TrustError(problem, where=str(registry), remedy="sign what is to be rolled out")
    return size


def verify_registry(registry: Path, *, root: Path | None = None, known: Path | None = None) -> SignedRegistry:
    """All that a registry signed; as `verify_release`."""
    with contextlib.ExitStack() as stack:
        memory = known or Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-trust-")))
        _must_be_there(registry)
        fetcher, pin = _Folder(), root or first_root(registry)
        if root is None and not pin.is_file():
            raise TrustError(
                "holds no signatures", where=str(registry), remedy="'edgewright trust init' begins"
            )
        stack.enter_context(_refusals(registry, pin, fetcher))
        folder = f"{metadata_folder(registry)}/"
        Updater(str(memory), folder, fetcher=fetcher, config=LIMITS, bootstrap=_pinned(pin)).refresh()
        return _read(memory)


def _must_be_there(registry: Path) -> None:
    """Look, and read nothing."""
    try:
        (registry / "oci-layout").stat()
    except (FileNotFoundError, NotADirectoryError):
        raise MissingArtifactError(
            "is not a registry folder (no oci-layout file)", where=str(registry)
        ) from None
    except OSError as error:
        raise storage_error(error, registry) from None


def _read(memory: Path) -> SignedRegistry:
    """What the client has just verified, from where it keeps it."""
    found = {name: Metadata[Any].from_file(str(memory / f"{name}.json")) for name in ROLES}
    root, targets = found["root"].signed, found["targets"].signed
    assert isinstance(root, Root) and isinstance(targets, Targets)
    roles = {}
    for name, metadata in found.items():
        signed = root.get_verification_result(name, metadata.signed_bytes, metadata.signatures).signed
        role, made = root.roles[name], metadata.signed
        roles[name] = SignedRole(
            name, made.version, made.expires, role.threshold, tuple(role.keyids), tuple(sorted(signed))
        )
    hashes = {name: (target.hashes.get("sha256"), target.length) for name, target in targets.targets.items()}
    return SignedRegistry(roles, {name: (f"sha256:{value}", size) for name, (value, size) in hashes.items()})


def _pinned(pin: Path) -> bytes:
    try:
        return pin.read_bytes()
    except OSError as error:
        problem = f"the root cannot be read ({error.strerror or error})"
        remedy = "put the root.json there that lies beside the keys"
        raise TrustError(problem, where=str(pin), remedy=remedy) from None


@contextlib.contextmanager
def _refusals(registry: Path, pin: Path, fetcher: _Folder) -> Iterator[None]:
    try:
        yield
    except ExpiredMetadataError as error:
        now = datetime.now(timezone.utc).isoformat(timespec="minutes")
        problem = f"the signatures are out of date ({error}; this clock says {now})"
        remedy = "'edgewright trust renew' where the keys are; or set the clock"
        raise TrustError(problem, where=str(registry), remedy=remedy) from None
    except BadVersionNumberError as error:
        problem = f"is older than what was seen before, or of another version than it must be ({error})"
        raise TrustError(problem, where=str(fetcher.last), remedy="copy the registry anew") from None
    except UnsignedMetadataError as error:
        problem = f"is not signed by the keys that {pin} leads to ({error})"
        raise TrustError(problem, where=str(fetcher.last), remedy="pin the root of who signs here") from None
    except RepositoryError as error:
        where = pin if fetcher.last == Path() else fetcher.last
        raise TrustError(f"is damaged ({error})", where=str(where), remedy="copy it anew") from None
    except DownloadHTTPError:
        if fetcher.last.name == "timestamp.json":
            remedy = "'edgewright trust init' begins"
            raise TrustError("holds no signatures", where=str(registry), remedy=remedy) from None
        # Of a copy that is under way; or a writer was faster than this reader.
        raise MissingArtifactError("a part of the signatures is missing", where=str(fetcher.last)) from None
    except DownloadError as error:
        raise TrustError(f"is too large to be a signature ({error})", where=str(fetcher.last)) from None
