"""The durable record: what was stored comes back, and one controller at a time acts."""

from __future__ import annotations

import sqlite3
from dataclasses import FrozenInstanceError, replace
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import from_json, to_json
from edgewright.errors import RolloutError, StorageError
from edgewright.telemetry.histogram import ExponentialHistogram
from edgewright.twin import ReleaseReference
from edgewright_fleet.rollout.measured import Measured
from edgewright_fleet.rollout.records import DeviceRecord, Devices, changed
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import AbortRequested, Decision, RolloutState
from edgewright_fleet.rollout.store import LEASE_S, RolloutStore

RELEASE = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
SPEC = RolloutSpec(name="r", fleet="f", release="net:1.1.0", registry=Path("/registry"))
STATE = RolloutState(
    name="r", release=RELEASE, waves=(("d0",),), devices={"d0": DeviceRecord(profile="p")}, since_s=1.0
)

measurements = st.builds(
    Measured,
    latency=st.builds(
        ExponentialHistogram,
        scale=st.integers(-10, 20),
        buckets=st.dictionaries(st.integers(-(2**30), 2**30), st.integers(0, 2**40), max_size=4),
        total=st.floats(0, 1e12),
    ),
    errors=st.integers(0, 2**40),
)
records = st.builds(
    DeviceRecord,
    profile=st.text(max_size=5),
    online=st.booleans(),
    boot=st.one_of(st.none(), st.text(max_size=5)),
    past_boots=st.lists(st.text(max_size=5), max_size=2).map(tuple),
    sequence=st.integers(-1, 99),
    stand=st.sampled_from(["waiting", "asked", "censored", "committed", "failed", "reverting", "stranded"]),
    asked_s=st.one_of(st.none(), st.floats(0, 1e10)),
    before=st.sampled_from([None, RELEASE]),
    baseline=measurements,
    after=measurements,
    reason=st.one_of(st.none(), st.text()),
)
states = st.builds(
    RolloutState,
    name=st.just("r"),
    release=st.just(RELEASE),
    waves=st.just((("d0",), ("d1",))),
    devices=st.dictionaries(st.sampled_from(["d0", "d1"]), records),
    phase=st.sampled_from(["baseline", "updating", "observing", "reverting", "paused", "failed"]),
    wave=st.integers(0, 1),
    since_s=st.floats(0, 1e10),
    verdict=st.one_of(st.none(), st.text()),
)


@pytest.fixture
def store(tmp_path: Path) -> RolloutStore:
    return RolloutStore(tmp_path / "store.sqlite")


@given(records, records)
def test_changed_record_is_what_replacing_its_fields_gives(old: DeviceRecord, new: DeviceRecord) -> None:
    news = {"sequence": new.sequence, "stand": new.stand, "after": new.after}
    assert changed(old, **news) == replace(old, **news)  # type: ignore[arg-type]
    assert type(changed(old)) is DeviceRecord
    with pytest.raises(FrozenInstanceError):
        changed(old).online = True  # type: ignore[misc]
    with pytest.raises(AttributeError):
        changed(old, colour="red")


def test_devices_that_run_the_same_hold_one_release_after_a_restart(store: RolloutStore) -> None:
    records = {f"d{n}": DeviceRecord(profile="p", running=RELEASE, before=RELEASE) for n in range(2)}
    store.create(SPEC, STATE.model_copy(update={"devices": Devices.of(records)}))
    first, second = store.load("r")[1].devices.values()
    assert first.running is second.running is first.before is second.before
    assert first.profile is second.profile


@given(states)
def test_state_survives_json(state: RolloutState) -> None:
    assert from_json(RolloutState, to_json(state), where="") == state


def test_saved_state_and_decisions_are_read_by_another_connection(
    store: RolloutStore, tmp_path: Path
) -> None:
    store.create(SPEC, STATE)
    store.take_lease("r", "me", 10.0)
    later = STATE.model_copy(update={"phase": "updating"})
    store.save(later, [Decision("it begins", {"devices": ["d0"], "ratio": 1.25})], "me", 11.0)
    other = RolloutStore(tmp_path / "store.sqlite", create=False)
    assert other.load("r") == (SPEC, later)
    (decision,) = other.decisions("r")
    assert (decision.at_s, decision.sentence, decision.evidence["ratio"]) == (11.0, "it begins", 1.25)


def test_abort_request_reaches_the_controller_from_another_connection(
    store: RolloutStore, tmp_path: Path
) -> None:
    store.create(SPEC, STATE)
    assert store.requests("r") == []
    RolloutStore(tmp_path / "store.sqlite").request("r", "abort", 1.0, by="me@desk", why="smoke")
    ((number, asked),) = store.requests("r")
    assert asked == AbortRequested("me@desk", "smoke")
    store.take_lease("r", "me", 1.0)
    store.save(STATE, [], "me", 1.0, taken=[number])
    assert store.requests("r") == [], "what was carried out is not carried out again"


def test_ended_rollout_cannot_be_aborted(store: RolloutStore) -> None:
    store.create(SPEC, STATE.model_copy(update={"phase": "succeeded"}))
    with pytest.raises(RolloutError, match=r"has ended already \(succeeded\)"):
        store.request("r", "abort", 1.0, by="me")


