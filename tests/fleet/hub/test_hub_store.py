"""The hub's store on a real disk: retention by time and by bytes, kills, what it refuses."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from edgewright.errors import DataError, StorageError
from edgewright.telemetry.otlp import from_bytes
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.view import MAX_GROUPS, Change, FleetView
from fleet.hub.conftest import Payloads, reported


def fill(store: HubStore, devices: int, windows: int, *, every_s: float = 60.0) -> None:
    view = FleetView(store.fleet, store.seen)
    for number in range(devices):
        name = f"d{number}"
        payloads, changes = Payloads(store.fleet, name), list[Change]()
        changes += view.take(name, "reported", reported(name), 0.0)
        for turn in range(windows):
            changes += view.take(name, "metrics", payloads.window([0.01, 0.02]), turn * every_s)
        store.keep(changes)


def test_what_is_too_old_goes_and_the_rest_stays(tmp_path: Path) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        fill(store, 3, 100)
        assert store.retain(50 * 60.0, 1 << 40) == 3 * 50
        assert [w.at_s for w in store.windows("d1", 0.0)] == [60.0 * turn for turn in range(50, 100)]
        assert store.events("d1") == [], "events age too"
        assert {device.name: device.release for device in store.devices()} == dict.fromkeys(
            ("d0", "d1", "d2"), "net:1.0.0"
        )


def test_the_store_stays_within_its_bytes_and_gives_them_back_to_the_disk(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    with closing(HubStore(path, "f")) as store:
        fill(store, 40, 400)
        before = store.size()
        removed = store.retain(0.0, before // 2)
        assert removed > 0 and store.size() <= before // 2
        newest = store.windows("d7", 0.0)[-1]
        assert newest.at_s == 399 * 60.0, "the oldest went, not the newest"
    assert path.stat().st_size <= before // 2 + 8192


def test_a_window_is_known_again_after_a_restart(tmp_path: Path) -> None:
    payloads = Payloads("f", "d0")
    sent = [payloads.window([0.01]) for _ in range(5)]
    for expected in ((5, 0), (0, 5)):
        with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
            view = FleetView("f", store.seen)
            for payload in sent:
                store.keep(view.take("d0", "metrics", payload, 1.0))
            assert (view.counted, view.repeated) == expected
            assert len(store.windows("d0", 0.0)) == 5


def test_labels_taken_away_after_a_restart_are_gone(tmp_path: Path) -> None:
    bare = reported("d0")
    for report, expected in ((bare.replace(b'"labels":{}', b'"labels":{"site":"a"}'), 1), (bare, 0)):
        with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
            store.keep(FleetView("f", store.seen).take("d0", "reported", report, 1.0))
            assert len(store.devices()[0].labels) == expected


def test_a_device_that_leaves_and_comes_back_in_one_batch_is_there_as_it_came_back(tmp_path: Path) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view, changes = FleetView("f", store.seen), list[Change]()
        for payload in (
            reported("d0").replace(b'"labels":{}', b'"labels":{"site":"a"}'),
            b"",
            reported("d0"),
        ):
            changes += view.take("d0", "reported", payload, 1.0)
        store.keep(changes)
        (device,) = store.devices()
        assert (device.release, device.labels) == ("net:1.0.0", ())
        assert len(store.events("d0")) == 1, "what it did before it left is forgotten"


def test_a_batch_is_kept_whole_or_not_at_all(tmp_path: Path) -> None:
    path = tmp_path / "hub.sqlite"
    with closing(HubStore(path, "f")) as store, closing(sqlite3.connect(path)) as other:
        other.execute(
            "CREATE TRIGGER no BEFORE INSERT ON window WHEN new.sequence = 3 BEGIN SELECT RAISE(ABORT, 'x'); END"
        )
        other.commit()
        view, payloads = FleetView("f", store.seen), Payloads("f", "d0")
        changes = [c for _ in range(5) for c in view.take("d0", "metrics", payloads.window([0.01]), 1.0)]
        with pytest.raises(StorageError, match=str(path)):
            store.keep(changes)
        assert other.execute("SELECT count(*) FROM window").fetchone() == (0,)


def test_another_fleet_s_store_and_what_is_no_store_are_refused(tmp_path: Path) -> None:
    HubStore(tmp_path / "hub.sqlite", "f").close()
    with pytest.raises(StorageError, match="of fleet 'f'"):
        HubStore(tmp_path / "hub.sqlite", "g")
    (tmp_path / "text").write_text("no database, and longer than a header of SQLite is " * 20)
    with pytest.raises(StorageError):
        HubStore(tmp_path / "text", "f")


def test_devices_cannot_fill_a_prometheus_with_labels(tmp_path: Path) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view = FleetView("f", store.seen)
        payloads = Payloads("f", "d0")
        for number in range(MAX_GROUPS + 50):
            view.take("d0", "metrics", payloads.window([0.01], version=f"{number % 9}.{number}"), 1.0)
        assert len(view.groups) == MAX_GROUPS + 1
        assert view.groups[("other", "other")].since_start().windows == 50


def test_a_histogram_too_coarse_to_merge_is_refused(tmp_path: Path) -> None:
    message = from_bytes(Payloads("f", "d0").window([0.01]))
    for scope in message.resource_metrics[0].scope_metrics:
        for metric in scope.metrics:
            for point in metric.exponential_histogram.data_points:
                point.scale = -1
    view = FleetView("f", lambda *_: ())
    with pytest.raises(DataError, match="coarser"):
        view.take("d0", "metrics", message.SerializeToString(), 1.0)
    assert view.devices == {} and view.groups == {}
