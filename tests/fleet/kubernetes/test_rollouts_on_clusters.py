"""Rollouts over the nodes of two real clusters, and what can go wrong on the way."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from edgewright.mqtt import BrokerSettings
from edgewright_fleet.targets.kubernetes.target import look_at
from fleet.kubernetes.fleet_on_nodes import FleetOnNodes, MuteDevice
from fleet.kubernetes.real_cluster import RealCluster, agent_pod, until

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


@pytest.fixture
def fleet(
    clusters: dict[str, RealCluster], fleet_broker: BrokerSettings, registry: Path
) -> Iterator[FleetOnNodes]:
    made = FleetOnNodes(clusters, fleet_broker, registry)
    try:
        yield made
    finally:
        made.close()


def sentences(fleet: FleetOnNodes, name: str) -> list[str]:
    return [decision.sentence for decision in fleet.status(name).decisions]


def test_a_release_reaches_the_nodes_of_both_clusters_in_waves_and_cordoned_ones_later(
    fleet: FleetOnNodes, clusters: dict[str, RealCluster]
) -> None:
    hamburg = clusters["hamburg"].api
    fleet.add_all()
    taint = {"key": "maintenance", "effect": "NoSchedule"}
    hamburg.patch("/api/v1/nodes/h4", {"spec": {"taints": [taint]}})
    hamburg.patch("/api/v1/nodes/h5", {"spec": {"unschedulable": True}})
    try:
        with fleet.controller():
            name = fleet.roll_out()
            status = fleet.ended(name)
            assert (status.phase, status.exposed) == ("succeeded", "10 of 12"), status.verdict
            assert fleet.running(fleet.old) == ["hamburg.h4", "hamburg.h5"]
            assert status.state is not None and [len(wave) for wave in status.state.waves] == [1, 6, 5]
            said = {c.type: c.status for c in status.conditions}
            assert said == {
                "Accepted": "True",
                "Progressing": "False",
                "Paused": "False",
                "Succeeded": "True",
            }
            hamburg.patch("/api/v1/nodes/h4", {"spec": {"taints": []}})
            hamburg.patch("/api/v1/nodes/h5", {"spec": {"unschedulable": False}})
            until(lambda: len(fleet.running(fleet.new)) == 12)
        assert all(device.ran == [fleet.new.digest] for device in fleet.devices.values())
    finally:
        hamburg.patch("/api/v1/nodes/h4", {"spec": {"taints": []}})
        hamburg.patch("/api/v1/nodes/h5", {"spec": {"unschedulable": False}})


def test_a_node_that_joins_after_a_rollout_gets_its_release(fleet: FleetOnNodes) -> None:
    for node in ("b0", "b1"):
        fleet.add(f"berlin.{node}")
    with fleet.controller():
        assert fleet.ended(fleet.roll_out(waves=[1, "rest"])).phase == "succeeded"
        late = fleet.add("hamburg.h0")
        until(lambda: late.running == fleet.new)


def test_a_canary_that_refuses_the_release_keeps_it_from_all_others(fleet: FleetOnNodes) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}", broken=fleet.new.digest)
    with fleet.controller():
        status = fleet.ended(fleet.roll_out())
    assert (status.phase, status.exposed) == ("failed", "1 of 3")
    assert "golden check: outputs differ" in (status.verdict or "")
    assert {c.type: c.status for c in status.conditions}["Succeeded"] == "False"
    assert fleet.running(fleet.old) == sorted(fleet.devices)


def test_a_canary_whose_pod_crash_loops_fails_the_rollout_though_it_says_nothing(
    fleet: FleetOnNodes, berlin: RealCluster
) -> None:
    mute = fleet.add("berlin.b0", MuteDevice)
    fleet.add("berlin.b1")
    with fleet.controller():
        name = fleet.roll_out(waves=[1, "rest"])
        until(lambda: fleet.status(name).exposed == "1 of 2")
        pod = agent_pod(berlin, "b0")["metadata"]["name"]
        waiting = {"waiting": {"reason": "CrashLoopBackOff", "message": "back-off 40s"}}
        container = {"name": "agent", "image": "i", "imageID": "i", "ready": False, "restartCount": 4}
        crashed = {"status": {"containerStatuses": [container | {"state": waiting}]}}

        def crash() -> bool:
            # The kubelet, whose containers never crash, puts its own word back now and then.
            berlin.api.patch(f"{berlin.api.named('pods', pod)}/status", crashed)
            return fleet.status(name).phase == "reverting"

        until(crash)
        mute.lose_power()
        again = fleet.add("berlin.b0")
        status = fleet.ended(name)
    assert status.phase == "failed" and status.verdict is not None
    assert "berlin.b0 refused the release: its pod is in CrashLoopBackOff" in status.verdict
    assert "1 back on what they ran" in status.verdict
    assert (again.running, again.ran, mute.ran) == (fleet.old, [], [])
    until(lambda: all(node.available for node in look_at(berlin.api).nodes))


def test_an_operator_aborts_and_exposed_nodes_go_back(fleet: FleetOnNodes) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}")
    with fleet.controller():
        name = fleet.roll_out(
            gates={"min_inferences": 20, "window_s": 60, "timeout_s": 90, "max_p50_ratio": 5}
        )
        until(lambda: fleet.status(name).phase == "observing")
        assert len(fleet.running(fleet.new)) == 1
        fleet.ask(name, "abort")
        status = fleet.ended(name)
    assert status.phase == "aborted"
    assert fleet.running(fleet.old) == sorted(fleet.devices)


def test_a_cluster_that_is_offline_is_left_out_and_catches_up(
    fleet: FleetOnNodes, clusters: dict[str, RealCluster]
) -> None:
    for device in ("berlin.b0", "berlin.b1", "hamburg.h0", "hamburg.h1"):
        fleet.add(device)
    with fleet.controller():
        clusters["hamburg"].kill("kube-apiserver")
        try:
            time.sleep(1.5)  # for five looks at the clusters
            name = fleet.roll_out(waves=[1, "rest"], devices=sorted(fleet.devices))
            status = fleet.ended(name)
            assert (status.phase, status.exposed) == ("succeeded", "2 of 4"), status.verdict
            assert fleet.running(fleet.new) == ["berlin.b0", "berlin.b1"]
        finally:
            clusters["hamburg"].start("kube-apiserver")
        until(lambda: len(fleet.running(fleet.new)) == 4)


def test_a_node_lost_in_mid_wave_holds_nobody_up_and_catches_up(
    fleet: FleetOnNodes, berlin: RealCluster
) -> None:
    fleet.add_all()
    lost = fleet.devices["berlin.b3"]
    with fleet.controller():
        name = fleet.roll_out(waves=[1, "rest"], max_unavailable=0.1)
        until(lambda: len(fleet.running(fleet.new)) >= 2)
        assert lost.running == fleet.old
        lost.lose_power()
        berlin.kill("b3")
        try:
            status = fleet.ended(name)
            assert (status.phase, len(fleet.running(fleet.new))) == ("succeeded", 11), status.verdict
        finally:
            berlin.start("b3")
        back = fleet.add("berlin.b3")
        until(lambda: back.running == fleet.new, 90)


def test_the_api_server_restarts_in_mid_rollout_and_nothing_is_done_twice(
    fleet: FleetOnNodes, berlin: RealCluster
) -> None:
    for node in ("b0", "b1", "b2", "b3"):
        fleet.add(f"berlin.{node}")
    with fleet.controller():
        name = fleet.roll_out(waves=[1, 1, "rest"])
        until(lambda: len(fleet.running(fleet.new)) >= 1)
        berlin.kill("kube-apiserver")
        berlin.start("kube-apiserver")
        assert fleet.ended(name).phase == "succeeded"
    assert all(device.ran == [fleet.new.digest] for device in fleet.devices.values())
    said = sentences(fleet, name)
    assert len(said) == len(set(said))


def test_other_writers_of_the_object_cost_conflicts_and_no_more(fleet: FleetOnNodes) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}")
    stop = threading.Event()

    def meddle(name: str) -> None:
        count = 0
        while not stop.wait(0.02):
            fleet.ask(name, f"nothing-{count}")
            count += 1

    with fleet.controller():
        name = fleet.roll_out()
        meddler = threading.Thread(target=meddle, args=(name,))
        meddler.start()
        try:
            assert fleet.ended(name).phase == "succeeded"
        finally:
            stop.set()
            meddler.join()
    said = sentences(fleet, name)
    assert len(said) == len(set(said))


def test_of_two_controllers_one_acts_and_the_other_takes_over(fleet: FleetOnNodes) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}")
    with fleet.controller("one") as first:
        name = fleet.roll_out(waves=[1, 1, "rest"])
        until(lambda: fleet.status(name).controller)
        with fleet.controller("two"):
            until(lambda: len(fleet.running(fleet.new)) >= 1)
            owner = fleet.status(name).controller
            first.set()
            status = fleet.ended(name)
    assert status.phase == "succeeded" and status.controller != owner
    assert all(device.ran == [fleet.new.digest] for device in fleet.devices.values())


def test_a_controller_killed_at_every_step_goes_on_where_it_was(fleet: FleetOnNodes, tmp_path: Path) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}")
    gates = {"min_inferences": 20, "window_s": 2, "timeout_s": 30, "max_p50_ratio": 5, "max_p99_ratio": 50}
    name, log = fleet.roll_out(waves=[1, "rest"], gates=gates), tmp_path / "controller.log"
    seen: set[tuple[str | None, str | None]] = set()
    kills = 0
    while fleet.status(name).phase != "succeeded":
        process = fleet.controller_process(log)
        try:
            # Killed at the first step that no controller was killed in before; at the end by itself.
            until(lambda: (now := step(fleet, name)) not in seen or now[0] == "succeeded", 90)
        finally:
            process.kill()
            process.wait()
        seen.add(step(fleet, name))
        kills += 1
    assert kills >= 4, log.read_text()
    assert all(device.ran == [fleet.new.digest] for device in fleet.devices.values())
    said = sentences(fleet, name)
    assert len(said) == len(set(said))


def step(fleet: FleetOnNodes, name: str) -> tuple[str | None, str | None]:
    status = fleet.status(name)
    return status.phase, status.progress
