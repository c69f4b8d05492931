from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Callable, Iterator
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import edgewright_agent.update as update_module
import edgewright_agent.watch as watch_module
from device_agent.updater_at_work import Device, PowerCutError, prove_here
from edgewright.artifact.layout import Layout
from edgewright.artifact.model_card import ArtifactOnCard, Decision, ModelCard, publish_with_card
from edgewright.artifact.release import open_release
from edgewright.errors import ArtifactError
from edgewright.twin import ReleaseReference
from edgewright_agent.slots import CUT_SHORT, Slots
from edgewright_agent.update import HANGS, UpdateFailedError, is_older
from edgewright_agent.watch import MIN_WATCHED_INFERENCES, HeatReading, error_reason

versions = st.lists(st.integers(0, 30), min_size=1, max_size=4)


def release(version: str, name: str = "sorter") -> ReleaseReference:
    return ReleaseReference(name=name, version=version, digest=f"sha256:{'0' * 64}")


def older(version: str, than: str) -> bool:
    return is_older(release(version), release(than))


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [
        ("1.9.0", "1.10.0", True),
        ("1.10.0", "1.9.0", False),
        ("1.0", "1.0.0", False),
        ("1.0.0", "1.0", False),
        ("1.0", "1.0.1", True),
        ("v1.2", "1.3", True),
        ("20261124", "20261125", True),
        ("1.0.0", "1.0.0-rc1", False),
        ("1.0.0-rc1", "1.0.0", False),
        ("0.9-rc1", "1.0.0-rc1", True),
        ("main", "1.0.0", False),
        ("1.0.0", "main", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, than: str, expected: bool) -> None:
    assert older(version, than) is expected


def test_another_model_is_not_an_older_one() -> None:
    assert not is_older(release("1.0.0", "sorter"), release("2.0.0", "counter"))


@given(versions, versions)
def test_the_order_is_that_of_the_numbers(one: list[int], other: list[int]) -> None:
    width = max(len(one), len(other))
    padded = [numbers + [0] * (width - len(numbers)) for numbers in (one, other)]
    left, right = (".".join(map(str, numbers)) for numbers in (one, other))
    assert older(left, right) is (padded[0] < padded[1])
    assert not (older(left, right) and older(right, left))


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 0.99), st.booleans())
def test_a_watched_release_fails_by_its_share_of_errors(
    errors: int, successes: int, limit: float, over: bool
) -> None:
    inferences = errors + successes
    failed = error_reason(errors, inferences, limit, over=over) is not None
    if errors == 0:
        assert not failed
    elif inferences >= MIN_WATCHED_INFERENCES:
        assert failed is (errors > limit * inferences)
    else:
        assert failed is (over and successes == 0)


@pytest.fixture
def device(tmp_path: Path, registry: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Device]]:
    monkeypatch.setattr(update_module, "prove_in_process_of_its_own", prove_here)
    made: list[Device] = []

    def make(**settings: Any) -> Device:
        made.append(Device(tmp_path, registry, **settings))
        return made[-1]

    yield make
    for each in made:
        each.stop()


def test_a_model_card_in_the_release_is_no_matter_of_the_device(
    device: Any, registry: Any, tmp_path: Path
) -> None:
    release = registry.release("1.0.0")
    layout = Layout.open(registry.root)
    artifacts = tuple(open_release(layout, str(release)).artifacts.values())
    held = ArtifactOnCard(
        profile="x86-64-gateway", format="onnx", digest=artifacts[0].digest, model_bytes=1, gate=None
    )
    decided = Decision(by="hand", why="test")
    card = ModelCard(
        name="sorter",
        version="1.0.0",
        made_at=datetime(2026, 1, 1, tzinfo=timezone.utc),
        artifacts=(held,),
        decision=decided,
    )
    with_card = publish_with_card(layout, card, artifacts)
    assert with_card.card is not None
    manifest = json.loads(layout.read(with_card.card))
    blobs = {with_card.card.digest, manifest["config"]["digest"], manifest["layers"][0]["digest"]}
    for digest in blobs:
        layout.path_of(digest).unlink()  # whoever asks for it fails
    one = device()
    assert one.take(ReleaseReference(name="sorter", version="1.0.0", digest=with_card.digest)) == "committed"
    state = one.config.state_dir
    held_there = {f"sha256:{path.name}" for path in state.rglob("blobs/sha256/*")}
    assert held_there and not held_there & blobs


