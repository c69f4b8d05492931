from __future__ import annotations

from datetime import datetime, timezone

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.artifact.layout import digest_of
from edgewright.artifact.manifest import TensorSpec
from edgewright.contract import from_json, to_json
from edgewright.errors import DataError
from edgewright.field_sample import (
    FieldSample,
    StoredTensor,
    digest_in,
    key_of,
    pack,
    packed_tensors,
    read_head,
    unpack,
)
from edgewright.privacy import PrivacyPolicy

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
shares = st.floats(0, 1)
dtypes = st.sampled_from(["uint8", "int8", "int16", "int64", "float32", "bool"])
tensors = st.builds(
    lambda dtype, shape: StoredTensor(
        spec=TensorSpec(name="x", runtime_name="x", shape=shape, dtype=dtype), shape=shape
    ),
    dtypes,
    st.lists(st.integers(0, 4), max_size=3).map(tuple),
)
samples = st.builds(
    FieldSample,
    fleet=names,
    device=names,
    labels=st.dictionaries(names, names, max_size=2),
    profile=st.text(max_size=10),
    model=names,
    version=names,
    release=digests,
    artifact=digests,
    captured=st.datetimes(
        datetime(1970, 1, 1),
        datetime(9000, 1, 1),
        timezones=st.just(timezone.utc),
    ),
    reason=st.sampled_from(["low-confidence", "low-margin", "drifted-input", "uniform"]),
    inclusion_probability=st.floats(1e-9, 1),
    top=st.none() | st.integers(0, 1000),
    label=st.none() | st.text(max_size=10),
    confidence=st.none() | shares,
    margin=st.none() | shares,
    shift=st.none() | st.floats(0, 1e6),
    policy=st.builds(PrivacyPolicy, store=st.sampled_from(["input", "digest"])),
    tensors=st.lists(tensors, max_size=3).map(tuple),
    payload_digest=digests,
)


def with_payload(sample: FieldSample, seed: int) -> tuple[FieldSample, bytes, list[np.ndarray]]:  # type: ignore[type-arg]
    generator = np.random.default_rng(seed)
    arrays = [generator.integers(0, 2, tensor.shape).astype(tensor.spec.dtype) for tensor in sample.tensors]
    payload = packed_tensors(arrays)
    return sample.model_copy(update={"payload_digest": digest_of(payload)}), payload, arrays


@given(samples)
def test_the_line_of_a_sample_survives_a_round_trip(sample: FieldSample) -> None:
    assert from_json(FieldSample, to_json(sample), where="test") == sample


@given(samples, st.integers(0, 2**32 - 1))
def test_a_sample_that_was_packed_is_unpacked_as_it_was(sample: FieldSample, seed: int) -> None:
    sample, payload, arrays = with_payload(sample, seed)
    data = pack(sample, payload)
    found, tensors = unpack(data, "here")
    assert found == sample == read_head(data, "here")
    if sample.policy.store == "digest":
        assert tensors == []
        assert len(data) == len(to_json(sample)) + 1
    else:
        assert all(np.array_equal(a, b) and a.dtype == b.dtype for a, b in zip(tensors, arrays, strict=True))
    key = key_of(sample, digest_of(data))
    assert digest_in(key) == digest_of(data)
    assert key.startswith(f"samples/{sample.fleet}/{sample.device}/{sample.captured:%Y-%m-%d}/")


@given(samples, st.integers(0, 2**32 - 1), st.data())
def test_a_byte_that_flipped_is_found(sample: FieldSample, seed: int, data: st.DataObject) -> None:
    sample, payload, _ = with_payload(sample, seed)
    packed = bytearray(pack(sample, payload))
    start = packed.index(b"\n") + 1
    if len(packed) > start:
        packed[data.draw(st.integers(start, len(packed) - 1))] ^= 1
        with pytest.raises(DataError, match="not those of its digest"):
            unpack(bytes(packed), "here")


@given(st.binary(max_size=300))
def test_any_bytes_are_a_sample_or_one_line_of_an_error(data: bytes) -> None:
    with pytest.raises(DataError) as caught:
        unpack(data, "here")
    assert "\n" not in str(caught.value)


def test_a_sample_that_its_own_policy_forbids_is_none() -> None:
    sample = {
        "fleet": "f",
        "device": "d",
        "profile": "p",
        "model": "m",
        "version": "1",
        "release": f"sha256:{'0' * 64}",
        "artifact": f"sha256:{'0' * 64}",
        "captured": "2026-01-01T00:00:00Z",
        "reason": "uniform",
        "inclusion_probability": 1.0,
        "label": "person",
        "tensors": [],
        "payload_digest": f"sha256:{'0' * 64}",
    }
    for policy, match in (
        ({"store": "nothing"}, "lets nothing be stored"),
        ({"store": "input", "drop_labels": ["person"]}, "lets no 'person' be stored"),
    ):
        with pytest.raises(ValueError, match=match):
            FieldSample.model_validate(sample | {"policy": policy})


@pytest.mark.parametrize("name", ["x.sample", "../etc/passwd", f"{'g' * 64}.sample", "0" * 64])
def test_a_name_that_promises_no_digest_is_refused(name: str) -> None:
    with pytest.raises(DataError):
        digest_in(name)
