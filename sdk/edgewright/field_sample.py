"""`FieldSample`: one input that a device met, why it was chosen, and what may be known of it.

A sample is one file, whose name is the SHA-256 of its bytes: a line of JSON, which is the contract, and then the
bytes of its tensors, one after the other, little-endian and in C order. The line tells a reader all without the
rest, and holds the digest of the rest.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import AwareDatetime, BaseModel, Field, model_validator

from edgewright.artifact.layout import digest_of
from edgewright.artifact.manifest import Digest, Name, TensorSpec
from edgewright.contract import CONTRACT, from_json, to_json
from edgewright.errors import DataError
from edgewright.privacy import PrivacyPolicy

Array = NDArray[Any]
Reason = Literal["low-confidence", "low-margin", "drifted-input", "uniform"]
"""Why an input was chosen; `uniform` is by chance alone, whatever it is."""
HEAD_BYTES = 1 << 14
"""Bytes that the line of a sample may have; a few hundred as a rule."""
SUFFIX = ".sample"
FOLDER = "samples"
"""Of a store, in which all keys of samples begin."""


class StoredTensor(BaseModel):
    """An input as it is stored: what the policy left of it."""

    model_config = CONTRACT
    spec: TensorSpec = Field(description="of the artifact's input")
    shape: tuple[int, ...] = Field(description="of what is stored")

    @property
    def size(self) -> int:
        """Bytes of it in the file."""
        return math.prod(self.shape) * np.dtype(self.spec.dtype).itemsize


class FieldSample(BaseModel):
    """What is known of one sample."""

    model_config = CONTRACT
    schema_version: Literal[1] = Field(default=1, alias="schema")
    fleet: Name
    device: Name
    labels: dict[Name, Name] = Field(default_factory=dict, description="of the device")
    profile: str
    model: Name
    version: Name
    release: Digest
    artifact: Digest
    captured: AwareDatetime = Field(description="by the device's clock")
    reason: Reason
    inclusion_probability: float = Field(
        gt=0,
        le=1,
        description="with which this inference was chosen, for whatever reason: its inverse is its weight",
    )
    classes: int | None = Field(
        default=None, gt=1, description="that the model tells apart; None: it is no classifier"
    )
    top: int | None = Field(default=None, ge=0, description="the class with the greatest score")
    label: str | None = Field(default=None, description="its name, where the manifest has names")
    confidence: float | None = Field(default=None, ge=0, le=1, description="its probability by the model")
    margin: float | None = Field(default=None, ge=0, le=1, description="from it to the next probability")
    shift: float | None = Field(
        default=None,
        ge=0,
        description="greatest distance of a channel's level or spread from the reference's mean, in standard "
        "deviations of the reference",
    )
    policy: PrivacyPolicy
    tensors: tuple[StoredTensor, ...] = Field(description="in the artifact's order")
    payload_digest: Digest = Field(description="of the tensors' bytes, which are left out by `store: digest`")

    @model_validator(mode="after")
    def _keeps_to_its_policy(self) -> FieldSample:
        if self.policy.store == "nothing":
            raise ValueError("its policy lets nothing be stored")
        if self.label is not None and self.label in self.policy.drop_labels:
            raise ValueError(f"its policy lets no '{self.label}' be stored")
        return self

    @property
    def payload_bytes(self) -> int:
        """Of the tensors in the file."""
        return sum(tensor.size for tensor in self.tensors) if self.policy.store == "input" else 0


def packed_tensors(arrays: Sequence[Array]) -> bytes:
    """The bytes of a sample's tensors, of which `payload_digest` is."""
    return b"".join(
        np.ascontiguousarray(array).astype(array.dtype.newbyteorder("<"), copy=False).tobytes()
        for array in arrays
    )


def pack(sample: FieldSample, payload: bytes) -> bytes:
    """A sample as a file. Raises `DataError` where its line is too long to be read again."""
    line = to_json(sample) + b"\n"
    if len(line) > HEAD_BYTES:
        raise DataError(f"a sample's line of {len(line)} bytes is longer than {HEAD_BYTES}")
    return line + (payload if sample.policy.store == "input" else b"")


def read_head(data: bytes, where: str) -> FieldSample:
    """What a sample's line says, from its first `HEAD_BYTES` bytes or more. Raises `DataError`."""
    line, end, _ = data[:HEAD_BYTES].partition(b"\n")
    if not end:
        raise DataError("is no sample: its first line has no end", where=where)
    return from_json(FieldSample, line, where=where, error=DataError)


def unpack(data: bytes, where: str) -> tuple[FieldSample, list[Array]]:
    """A sample and its raw tensors, as they are stored; none of `store: digest`. Raises `DataError`."""
    sample = read_head(data, where)
    payload = memoryview(data)[data.index(b"\n") + 1 :]
    if len(payload) != sample.payload_bytes:
        raise DataError(f"holds {len(payload)} bytes of tensors, not {sample.payload_bytes}", where=where)
    if sample.policy.store != "input":
        return sample, []
    if digest_of(payload) != sample.payload_digest:
        raise DataError("its tensors are not those of its digest", where=where)
    arrays, start = [], 0
    for tensor in sample.tensors:
        dtype = np.dtype(tensor.spec.dtype)
        flat = np.frombuffer(payload[start : start + tensor.size], dtype.newbyteorder("<"))
        arrays.append(flat.astype(dtype, copy=False).reshape(tensor.shape))
        start += tensor.size
    return sample, arrays


def key_of(sample: FieldSample, digest: str) -> str:
    """Where a store keeps a sample: one folder a device, so that all of it can be found and erased."""
    day = sample.captured.strftime("%Y-%m-%d")
    return f"{device_folder(sample.fleet, sample.device)}{day}/{digest.removeprefix('sha256:')}{SUFFIX}"


def device_folder(fleet: str, device: str) -> str:
    """How the keys of a device's samples begin."""
    return f"{FOLDER}/{fleet}/{device}/"


def digest_in(name: str) -> str:
    """The digest that a sample's key or file name promises. Raises `DataError`."""
    stem = Path(name).name.removesuffix(SUFFIX)[-64:]
    if not name.endswith(SUFFIX) or len(stem) != 64 or set(stem) - set("0123456789abcdef"):
        raise DataError("is not the name of a sample", where=name)
    return f"sha256:{stem}"
