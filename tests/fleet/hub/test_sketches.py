"""Sketches in the hub's store: as they came, merged as they age, bounded, refused where no device sends them."""

from __future__ import annotations

from contextlib import closing
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import to_json
from edgewright.errors import DataError, StorageError
from edgewright.telemetry import names
from edgewright.telemetry.sketch import ChannelSketch, DataSketch, Moments
from edgewright_agent.exporter import Exporter, model_attributes
from edgewright_fleet.hub import sketches
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.view import FleetView
from fleet.hub.conftest import release, reported

numbers = st.floats(-(2.0**99), 2.0**99, width=32)
moments = st.builds(Moments, mean=numbers, std=st.floats(0, 2.0**99, width=32))
channels = st.builds(ChannelSketch, level=moments, spread=moments)


@st.composite
def data_sketches(draw: st.DrawFn) -> DataSketch:
    classes = draw(st.lists(st.integers(0, 5000), max_size=32))
    samples = sum(classes) or draw(st.integers(1, 5000))
    confidence = [samples] + [0] * 12 if draw(st.booleans()) else []
    inputs = draw(st.dictionaries(st.text(max_size=8), st.lists(channels, max_size=4).map(tuple), max_size=3))
    return DataSketch(
        samples=samples,
        classes=tuple(classes) if sum(classes) else (),
        confidence=tuple(confidence),
        inputs=inputs,
    )


