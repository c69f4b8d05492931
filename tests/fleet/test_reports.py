"""A report that is read in a hurry says what the contract's own reader says of it, whoever wrote it."""

from __future__ import annotations

from typing import get_args

from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import from_json, to_json
from edgewright.errors import DataError
from edgewright.twin import Phase, ReleaseReference, ReportedState, RunningRelease
from edgewright_fleet.reports import read_report

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
releases = st.builds(
    ReleaseReference, name=names, version=names, digest=st.sampled_from(["sha256:" + d * 64 for d in "01"])
)
reports = st.builds(
    ReportedState,
    device=names,
    profile=names,
    boot=st.text(),
    sequence=st.integers(0, 10**12),
    phase=st.sampled_from(get_args(Phase)),
    running=st.none() | st.builds(RunningRelease, release=releases, artifact=st.just("sha256:" + "2" * 64)),
    target=st.none() | releases,
    rollout=st.none() | st.text(),
    reason=st.none() | st.text() | st.just('"sequence":5,'),
    labels=st.dictionaries(names | st.sampled_from(["device", "boot", "sequence"]), names, max_size=3),
    deferred_until_s=st.none() | st.floats(0, 1e10),
)
FRAGMENTS = (
    b'"sequence":5,', b',"sequence":6', b'"device":"other",', b'"boot":"c",', b"{", b"}", b'"', b"\\", b" ",
    b"\xff", b"0", b"-", b"1e3", b'"more":1,', b'"labels":{"sequence":4},', b"",
)  # fmt: skip


def outcome(read: object, payload: bytes) -> ReportedState | None:
    """What is read; None where it is refused."""
    assert callable(read)
    try:
        found = read(payload)
    except DataError:
        return None
    assert isinstance(found, ReportedState)
    return found


def as_the_contract_has_it(payload: bytes) -> ReportedState:
    return from_json(ReportedState, payload, where="", error=DataError)


@given(reports, reports)
def test_what_a_device_wrote_is_what_is_read(first: ReportedState, second: ReportedState) -> None:
    twin = first.model_copy(update={"device": second.device, "boot": second.boot, "sequence": 3})
    for report in (first, second, twin, first):
        assert read_report(to_json(report)) == report


@given(
    reports,
    st.lists(st.tuples(st.integers(0, 700), st.sampled_from(FRAGMENTS), st.integers(0, 3)), max_size=3),
)
def test_what_is_wrong_with_a_report_is_found(
    report: ReportedState, harm: list[tuple[int, bytes, int]]
) -> None:
    payload = to_json(report)
    for at, fragment, gone in harm:
        at %= len(payload) + 1
        payload = payload[:at] + fragment + payload[at + gone :]
    assert outcome(read_report, payload) == outcome(as_the_contract_has_it, payload)


def test_a_device_that_says_who_it_is_twice_is_read_as_the_contract_reads_it() -> None:
    report = ReportedState(device="d0", profile="p", boot="b", sequence=1, phase="committed")
    twice = to_json(report).replace(b'"profile"', b'"device":"d1","profile"')
    assert read_report(twice).device == as_the_contract_has_it(twice).device == "d1"


def test_like_reports_share_what_they_say_of_a_release() -> None:
    running = RunningRelease(
        release=ReleaseReference(name="net", version="1", digest="sha256:" + "0" * 64),
        artifact="sha256:" + "1" * 64,
        runtime="onnxruntime",
    )
    first, second = (
        read_report(
            to_json(
                ReportedState(
                    device=name, profile="p", boot=name, sequence=n, phase="committed", running=running
                )
            )
        )
        for n, name in enumerate(("d0", "d1"))
    )
    assert (first.device, first.sequence, second.device, second.sequence) == ("d0", 0, "d1", 1)
    assert first.running is second.running