def counting_source(tmp_path: Path, number: int) -> dict[str, Any]:
    path = tmp_path / "inputs.npz"
    np.savez(path, x=np.full((1, 1, 3), number, np.int32))
    return {"kind": "npz", "path": path, "rate_hz": 500.0}


def test_an_update_is_watched_for_a_time_and_for_a_count(device: Any, registry: Any) -> None:
    one = device(watch_inferences=40)
    start = time.monotonic()
    assert one.take(registry.release("1.0.0")) == "committed"
    assert one.updater.served.tally.inferences >= 40
    # 40 inferences at 500 Hz take 80 ms.
    assert time.monotonic() - start >= 0.08


def test_a_device_without_work_keeps_a_release_when_the_longest_time_is_over(
    device: Any, registry: Any
) -> None:
    one = device(watch_inferences=1000, watch_max_s=0.3, source={"rate_hz": 0.1})
    assert one.take(registry.release("1.0.0")) == "committed"


def test_a_release_that_slows_the_device_down_is_rolled_back(
    device: Any, registry: Any, tmp_path: Path
) -> None:
    one = device(watch_inferences=15, source=counting_source(tmp_path, 1))
    assert one.take(registry.release("1.0.0", kind="counting", rows=1)) == "committed"
    assert one.take(registry.release("1.1.0", kind="counting", rows=20_000), "slow") == "failed"
    assert one.version == "1.0.0"
    assert re.fullmatch(
        r"latency rose from .+ \(median of \d+\) to .+ \(median of \d+\), more than 2 times", one.reason
    )
    assert one.phases[-3:] == ["watching", "rolling-back", "failed"]
    # Told that this is what is wanted, the device takes it.
    one.config = one.config.model_copy(update={"watch_max_slowdown": 0.0})
    one.restart()
    assert (one.phase, one.version) == ("failed", "1.0.0")
    assert one.take(registry.release("1.1.0", kind="counting", rows=20_000), "slow by intent") == "committed"


def test_a_release_that_makes_the_device_throttle_is_rolled_back(
    device: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch_module, "HEAT_SAMPLE_S", 0.01)
    one = device(watch_s=0.6)
    one.heat = HeatReading(50.0, throttled=False)

    def throttle(phase: str) -> None:
        one.heat = HeatReading(52.0, throttled=phase == "watching")

    assert one.take(registry.release("1.0.0")) == "committed"
    one.on_phase = throttle
    assert one.take(registry.release("1.1.0")) == "failed"
    assert (one.reason, one.version) == ("the device throttles since the release is served", "1.0.0")
    assert one.updater._slots.state.failure.reason == one.reason


