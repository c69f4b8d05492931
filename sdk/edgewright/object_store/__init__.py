"""Where files go that are too large for a broker: a folder, or a bucket of an S3-compatible server.

Keys are paths with `/`. Objects are content-addressed by whoever names them: the bytes of a key never change, so
that an upload may be cut short anywhere, go on later, or be repeated, and ends the same.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol
from urllib.parse import parse_qs, unquote, urlsplit

from edgewright.errors import ConfigError

Sending = Callable[[int], None]
"""Told how many bytes are about to be sent; it may wait, to keep to a bandwidth, or raise, to end the upload."""
_REMEDY = "give a folder, file:///FOLDER, or s3://BUCKET/PREFIX?endpoint=https://HOST:PORT&region=REGION"


@dataclass(frozen=True)
class StoredObject:
    """One object of a listing."""

    key: str
    size: int
    """Bytes."""


class ObjectStore(Protocol):
    """A place for objects. For one thread at a time; every method raises `StorageError`."""

    def put(self, key: str, path: Path, sending: Sending = ...) -> None:
        """Upload a file, going on where an earlier upload of the same key was cut short."""
        ...

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """The objects whose keys begin with `prefix`; half-uploaded ones are none."""
        ...

    def read(self, key: str, length: int | None = None) -> bytes:
        """An object's content, or its first `length` bytes."""
        ...

    def delete(self, key: str) -> None:
        """Remove an object; one that is not there is no error."""
        ...

    def abandon(self, prefix: str) -> int:
        """Remove what unfinished uploads of keys that begin with `prefix` have left; how many there were."""
        ...


def at_once(size: int) -> None:
    """The `Sending` that neither waits nor ends."""


def open_store(url: str, *, credentials_file: Path | None = None) -> ObjectStore:
    """The store at a folder's path, a `file:` or an `s3:` address; nothing is sent yet.

    Credentials are those of `credentials_file`, else of the environment (AWS_ACCESS_KEY_ID, AWS_SECRET_ACCESS_KEY,
    AWS_SESSION_TOKEN). Raises `ConfigError`.
    """
    parts = urlsplit(url)
    # Each kind only when it is asked for: a device with a folder pays for no HTTP.
    if parts.scheme == "s3":
        from edgewright.object_store.s3 import S3Store
        from edgewright.object_store.s3_requests import Address, load_credentials

        options = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        endpoint = options.pop("endpoint", None)
        region = options.pop("region", "us-east-1")
        if options or not parts.netloc or "@" in parts.netloc:
            raise ConfigError("is no address of a bucket", where=_without_secret(url), remedy=_REMEDY)
        address = Address.of(
            parts.netloc,
            unquote(parts.path).strip("/"),
            endpoint or f"https://s3.{region}.amazonaws.com",
            region,
        )
        return S3Store(address, load_credentials(credentials_file))
    if parts.scheme not in ("", "file") or parts.netloc not in ("", "localhost"):
        raise ConfigError("is no address of a store", where=_without_secret(url), remedy=_REMEDY)
    from edgewright.object_store.folder import FolderStore

    return FolderStore(Path(unquote(parts.path) if parts.scheme else url))


def _without_secret(url: str) -> str:
    """An address as it may be shown: without what somebody wrote before an @."""
    head, at, tail = url.partition("@")
    return f"{head.partition('://')[0]}://…@{tail}" if at else url
