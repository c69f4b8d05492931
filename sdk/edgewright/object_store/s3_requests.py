"""One signed request to an S3-compatible server and its answer, over the standard library's HTTP.

Addresses are path-style, which all servers know; proxies are not.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from urllib.parse import urlsplit
from xml.etree import ElementTree

from pydantic import BaseModel, Field

from edgewright.contract import CONTRACT, from_mapping
from edgewright.errors import ConfigError, StorageError
from edgewright.object_store import Sending, at_once
from edgewright.object_store.signature import Credentials, encoded_path, encoded_query, signed_headers
from edgewright.secret_file import must_be_private

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

STEP = 1 << 16
"""Bytes sent at once."""
TIMEOUT_S = 60.0
"""Without a byte of an answer; then the link is broken."""
_REMEDIES = {
    "RequestTimeTooSkewed": "set this machine's clock",
    "InvalidAccessKeyId": "check the credentials",
    "SignatureDoesNotMatch": "check the credentials and the region",
    "AccessDenied": "let these credentials read, write or list the bucket",
    "NoSuchBucket": "make the bucket, or name another",
}


class CredentialsFile(BaseModel):
    """A TOML file, readable by its owner alone."""

    model_config = CONTRACT
    access_key: str = Field(min_length=1)
    secret_key: str = Field(min_length=1)
    session_token: str | None = None


def load_credentials(path: Path | None) -> Credentials:
    """Those of a file, else of the environment. Raises `ConfigError`, which never shows what a file holds."""
    if path is None:
        try:
            key, secret = os.environ["AWS_ACCESS_KEY_ID"], os.environ["AWS_SECRET_ACCESS_KEY"]
        except KeyError as missing:
            remedy = "set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or name a credentials_file"
            raise ConfigError(f"the environment has no {missing.args[0]}", remedy=remedy) from None
        return Credentials(key, secret, os.environ.get("AWS_SESSION_TOKEN") or None)
    must_be_private(path, "credentials_file", ConfigError)
    try:
        document = tomllib.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError):
        remedy = 'write access_key = "…" and secret_key = "…"'
        raise ConfigError("is no TOML file that can be read", where=str(path), remedy=remedy) from None
    found = from_mapping(CredentialsFile, document, where=str(path))
    return Credentials(found.access_key, found.secret_key, found.session_token)


@dataclass(frozen=True)
class Address:
    """A bucket, a place in it, and who serves it."""

    bucket: str
    prefix: str
    host: str
    secure: bool
    region: str

    @staticmethod
    def of(bucket: str, prefix: str, endpoint: str, region: str) -> Address:
        """Raises `ConfigError` for an endpoint that is no HTTP address."""
        parts = urlsplit(endpoint)
        if (
            parts.scheme not in ("http", "https")
            or not parts.hostname
            or parts.path.strip("/")
            or parts.username
        ):
            raise ConfigError(
                "the endpoint is no http:// or https:// address of a host", where=f"s3://{bucket}"
            )
        return Address(bucket, prefix, parts.netloc, parts.scheme == "https", region)

    def __str__(self) -> str:
        return f"s3://{self.bucket}/{self.prefix} at {self.host}"


@dataclass(frozen=True)
class Answer:
    """What the server said; names of headers are in small letters."""

    status: int
    headers: Mapping[str, str]
    body: bytes


@dataclass(frozen=True)
class Slice:
    """Some bytes of a file, read as they are sent, so that none wait in memory."""

    path: Path
    start: int
    length: int

    def chunks(self, sending: Sending = at_once) -> Iterator[bytes]:
        """The bytes, `STEP` at a time, each told before it is given."""
        with self.path.open("rb") as file:
            file.seek(self.start)
            rest = self.length
            while rest:
                chunk = file.read(min(STEP, rest))
                if not chunk:
                    raise StorageError("became shorter while it was sent", where=str(self.path))
                rest -= len(chunk)
                sending(len(chunk))
                yield chunk

    def sha256(self) -> str:
        """Of the bytes, in hexadecimal."""
        digest = hashlib.sha256()
        for chunk in self.chunks():
            digest.update(chunk)
        return digest.hexdigest()


class Requests:
    """One connection to a server, made when it is needed and anew when it broke."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        self._address, self._credentials = address, credentials
        self._connection: http.client.HTTPConnection | None = None

    def call(
        self,
        method: str,
        key: str | None,
        query: Mapping[str, str] | None = None,
        *,
        body: Slice | bytes = b"",
        sending: Sending = at_once,
        extra: Mapping[str, str] | None = None,
        accept: tuple[int, ...] = (200,),
    ) -> Answer:
        """One request about `key`, None for the bucket itself. Raises `StorageError` for a status that is not
        accepted and a link that breaks, and what `sending` raises."""
        path = f"/{self._address.bucket}" + (f"/{key}" if key is not None else "")
        sha256 = body.sha256() if isinstance(body, Slice) else hashlib.sha256(body).hexdigest()
        length = body.length if isinstance(body, Slice) else len(body)
        headers = signed_headers(
            method,
            self._address.host,
            path,
            query or {},
            sha256,
            credentials=self._credentials,
            region=self._address.region,
            now=datetime.now(timezone.utc),
        ) | {"content-length": str(length), **(extra or {})}
        target = encoded_path(path) + (f"?{encoded_query(query)}" if query else "")
        # A connection that waited may have been closed by the other end: that alone is worth a second try.
        for fresh in (self._connection is None, True):
            content = body.chunks(sending) if isinstance(body, Slice) else body
            try:
                answer = self._exchange(method, target, content, headers)
                break
            except (ConnectionError, http.client.BadStatusLine) as error:
                self.close()
                if fresh:
                    raise self._broken(error) from None
            except (OSError, http.client.HTTPException) as error:
                self.close()
                if isinstance(error, OSError) and error.filename is not None:
                    raise  # the file's own
                raise self._broken(error) from None
            except BaseException:
                self.close()  # half a request went out
                raise
        if answer.status not in accept:
            raise self.refused(method, error_code(answer), f"HTTP {answer.status}")
        return answer

    def _exchange(
        self, method: str, target: str, content: Iterator[bytes] | bytes, headers: Mapping[str, str]
    ) -> Answer:
        if self._connection is None:
            kind = http.client.HTTPSConnection if self._address.secure else http.client.HTTPConnection
            self._connection = kind(self._address.host, timeout=TIMEOUT_S)
        self._connection.request(method, target, content, dict(headers))
        response = self._connection.getresponse()
        found = {name.lower(): value for name, value in response.getheaders()}
        return Answer(response.status, found, response.read())

    def close(self) -> None:
        """Let go of the connection; the next call makes another."""
        if self._connection is not None:
            self._connection.close()
            self._connection = None

    def _broken(self, error: Exception) -> StorageError:
        reason = getattr(error, "strerror", None) or str(error) or type(error).__name__
        return StorageError(f"the store cannot be reached ({reason})", where=str(self._address))

    def refused(self, method: str, code: str, status: str) -> StorageError:
        problem = f"the store refuses {method} ({code or status})"
        return StorageError(problem, where=str(self._address), remedy=_REMEDIES.get(code, ""))


def error_code(answer: Answer) -> str:
    try:
        return text_of(xml_of(answer), "Code")
    except StorageError:
        return ""


def xml_of(answer: Answer) -> ElementTree.Element:
    try:
        return ElementTree.fromstring(answer.body)  # noqa: S314 - expat bounds what entities grow to
    except ElementTree.ParseError:
        raise StorageError("the store's answer is not the protocol's XML") from None


def number_in(element: ElementTree.Element, name: str) -> int:
    """The whole number in a child of that name. Raises `StorageError`."""
    text = text_of(element, name)
    if not (text.isascii() and text.isdigit()):
        raise StorageError(f"the store's answer has no number {name}")
    return int(text)


def children(element: ElementTree.Element, name: str) -> Iterator[ElementTree.Element]:
    """Children of a name, with or without the protocol's namespace: servers differ."""
    return (child for child in element if child.tag.rpartition("}")[2] == name)


def text_of(element: ElementTree.Element, name: str) -> str:
    return next((child.text or "" for child in children(element, name)), "")