def test_a_hanging_inference_is_recorded_before_the_agent_leaves(
    device: Any, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(update_module, "LAST_WORDS_S", 0.0)
    # 3,000,000 rounds take about a second: as good as a hang, and over when the test is.
    one = device(
        watch_inferences=1, watch_hang_s=0.2, prove_runs=0, source=counting_source(tmp_path, 3_000_000)
    )
    assert one.take(registry.release("1.0.0", kind="counting", rows=0)) == "committed"
    one.on_phase = lambda phase: seen.append((phase, started_elsewhere(one)))
    seen: list[tuple[str, str | None]] = []
    assert one.take(registry.release("1.1.0", kind="counting", rows=1)) == "failed"
    assert one.reason == "an inference did not end within 0.2 s while watching"
    assert one.exits == [HANGS]
    # What another process would have found at each change: the reason is there before the exit.
    assert seen[-1] == ("failed", one.reason)
    one.stop()
    one.restart()
    assert (one.phase, one.version, one.reason) == (
        "failed",
        "1.0.0",
        "an inference did not end within 0.2 s while watching",
    )


def started_elsewhere(one: Device) -> str | None:
    failure = Slots.open(one.config.state_dir).state.failure
    return failure.reason if failure else None


def test_a_release_that_takes_the_agent_down_when_it_loads_is_not_tried_for_ever(
    device: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device()
    assert one.take(registry.release("1.0.0")) == "committed"
    newer = registry.release("1.1.0")

    def dies(*_: Any) -> None:
        raise PowerCutError

    with monkeypatch.context() as patched, pytest.raises(PowerCutError):
        patched.setattr(update_module, "load_served", dies)
        one.take(newer)
    one.restart()
    assert (one.phase, one.version, one.reason) == ("failed", "1.0.0", CUT_SHORT)
    assert one.take(newer) == "failed"
    assert one.phases == ["failed"]


def test_by_hand_a_device_goes_back_and_stays_there_until_the_fleet_asks_anew(
    device: Any, registry: Any
) -> None:
    one = device()
    older, newer = registry.release("1.0.0"), registry.release("1.1.0")
    assert one.take(older, "first") == "committed"
    with pytest.raises(ArtifactError, match="no release to go back to"):
        one.updater.roll_back_to_previous()
    assert one.take(newer, "second") == "committed"
    assert one.take(newer, "third") == "committed"  # it runs already; this wish is what the broker keeps
    one.updater.roll_back_to_previous()
    assert (one.phase, one.version, one.reason) == ("failed", "1.0.0", "rolled back by hand")
    for _ in range(2):
        assert one.take(newer, "third") == "failed"
        assert (one.version, one.phases) == ("1.0.0", ["failed"])
        one.restart()
        assert (one.phase, one.version, one.reason) == ("failed", "1.0.0", "rolled back by hand")
    assert one.take(newer, "fourth") == "committed"
    assert one.version == "1.1.0"


def test_by_hand_a_watched_release_is_given_up_at_once(device: Any, registry: Any) -> None:
    one = device()
    assert one.take(registry.release("1.0.0")) == "committed"
    one.config = one.config.model_copy(update={"watch_s": 60.0})
    one.restart()
    hands: list[threading.Thread] = []

    def by_hand(phase: str) -> None:
        if phase == "watching":
            hands.append(threading.Thread(target=one.updater.roll_back_to_previous))
            hands[0].start()

    one.on_phase = by_hand
    assert one.take(registry.release("1.1.0")) == "failed"
    hands[0].join(10)
    assert (one.version, one.reason) == ("1.0.0", "rolled back by hand")


def test_by_hand_an_update_that_has_not_switched_is_waited_for(device: Any, registry: Any) -> None:
    one = device()
    refusals: list[str] = []

    def by_hand(phase: str) -> None:
        if phase == "proving":
            with pytest.raises(UpdateFailedError) as caught:
                one.updater.roll_back_to_previous()
            refusals.append(str(caught.value))

    one.on_phase = by_hand
    assert one.take(registry.release("1.0.0")) == "committed"
    assert refusals == ["an update is proving; wait for its end"]


def test_a_device_that_was_told_to_stay_has_no_failure_after_its_next_start(
    device: Any, registry: Any
) -> None:
    one = device()
    kept = registry.release("1.0.0")
    assert one.take(kept) == "committed"
    assert one.take(registry.release("1.1.0", wrong_golden=True), "bad") == "failed"
    one.restart()
    assert (one.phase, one.updater.progress.rollout) == ("failed", "bad")
    assert one.take(kept, "stay") == "committed"
    one.restart()
    assert (one.phase, one.reason) == ("committed", None)


def test_no_clock_that_may_go_backwards_is_read(
    device: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = device()
    hour = itertools.count()
    monkeypatch.setattr(time, "time", lambda: 1e9 - 3600 * next(hour))
    monkeypatch.setattr(time, "time_ns", lambda: 10**18 - 3600 * 10**9 * next(hour))
    assert one.take(registry.release("1.0.0")) == "committed"
    assert one.take(registry.release("1.1.0")) == "committed"
