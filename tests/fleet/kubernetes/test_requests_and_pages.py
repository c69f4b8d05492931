"""What is pure of requests and pages: who asked, what is taken up, what moves out of a status, what follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import to_json
from edgewright.errors import ClusterError, RolloutError
from edgewright.twin import ReleaseReference
from edgewright_fleet.devices import DeviceView
from edgewright_fleet.rollout.catch_up import due
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import DeviceRecord, RolloutState, Stand
from edgewright_fleet.targets.kubernetes.api import from_kubeconfig
from edgewright_fleet.targets.kubernetes.pages import page_of
from edgewright_fleet.targets.kubernetes.resource import ASKED, REQUEST, DecisionRecord, asked_of, asking
from edgewright_fleet.targets.kubernetes.store import MOST_NODES, ResourceStore
from fleet.kubernetes.cluster_host import kubeconfig

OLD = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
NEW = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)


def record(size: int) -> DecisionRecord:
    return DecisionRecord(at="2026-01-01T00:00:00Z", atSeconds=0.0, sentence="x" * size)


@given(
    st.lists(st.integers(0, 400), max_size=40), st.lists(st.integers(0, 400), max_size=5), st.integers(1, 900)
)
def test_a_page_is_the_same_whatever_comes_after_it_and_a_status_stays_small(
    sizes: list[int], more: list[int], page_bytes: int
) -> None:
    stored = [record(size) for size in sizes]
    count = page_of(stored, page_bytes)
    if count:
        assert page_of([*stored, *map(record, more)], page_bytes) == count
    else:
        assert sum(len(to_json(one)) for one in stored) <= 2 * page_bytes


def document(handled: str | None = None, **annotations: str) -> dict[str, Any]:
    names = {"request": REQUEST, "asked": ASKED}
    said = {names[key]: value for key, value in annotations.items()}
    return {
        "metadata": {"name": "night", "annotations": said},
        "status": {"handled": handled} if handled else {},
    }


def test_a_request_is_known_by_its_first_word_and_taken_up_once() -> None:
    asked = asked_of(document(request="abort-2"))
    assert asked is not None and asked[0] == "abort-2" and asked[1].by == "an annotation"
    assert asked_of(document(request="abort-2", handled="abort-2")) is None
    assert asked_of(document(request="dance")) is None
    assert asked_of(document()) is None


def test_who_asked_counts_with_the_request_of_which_it_was_said_alone() -> None:
    said = asking("pause-1", "anna@desk", "the shop is full")
    asked = asked_of(document(request="pause-1", asked=said))
    assert asked is not None and asked[1].words == "by anna@desk: the shop is full"
    for stale in (said, "no JSON", "[]", "null", '{"request": "abort", "by": 3, "why": {}}'):
        later = asked_of(document(request="abort", asked=stale))
        assert later is not None and (later[1].by, later[1].why) == ("an annotation", None)


def rollout(name: str, reverts: str | None = None, **stands: Stand) -> tuple[RolloutSpec, RolloutState]:
    spec = RolloutSpec(
        name=name, fleet="f", release="net:1.1.0", registry=Path("r"), max_unavailable=0.9, reverts=reverts
    )
    records = {device: DeviceRecord(profile="gateway", stand=stand) for device, stand in stands.items()}
    return spec, RolloutState(
        name=name, release=NEW, waves=(tuple(records),), devices=records, phase="succeeded", since_s=0.0
    )


def test_a_rollout_that_would_outgrow_its_object_half_way_is_refused_before_it_begins(tmp_path: Path) -> None:
    path = tmp_path / "config"
    path.write_text(kubeconfig("nowhere", "https://127.0.0.1:1", "t", path))
    store = ResourceStore(from_kubeconfig([path], [], "edgewright")[0], tmp_path, "one")
    stands: dict[str, Stand] = {f"d{number}": "waiting" for number in range(MOST_NODES + 1)}
    with pytest.raises(RolloutError, match="1,001 nodes are more than one ModelRollout holds"):
        store.create(*rollout("night", **stands))
    del stands["d0"]
    with pytest.raises(ClusterError, match="does not answer"):
        store.create(*rollout("night", **stands))


def test_nobody_catches_up_with_a_rollout_that_was_taken_back() -> None:
    night = rollout("night", a="committed", b="waiting")
    views = {
        name: DeviceView(name, profile="gateway", online=True, phase="committed", running=running)
        for name, running in {"a": OLD, "b": OLD, "new": OLD, "wiped": None}.items()
    }
    assert {wish.device for wish in due(views, [night], 0.0)} == {"b", "new", "wiped"}
    back = rollout("night-revert", "night", a="reverted", wiped="reverted")
    assert due(views, [back, night], 0.0) == []
