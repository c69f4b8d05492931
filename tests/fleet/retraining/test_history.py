"""From sketches to what each device's data did, and to groups: releases, merged spans, days, flapping, pooling."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import pytest

from edgewright.telemetry.sketch import ChannelSketch, DataSketch, Moments, merged
from edgewright_fleet.hub.sketches import KeptSketch, columns, to_bytes
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.groups import group_drift
from edgewright_fleet.retraining.triggers.history import DeviceDrift, History, follow, histories

MIX = np.array([0.4, 0.3, 0.2, 0.1])
OTHER = np.array([0.3, 0.3, 0.2, 0.2])
CONFIDENCE = np.array([0, 0, 0, 1, 1, 2, 3, 5, 10, 10, 20, 30, 18]) / 100
TEST = DriftTest()
Shares = Callable[[int], np.ndarray]


def sketch(
    chance: np.random.Generator, shares: np.ndarray, *, samples: int = 1200, light: float = 0.5
) -> DataSketch:
    level = Moments(mean=light + 0.1 * chance.standard_normal() / samples**0.5, std=0.1)
    return DataSketch(
        samples=samples,
        classes=tuple(chance.multinomial(samples, shares).tolist()),
        confidence=tuple(chance.multinomial(samples, CONFIDENCE).tolist()),
        inputs={"x": (ChannelSketch(level=level, spread=Moments(mean=0.2, std=0.05)),)},
    )


def device(
    name: str,
    shares: Shares,
    steps: int = 100,
    *,
    every_s: float = 300.0,
    light: Callable[[int], float] = lambda _: 0.5,
    profile: str = "gateway",
) -> History:
    return history_of(name, kept_of(name, shares, steps, every_s=every_s, light=light), profile)


def history_of(name: str, kept: Sequence[KeptSketch], profile: str = "gateway") -> History:
    rows = [(one.at_s, one.release, to_bytes(one.sketch)) for one in kept]
    return History(name, profile, columns(rows), {"cluster": "berlin"})


def kept_of(
    name: str,
    shares: Shares,
    steps: int = 100,
    *,
    every_s: float = 300.0,
    light: Callable[[int], float] = lambda _: 0.5,
) -> list[KeptSketch]:
    chance = np.random.default_rng(list(name.encode()))
    return [
        KeptSketch(every_s * (step + 1), "net:1.0.0", sketch(chance, shares(step), light=light(step)))
        for step in range(steps)
    ]


def steady(_: int) -> np.ndarray:
    return MIX


def from_step(step: int) -> Shares:
    return lambda now: OTHER if now >= step else MIX


def test_a_device_whose_answers_shift_drifts_since_then_and_one_that_stays_does_not() -> None:
    quiet, shifted = follow([device("a", steady), device("b", from_step(60))], TEST)
    assert quiet.settled and quiet.changes == () and quiet.drifting == () and quiet.since_s is None
    assert quiet.effects["classes"] < 0.01
    assert shifted.drifting == ("classes",)
    assert shifted.since_s == pytest.approx(60 * 300.0, abs=301)
    assert shifted.changes[0].seen_s - shifted.changes[0].at_s <= 4 * 300.0
    assert shifted.effects["classes"] == pytest.approx(((OTHER - MIX) * np.log(OTHER / MIX)).sum(), abs=0.02)
    assert sum(shifted.before["classes"]) == pytest.approx(60 * 1200, abs=1200)
    late = [psi for at, psi in shifted.course if at > 65 * 300.0]
    assert min(late) > 0.02 > max(psi for at, psi in shifted.course if at < 59 * 300.0)


def test_brightness_that_moves_is_drift_of_the_inputs_alone() -> None:
    (moved,) = follow([device("a", steady, light=lambda step: 0.5 if step < 60 else 0.55)], TEST)
    assert moved.drifting == ("inputs",) and moved.effects["inputs"] == pytest.approx(0.5, abs=0.05)


def test_devices_followed_together_are_what_they_are_alone() -> None:
    devices = [
        device("a", steady, 40),
        device("b", from_step(50), 90),
        device("c", steady, 3),
        device("d", from_step(20), 70),
    ]
    together = follow(devices, TEST)
    assert together == [follow([one], TEST)[0] for one in devices]
    assert [d.settled for d in together] == [True, True, False, True]


def test_spans_that_were_merged_as_they_aged_show_the_same_change() -> None:
    fine = kept_of("a", from_step(600), 720)
    coarse = [
        KeptSketch(part[-1].at_s, part[-1].release, _sum([k.sketch for k in part]))
        for part in (fine[i : i + 12] for i in range(0, 660, 12))
    ]
    (found,) = follow([history_of("a", [*coarse, *fine[660:]])], TEST)
    assert found.drifting == ("classes",) and found.since_s == 600 * 300.0


def _sum(sketches: Sequence[DataSketch]) -> DataSketch:
    total = sketches[0]
    for more in sketches[1:]:
        total = merged(total, more)
    return total


def test_a_device_that_goes_back_no_longer_drifts() -> None:
    (back,) = follow([device("a", lambda step: OTHER if 40 <= step < 70 else MIX)], TEST)
    assert len(back.changes) == 2 and back.drifting == () and not back.flapping


def test_data_that_follows_the_hour_is_looked_at_by_days_and_a_shift_of_it_is_seen() -> None:
    def by_the_hour(shift: bool) -> Shares:
        def shares(step: int) -> np.ndarray:
            mix = OTHER if shift and step >= 25 * 24 else MIX
            mixed = mix * (1 + 0.4 * np.sin(2 * np.pi * step / 24) * np.array([1, -1, 1, -1]))
            return np.asarray(mixed / mixed.sum())

        return shares

    devices = [device(n, by_the_hour(n == "b"), 30 * 24, every_s=3600.0) for n in ("a", "b")]
    hourly = follow(devices, TEST, block_s=0.0)
    assert all(d.flapping for d in hourly)
    quiet, shifted = follow(devices, TEST)
    assert quiet.block_s == shifted.block_s == 86400.0
    assert not quiet.flapping and quiet.changes == ()
    assert shifted.drifting == ("classes",) and shifted.since_s == pytest.approx(25 * 86400.0, abs=3601)


def test_another_release_begins_with_a_reference_of_its_own() -> None:
    old = [KeptSketch(k.at_s, "net:0.9.0", k.sketch) for k in kept_of("a", steady, 50)]
    new = [KeptSketch(k.at_s + 50 * 300, k.release, k.sketch) for k in kept_of("a", lambda _: OTHER, 50)]
    seen = history_of("a", [*old, *new]).sketches
    (history,) = histories([("a", seen)], {"a": ("gateway", {"cluster": "berlin"})})
    assert history.release == "net:1.0.0" and len(history.sketches.at_s) == 50
    assert history.profile == "gateway" and history.labels == {"cluster": "berlin"}
    assert follow([history], TEST)[0].changes == ()


def test_a_reference_from_outside_shows_where_a_device_never_was_like_it() -> None:
    chance = np.random.default_rng(1)
    reference = sketch(chance, MIX, samples=5000)
    like, unlike = follow([device("a", steady), device("b", lambda _: OTHER)], TEST, reference=reference)
    assert like.changes == () and unlike.drifting == ("classes",) and unlike.effects["classes"] > 0.05
    small = sketch(chance, MIX, samples=200)
    assert follow([device(str(n), steady, 60) for n in range(10)], TEST, reference=small)[0].changes == ()


def test_a_model_that_classifies_nothing_drifts_by_its_inputs() -> None:
    chance = np.random.default_rng(2)

    def bare(step: int) -> DataSketch:
        return sketch(chance, MIX, light=0.5 if step < 40 else 0.6).model_copy(
            update={"classes": (), "confidence": ()}
        )

    kept = [KeptSketch(300.0 * step, "net:1.0.0", bare(step)) for step in range(60)]
    (found,) = follow([history_of("a", kept)], TEST)
    assert found.drifting == ("inputs",) and not found.course.size
    ((group, _),) = group_drift([found], "profile")
    assert group.drifting == 1 and group.psi is None and group.classes_now == ()


def fleet_of(drifting: int, quiet: int, **more: str) -> list[DeviceDrift]:
    devices = [device(f"d{n}", from_step(60), **more) for n in range(drifting)]
    return follow([*devices, *(device(f"q{n}", steady, **more) for n in range(quiet))], TEST)


def test_a_group_counts_its_devices_and_pools_each_with_the_same_weight() -> None:
    ((group, members),) = group_drift(fleet_of(6, 2), "profile")
    assert (group.devices, group.settled, group.drifting, group.flapping) == (8, 8, 6, 0)
    assert group.share == 0.75 and group.streams == {"classes": 6} and len(members) == 8
    assert group.classes_before == pytest.approx(MIX, abs=0.01)
    assert group.classes_now == pytest.approx(0.75 * OTHER + 0.25 * MIX, abs=0.02)
    assert group.since_s == pytest.approx(60 * 300, abs=301)
    assert group.psi is not None and 0.02 < group.psi < 0.1
    assert group.distance is not None and 0.05 < group.distance < 0.2


def test_a_group_that_stays_as_it_is_shows_nothing() -> None:
    ((group, _),) = group_drift(fleet_of(0, 5), "cluster")
    assert (group.by, group.group, group.drifting) == ("cluster", "berlin", 0)
    assert group.psi is not None and group.psi < 0.002 and group.since_s is None


def test_groups_are_made_by_profile_release_label_and_model() -> None:
    devices = fleet_of(0, 2) + follow([device("x", steady, profile="pi")], TEST)
    assert [(g.group, g.devices) for g, _ in group_drift(devices, "profile")] == [("gateway", 2), ("pi", 1)]
    assert [g.group for g, _ in group_drift(devices, "release")] == ["net:1.0.0"]
    assert [g.group for g, _ in group_drift(devices, "floor")] == ["–"]