def test_second_controller_is_refused_until_the_first_is_gone(store: RolloutStore) -> None:
    store.create(SPEC, STATE)
    store.take_lease("r", "first", 100.0)
    with pytest.raises(RolloutError, match="another controller"):
        store.take_lease("r", "second", 101.0)
    assert store.is_held("r", 101.0)
    store.release_lease("r", "first")
    assert not store.is_held("r", 101.0)
    store.take_lease("r", "second", 101.0)


def test_controller_that_slept_past_its_lease_cannot_save_any_more(store: RolloutStore) -> None:
    store.create(SPEC, STATE)
    store.take_lease("r", "first", 100.0)
    store.take_lease("r", "second", 100.0 + LEASE_S + 1)
    with pytest.raises(RolloutError, match="taken over"):
        store.save(STATE, [], "first", 120.0)


def test_controller_whose_lease_another_one_had_meanwhile_does_not_get_it_back(store: RolloutStore) -> None:
    store.create(SPEC, STATE)
    store.take_lease("r", "first", 100.0)
    store.renew_lease("r", "first", 100.0 + 10 * LEASE_S)
    store.take_lease("r", "second", 100.0 + 20 * LEASE_S)
    store.release_lease("r", "second")
    with pytest.raises(RolloutError, match="taken over"):
        store.renew_lease("r", "first", 400.0)
    with pytest.raises(RolloutError, match="taken over"):
        store.save(STATE, [], "first", 400.0)


def test_only_what_changed_is_written_and_all_of_it_is_read(store: RolloutStore, tmp_path: Path) -> None:
    records = {f"d{i}": DeviceRecord(profile="p") for i in range(5)}
    state = STATE.model_copy(update={"devices": Devices.of(records), "waves": (tuple(records),)})
    store.create(SPEC, state)
    store.take_lease("r", "me", 1.0)
    saved = state.model_copy(update={"devices": state.devices.saved()})
    changed = saved.devices.with_record("d3", DeviceRecord(profile="p", online=True))
    assert list(changed.unsaved) == ["d3"]
    later = saved.model_copy(update={"devices": changed})
    store.save(later, [], "me", 1.0)
    assert store.load("r") == (SPEC, later)


def test_a_baseline_is_stored_from_when_it_cannot_be_measured_again_and_no_stale_one_comes_back(
    store: RolloutStore,
) -> None:
    store.create(SPEC, STATE)
    store.take_lease("r", "me", 1.0)
    state = STATE.model_copy(update={"devices": STATE.devices.saved()})

    def stored(**changes: Any) -> DeviceRecord:
        nonlocal state
        devices = state.devices.with_record("d0", replace(state.devices["d0"], **changes))
        state = state.model_copy(update={"devices": devices})
        store.save(state, [], "me", 1.0)
        state = state.model_copy(update={"devices": devices.saved()})
        return store.load("r")[1].devices["d0"]

    one, two, none = Measured(errors=1), Measured(errors=2), Measured()
    assert stored(baseline=one).baseline == none  # it waits
    control = stored(control=none)
    assert (control.baseline, control.control) == (one, none)
    assert stored(control=two).control == two
    anew = stored(baseline=none, control=None)  # it runs another release now
    assert (anew.baseline, anew.control) == (none, None)
    assert stored(baseline=two).baseline == none
    assert stored(stand="asked").baseline == two
    assert stored(after=one).after == one
    assert store.load("r") == (SPEC, state)


def test_store_of_an_earlier_version_is_refused_in_one_line(tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "old.sqlite") as db:
        db.execute("CREATE TABLE rollout (name TEXT PRIMARY KEY, spec BLOB, state BLOB)")
    with pytest.raises(StorageError, match="another version of Edgewright") as caught:
        RolloutStore(tmp_path / "old.sqlite")
    assert "\n" not in str(caught.value)


def test_name_is_taken_once_and_an_unknown_one_lists_those_there_are(store: RolloutStore) -> None:
    store.create(SPEC, STATE)
    with pytest.raises(RolloutError, match="already"):
        store.create(SPEC, STATE)
    with pytest.raises(RolloutError, match="no rollout 'x'; there are: r"):
        store.load("x")


def test_log_cannot_be_rewritten(store: RolloutStore, tmp_path: Path) -> None:
    store.create(SPEC, STATE)
    store.take_lease("r", "me", 1.0)
    store.save(STATE, [Decision("said", {})], "me", 1.0)
    with sqlite3.connect(tmp_path / "store.sqlite") as db:
        for statement in ("UPDATE decision SET sentence = 'x'", "DELETE FROM decision"):
            with pytest.raises(sqlite3.Error, match="append-only"):
                db.execute(statement)


def test_file_that_is_no_store_is_refused_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "text").write_text("not a database, but long enough to look at: " + "x" * 200)
    for path in (tmp_path / "text", tmp_path / "text" / "x"):
        with pytest.raises(StorageError, match=str(path)) as caught:
            RolloutStore(path)
        assert "\n" not in str(caught.value)


def test_looking_into_a_store_that_is_missing_makes_none(tmp_path: Path) -> None:
    with pytest.raises(RolloutError, match="no rollout 'night'; there are: none"):
        RolloutStore(tmp_path / "none", create=False).load("night")
    assert not (tmp_path / "none").exists()
