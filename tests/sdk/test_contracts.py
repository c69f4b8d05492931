from __future__ import annotations

import subprocess
import sys

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import from_json, schema_text, to_json
from edgewright.errors import ConfigError, DataError
from edgewright.schemas import FOLDER, SCHEMAS
from edgewright.telemetry.histogram import ExponentialHistogram, merged
from edgewright.telemetry.window import TelemetryWindow, decode_otlp
from edgewright.twin import (
    DesiredState,
    DeviceStatus,
    ReleaseReference,
    ReportedState,
    RunningRelease,
    parse_topic,
    topic,
)

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
releases = st.builds(ReleaseReference, name=names, version=names, digest=digests)
desired = st.builds(DesiredState, release=releases, rollout=st.text(max_size=20), revert=st.booleans())
reported = st.builds(
    ReportedState,
    device=names,
    profile=names,
    boot=st.text(max_size=12),
    sequence=st.integers(0, 2**40),
    phase=st.sampled_from(["idle", "watching", "committed", "failed"]),
    running=st.none()
    | st.builds(RunningRelease, release=releases, artifact=digests, runtime=st.text(max_size=20)),
    target=st.none() | releases,
    reason=st.none() | st.text(max_size=50),
)
histograms = st.builds(
    ExponentialHistogram,
    scale=st.integers(-2, 20),
    zero_count=st.integers(0, 5),
    buckets=st.dictionaries(st.integers(-2000, 200), st.integers(1, 50), max_size=8),
    total=st.floats(0, 1e6),
)
windows = st.builds(
    TelemetryWindow,
    fleet=names,
    device=names,
    profile=names,
    boot=st.text(max_size=12),
    sequence=st.integers(0, 2**40),
    start_ns=st.integers(0, 2**62),
    end_ns=st.integers(0, 2**62),
    model=names,
    version=names,
    release=digests,
    latency=histograms,
    errors=st.integers(0, 10**6),
    energy_j=st.none() | st.floats(0, 1e9),
)


@given(
    desired | reported | windows | st.builds(DeviceStatus, online=st.booleans(), boot=st.text(max_size=12))
)
def test_every_contract_survives_a_round_trip(
    contract: DesiredState | ReportedState | TelemetryWindow | DeviceStatus,
) -> None:
    assert from_json(type(contract), to_json(contract), where="test") == contract


@pytest.mark.parametrize("name", sorted(SCHEMAS))
def test_schema_file_is_up_to_date(name: str) -> None:
    assert (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8") == schema_text(SCHEMAS[name])


@given(names, names)
def test_topic_is_read_as_it_was_written(fleet: str, device: str) -> None:
    assert parse_topic(topic(fleet, device, "reported")) == (fleet, device, "reported")


def test_unknown_key_is_an_error_that_names_it() -> None:
    with pytest.raises(ConfigError, match=r"here: extra: no such key"):
        from_json(DeviceStatus, b'{"online": true, "boot": "1", "extra": 1}', where="here")


@given(st.lists(histograms, max_size=5))
def test_merging_loses_no_value(parts: list[ExponentialHistogram]) -> None:
    assert merged(parts).count == sum(part.count for part in parts)


@given(histograms, st.floats(0, 1), st.floats(0, 1))
def test_quantiles_grow_with_the_share(histogram: ExponentialHistogram, a: float, b: float) -> None:
    if histogram.count:
        assert histogram.quantile(min(a, b)) <= histogram.quantile(max(a, b))


@given(st.binary(max_size=200))
def test_any_payload_is_telemetry_or_a_data_error(payload: bytes) -> None:
    try:
        decode_otlp(payload)
    except DataError as error:
        assert "\n" not in str(error)


def test_import_is_quick_and_pulls_in_nothing_heavy() -> None:
    program = (
        "import sys, time; t = time.perf_counter(); import edgewright; t = time.perf_counter() - t; "
        "heavy = {'torch', 'tensorflow', 'onnx', 'onnxruntime', 'kubernetes', 'paho'} & set(sys.modules); "
        "print(t, sorted(heavy))"
    )
    # The best of three: the first may read from a cold disk.
    runs = [
        subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
        for _ in "123"
    ]
    answers = [run.stdout.split(maxsplit=1) for run in runs]
    assert {answer[1].strip() for answer in answers} == {"[]"}
    assert min(float(answer[0]) for answer in answers) < 0.15