def flat(samples: int = 1200, brightness: float = 0.5) -> DataSketch:
    light = Moments(mean=brightness, std=0.125)
    return DataSketch(
        samples=samples,
        classes=(samples // 2, samples - samples // 2),
        confidence=(0,) * 12 + (samples,),
        inputs={"x": (ChannelSketch(level=light, spread=light),)},
    )


def send(
    store: HubStore, view: FleetView, exporter: Exporter, sketch: str, at_s: float, samples: int = 1200
) -> None:
    model = model_attributes(release())
    exporter.add(names.DRIFT_SAMPLES, "{inference}", samples, {names.DRIFT_SKETCH: sketch}, model=model)
    store.keep(view.take("d0", "metrics", exporter.collect(), at_s))


def exporter() -> Exporter:
    return Exporter(fleet="f", device="d0", profile="gateway", boot="b")


@given(data_sketches())
def test_a_sketch_is_read_as_it_was_written(sketch: DataSketch) -> None:
    assert to_json(sketches.from_bytes(sketches.to_bytes(sketch))) == to_json(sketch)


@given(
    st.lists(data_sketches(), min_size=1, max_size=3).flatmap(
        lambda some: st.lists(
            st.tuples(st.sampled_from(["a", "b"]), st.sampled_from(some)), min_size=1, max_size=8
        )
    )
)
def test_columns_hold_the_newest_sketches_of_one_release_and_the_same_figures(
    kept: list[tuple[str, DataSketch]],
) -> None:
    rows = [(float(at), release, sketches.to_bytes(sketch)) for at, (release, sketch) in enumerate(kept)]
    found = sketches.columns(rows)

    def alike(one: tuple[str, DataSketch]) -> tuple[object, ...]:
        release, sketch = one
        inputs = [(name, len(channels)) for name, channels in sketch.inputs.items()]
        return release, len(sketch.classes), len(sketch.confidence), inputs

    newest = [kept[-1]]
    for one in reversed(kept[:-1]):
        if alike(one) != alike(kept[-1]):
            break
        newest.insert(0, one)
    assert found.release == kept[-1][0]
    assert found.at_s.tolist() == [float(at) for at in range(len(kept) - len(newest), len(kept))]
    for row, (_, sketch) in enumerate(newest):
        assert found.samples[row] == sketch.samples
        assert tuple(found.classes[row]) == sketch.classes
        assert tuple(found.confidence[row]) == sketch.confidence
        assert found.inputs == tuple((name, len(channels)) for name, channels in sketch.inputs.items())
        of_all = [c for channels in sketch.inputs.values() for c in channels]
        wanted = [[c.level.mean, c.level.std, c.spread.mean, c.spread.std] for c in of_all]
        assert found.moments[row].tolist() == wanted


def test_sketches_are_kept_as_they_came_then_by_the_hour_then_by_the_day_then_not_at_all(
    tmp_path: Path,
) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view, device, days = FleetView("f", store.seen), exporter(), 70
        for number in range(days * 288):
            if number % 6 == 0:  # one each half hour, or this takes minutes
                send(store, view, device, to_json(flat(brightness=number / 288)).decode(), 300.0 * number)
        now_s = days * 86400.0
        store.thin_sketches(now_s, every_device=True)
        kept = [kept for _, kept in store.sketches("d0")]
        ages = [(now_s - k.at_s) / 3600 for k in kept]
        assert [k.sketch.samples for k in kept if now_s - k.at_s > 4 * 86400] == [48 * 1200] * 56
        assert all(k.sketch.samples == 2 * 1200 for k, age in zip(kept, ages, strict=True) if 5 < age < 45)
        assert all(k.sketch.samples == 1200 for k, age in zip(kept, ages, strict=True) if age < 3)
        assert sum(k.sketch.samples for k in kept) == 60 * 48 * 1200, "nothing of the two months is lost"
        day = kept[3].sketch.inputs["x"][0].level
        assert day.std > 0.1, "merged moments hold the spread between sketches"
        store.thin_sketches(now_s, every_device=True)
        assert [k for _, k in store.sketches("d0")] == kept, "a second time changes nothing"
        assert len(kept) < 130


def test_a_release_is_never_merged_with_another_nor_a_model_that_answers_otherwise(tmp_path: Path) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view, device = FleetView("f", store.seen), exporter()
        three = DataSketch(samples=3, classes=(1, 1, 1), confidence=(0,) * 12 + (3,))
        for number, sketch in enumerate((flat(), flat(), three, three)):
            send(store, view, device, to_json(sketch).decode(), 60.0 * number, sketch.samples)
        store.thin_sketches(1e6, every_device=True)
        assert [k.sketch.samples for _, k in store.sketches()] == [2400, 6]


def test_a_sketch_that_comes_twice_counts_once_and_survives_a_restart(tmp_path: Path) -> None:
    device = exporter()
    device.add(
        names.DRIFT_SAMPLES, "{inference}", 1200, {names.DRIFT_SKETCH: to_json(flat()).decode()},
        model=model_attributes(release()),
    )  # fmt: skip
    payload = device.collect()
    for _ in range(2):
        with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
            view = FleetView("f", store.seen)
            for _ in range(2):
                store.keep(view.take("d0", "metrics", payload, 1.0))
            assert [(name, k.release, k.sketch) for name, k in store.sketches()] == [
                ("d0", "net:1.0.0", flat())
            ]


@pytest.mark.parametrize(
    "text",
    [
        "", "[]", '{"samples":1,"classes":[2]}',
        '{"samples":5000000000,"classes":[5000000000]}',
        '{"samples":1,"inputs":{"x":[{"level":{"mean":1e300,"std":0},"spread":{"mean":0,"std":0}}]}}',
        '{"samples":1,"classes":[1' + ",0" * 300 + "]}",
    ],
)  # fmt: skip
def test_a_sketch_that_no_device_sends_is_refused_and_the_store_goes_on(tmp_path: Path, text: str) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view, device = FleetView("f", store.seen), exporter()
        with pytest.raises(DataError):
            send(store, view, device, text, 1.0)
        send(store, view, device, to_json(flat()).decode(), 2.0)
        assert len(list(store.sketches())) == 1


def test_a_store_that_must_shrink_gives_up_windows_before_sketches(tmp_path: Path) -> None:
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view, device = FleetView("f", store.seen), exporter()
        for number in range(3000):
            send(store, view, device, to_json(flat()).decode(), float(number))
        before = store.size()
        store.retain(0.0, before - 4096)
        assert store.windows("d0", 0.0) == [] and len(list(store.sketches())) == 3000
        store.retain(0.0, 1)
        assert list(store.sketches()) == []


def test_labels_of_a_device_are_kept_changed_and_forgotten_with_it(tmp_path: Path) -> None:
    report = reported("d0").replace(b'"labels":{}', b'"labels":{"cluster":"berlin"}')
    with closing(HubStore(tmp_path / "hub.sqlite", "f")) as store:
        view = FleetView("f", store.seen)
        store.keep(view.take("d0", "reported", report, 1.0))
        send(store, view, exporter(), to_json(flat()).decode(), 2.0)
        assert [device.labels for device in store.devices()] == [(("cluster", "berlin"),)]
        store.keep(view.take("d0", "reported", report.replace(b"berlin", b"hamburg"), 3.0))
        assert [device.labels for device in store.devices()] == [(("cluster", "hamburg"),)]
        store.keep(view.take("d0", "reported", b"", 4.0))
        assert store.devices() == [] and list(store.sketches()) == []
        store.keep(view.take("d0", "reported", reported("d0"), 5.0))
        assert [device.labels for device in store.devices()] == [()]


def test_a_store_of_any_fleet_can_be_read(tmp_path: Path) -> None:
    HubStore(tmp_path / "hub.sqlite", "f").close()
    with closing(HubStore(tmp_path / "hub.sqlite", None, read_only=True)) as store:
        assert store.fleet == "f"
    with pytest.raises(StorageError, match="of fleet 'f'"):
        HubStore(tmp_path / "hub.sqlite", "g", read_only=True)
