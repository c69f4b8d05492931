"""Whole rollouts over real brokers, with a real store, and controllers that are killed."""

from __future__ import annotations

import json
import os
import signal
import sqlite3
import subprocess
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
import yaml

from conftest import until
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, PROFILE, VERDICT, publish
from edgewright.errors import ArtifactError, RolloutError, TrustError
from edgewright.mqtt import BrokerSettings
from edgewright.trust.repository import Signing, create
from edgewright_fleet.devices import DeviceView
from edgewright_fleet.rollout.controller import first_state, run_rollout, start_rollout
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import Decision, RolloutState
from edgewright_fleet.rollout.store import RolloutStore
from edgewright_fleet.targets.mqtt import MqttTarget
from fleet.simulated_device import reference, simulated_fleet

GATES = {"min_inferences": 40, "window_s": 0.3, "timeout_s": 20.0, "max_p50_ratio": 3.0}


@pytest.fixture
def name() -> str:
    return f"f-{uuid.uuid4().hex[:8]}"


@pytest.fixture
def store(tmp_path: Path) -> Iterator[RolloutStore]:
    with closing(RolloutStore(tmp_path / "store.sqlite")) as opened:
        yield opened


def specification(name: str, registry: Path, /, **changes: Any) -> RolloutSpec:
    document = {
        "name": "r",
        "fleet": name,
        "release": "net:1.1.0",
        "registry": registry,
        "waves": (1, "rest"),
        "gates": GATES,
        "max_unavailable": 0.5,
    }
    return RolloutSpec.model_validate(document | changes)


def test_good_release_reaches_every_device_and_the_next_one_uses_the_same_target(
    broker: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    old, new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
    seen: list[str] = []

    def watch(state: RolloutState, decisions: list[Decision], events: object) -> None:
        seen.extend(decision.sentence for decision in decisions)

    with simulated_fleet(broker, name, 3, old) as devices, closing(MqttTarget(broker, name)) as target:
        state = start_rollout(specification(name, registry), target, store, watch)
        assert state.phase == "succeeded", state.verdict
        assert all(device.running == new for device in devices)
        back = specification(name, registry, name="back", release="net:1.0.0")
        assert start_rollout(back, target, store).phase == "succeeded"
        assert all(device.running == old for device in devices)
    begun, *rest = store.decisions("r")
    assert (
        begun.by is not None
        and "@" in begun.by
        and begun.sentence.startswith(f"begun by {begun.by}: net:1.1.0")
    )
    assert [decision.sentence for decision in rest] == seen
    assert any("passed the gate" in sentence for sentence in seen)


def test_slow_release_reaches_one_device_which_goes_back(
    broker: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    old, new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
    with (
        simulated_fleet(broker, name, 3, old, slow=new.digest) as devices,
        closing(MqttTarget(broker, name)) as target,
    ):
        state = start_rollout(specification(name, registry), target, store)
        assert state.phase == "failed", state.verdict
        assert [device.ran for device in devices] == [[new.digest, old.digest], [], []]
    evidence = store.decisions("r")[-2].evidence
    assert evidence["p50_after_s"] > 3 * evidence["p50_before_s"]


def test_release_that_does_not_install_ends_with_the_device_s_reason(
    embedded: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    old, new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
    with (
        simulated_fleet(embedded, name, 2, old, broken=new.digest),
        closing(MqttTarget(embedded, name)) as target,
    ):
        state = start_rollout(specification(name, registry), target, store)
    assert state.phase == "failed"
    assert "golden check: outputs differ" in str(state.verdict)


def test_device_that_lost_power_is_offline_by_its_last_will_and_left_out(
    embedded: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    with (
        simulated_fleet(embedded, name, 3, reference(registry, "1.0.0")) as devices,
        closing(MqttTarget(embedded, name)) as target,
    ):
        devices[0].lose_power()
        time.sleep(0.5)
        state = start_rollout(specification(name, registry), target, store)
        assert state.phase == "succeeded", state.verdict
        assert state.waves[0] == ("d1",)
        assert "1 were offline" in str(state.verdict)


def test_abort_from_another_process_takes_devices_back(
    embedded: BrokerSettings, name: str, registry: Path, store: RolloutStore, tmp_path: Path
) -> None:
    old = reference(registry, "1.0.0")
    gates = GATES | {"window_s": 15.0}

    def abort() -> None:
        with closing(RolloutStore(tmp_path / "store.sqlite")) as other:
            while "r" not in other.names() or other.load("r")[1].phase != "observing":
                time.sleep(0.05)
            other.request("r", "abort", time.time(), by="me@desk")

    with (
        simulated_fleet(embedded, name, 2, old) as devices,
        closing(MqttTarget(embedded, name)) as target,
    ):
        thread = threading.Timer(1.0, abort)
        thread.start()
        state = start_rollout(specification(name, registry, gates=gates), target, store)
        thread.join()
        assert state.phase == "aborted"
        assert all(device.running == old for device in devices)


def test_mistakes_are_said_before_anything_is_sent(
    embedded: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    with closing(MqttTarget(embedded, name)) as target:
        with pytest.raises(RolloutError, match="no device of fleet"):
            start_rollout(specification(name, registry), target, store)
        with pytest.raises(ArtifactError, match=r"net:9\.9\.9"):
            start_rollout(specification(name, registry, release="net:9.9.9"), target, store)
        assert store.names() == []


def test_release_without_an_artifact_for_a_device_is_refused_before_anything_is_sent(
    name: str, registry: Path
) -> None:
    spec = specification(name, registry)
    with pytest.raises(RolloutError, match="no artifact for a, a toaster"):
        first_state(spec, {"a": DeviceView("a", profile="toaster", online=True)}, 0.0)
    assert first_state(spec, {"a": DeviceView("a", profile="gateway", online=True)}, 0.0).waves == (("a",),)


def test_unsigned_release_is_refused_where_the_registry_signs(
    name: str, registry: Path, tmp_path: Path
) -> None:
    spec, views = specification(name, registry), {"a": DeviceView("a", profile="gateway", online=True)}
    create(registry, tmp_path / "keys")
    with pytest.raises(TrustError, match=r"net:1\.1\.0 is not signed; edgewright trust sign"):
        first_state(spec, views, 0.0)
    Signing.open(registry, [tmp_path / "keys"]).sign("net:1.1.0")
    assert first_state(spec, views, 0.0).waves == (("a",),)


def test_release_that_failed_its_gate_is_refused_before_anything_is_sent(
    broker: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    layout = Layout.open(registry)
    marks = {PROFILE: "gateway", FORMAT: "onnx", VERDICT: "fail"}
    publish(layout, "net", "2.0.0", [layout.put(b"net 2.0.0", MANIFEST_TYPE, marks)])
    old = reference(registry, "1.0.0")
    with simulated_fleet(broker, name, 2, old) as devices, closing(MqttTarget(broker, name)) as target:
        with pytest.raises(RolloutError, match=r"net:2\.0\.0 for gateway \(onnx\) failed its gate"):
            start_rollout(specification(name, registry, release="net:2.0.0"), target, store)
        assert all(device.running == old for device in devices)
        wanted = specification(name, registry, release="net:2.0.0", accept_failed_artifacts=True)
        assert start_rollout(wanted, target, store).phase == "succeeded"


def test_ended_rollout_and_one_that_was_followed_are_not_run_again(
    embedded: BrokerSettings, name: str, registry: Path, store: RolloutStore
) -> None:
    spec = specification(name, registry)
    with (
        simulated_fleet(embedded, name, 1, None),
        closing(MqttTarget(embedded, name)) as target,
    ):
        assert start_rollout(spec, target, store).phase == "succeeded"
        with pytest.raises(RolloutError, match="has ended"):
            start_rollout(spec, target, store)
        with pytest.raises(RolloutError, match="another specification"):
            start_rollout(spec.model_copy(update={"on_failure": "hold"}), target, store)
    _, state = store.load("r")
    for stale in ("stale", "newer"):
        open_spec = spec.model_copy(update={"name": stale})
        store.create(open_spec, state.model_copy(update={"name": stale, "phase": "observing"}))
    with closing(MqttTarget(embedded, name)) as target, pytest.raises(RolloutError, match="'newer'"):
        run_rollout("stale", target, store)


def command(*arguments: str, **options: Any) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "edgewright_cli.main", "fleet", *arguments]
    return subprocess.run(line, capture_output=True, text=True, timeout=60, **options)


@pytest.mark.slow
def test_controller_that_is_killed_at_any_instant_is_gone_on_with(
    embedded: BrokerSettings, name: str, registry: Path, tmp_path: Path
) -> None:
    old, new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
    spec = tmp_path / "spec.yaml"
    document = specification(name, registry, gates=GATES | {"window_s": 2.5}).model_dump(
        mode="json", by_alias=True
    )
    spec.write_text(yaml.safe_dump(document))
    database = tmp_path / "store.sqlite"
    place = ["--store", str(database), "--broker", str(embedded)]
    with simulated_fleet(embedded, name, 4, old) as devices:
        for victim in ("baseline", "updating", "observing"):
            line = [
                sys.executable,
                "-m",
                "edgewright_cli.main",
                "fleet",
                "rollout",
                "start",
                str(spec),
                *place,
            ]
            process = subprocess.Popen(line, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            with closing(RolloutStore(database)) as watched:
                assert until(lambda: "r" in watched.names() and watched.is_held("r", time.time()), 20)
                until(lambda: watched.load("r")[1].phase == victim, 1.0)  # noqa: B023
                process.send_signal(signal.SIGKILL)
                process.wait()
            # Let the lease of the killed one run out at once, in place of a quarter of a minute of waiting.
            with closing(sqlite3.connect(database)) as db, db:
                db.execute("UPDATE rollout SET lease_until = 0")
        finished = command("rollout", "start", str(spec), *place)
        assert finished.returncode == 0, finished.stderr
        assert all(device.running == new for device in devices)
        assert all(device.ran == [new.digest] for device in devices), "nobody was told to go to and fro"

    listed = json.loads(command("rollout", "status", "--store", str(database), "--json").stdout)
    assert [(entry["name"], entry["phase"]) for entry in listed] == [("r", "succeeded")]
    history = json.loads(command("rollout", "history", "r", "--store", str(database), "--json").stdout)
    assert history[-1]["sentence"] == "net:1.1.0 runs on 4 of 4 devices"
    assert all(decision["evidence"] for decision in history)


@pytest.mark.slow
def test_commands_show_a_rollout_that_failed_and_exit_with_three(
    embedded: BrokerSettings, name: str, registry: Path, tmp_path: Path
) -> None:
    old, new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
    spec = tmp_path / "spec.yaml"
    spec.write_text(yaml.safe_dump(specification(name, registry).model_dump(mode="json", by_alias=True)))
    place = ["--store", str(tmp_path / "store.sqlite")]
    with simulated_fleet(embedded, name, 2, old, slow=new.digest):
        started = command("rollout", "start", str(spec), "--broker", str(embedded), *place)
        shown = command("devices", "--fleet", name, "--broker", str(embedded), "--wait", "0.5", "--json")
    assert started.returncode == 3, started.stderr
    assert started.stdout.startswith("r failed: d0: p50 latency")
    assert "stopped in wave 1" in started.stderr
    views = json.loads(shown.stdout)
    assert [(v["device"], v["online"], v["release"]) for v in views] == [
        ("d0", "yes", "net:1.0.0"),
        ("d1", "yes", "net:1.0.0"),
    ]
    assert all(v["p99_s"] > 0 for v in views)
    status = command("rollout", "status", "r", *place)
    assert "reverted" in status.stdout
    refused = command("rollout", "abort", "r", *place)
    assert (refused.returncode, refused.stderr.count("\n")) == (2, 1)
    for bad in (["rollout", "start", str(tmp_path / "none.yaml")], ["rollout", "status", "x", *place]):
        wrong = command(*bad, env=os.environ)
        assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)


def test_operator_pauses_and_promotes_and_reverts_from_another_process(
    embedded: BrokerSettings, name: str, registry: Path, store: RolloutStore, tmp_path: Path
) -> None:
    old, new = reference(registry, "1.0.0"), reference(registry, "1.1.0")
    gates = GATES | {"window_s": 15.0}

    def ask(*words: str) -> None:
        with closing(RolloutStore(tmp_path / "store.sqlite")) as other:
            while "r" not in other.names() or other.load("r")[1].phase != "observing":
                time.sleep(0.05)
        assert command("rollout", *words, "--store", str(tmp_path / "store.sqlite")).returncode == 0

    with simulated_fleet(embedded, name, 2, old) as devices, closing(MqttTarget(embedded, name)) as target:
        pausing = threading.Thread(target=ask, args=("pause", "r", "--why", "the shop is full"))
        pausing.start()
        spec = specification(name, registry, gates=gates)
        state = start_rollout(spec, target, store)
        pausing.join()
        assert (state.phase, state.paused_in) == ("paused", "observing")
        assert str(state.verdict).endswith(": the shop is full")
        # Asked for while no controller ran, it says nothing once somebody resumes.
        ask_again = command("rollout", "pause", "r", "--store", str(tmp_path / "store.sqlite"))
        assert "no controller runs" in ask_again.stderr
        promoting = threading.Thread(target=ask, args=("promote", "r", "--why", "tried by hand"))
        promoting.start()
        began = time.monotonic()
        state = run_rollout("r", target, store)
        promoting.join()
        assert state.phase == "succeeded", state.verdict
        assert time.monotonic() - began < 28, "the first of two waves of 15 s each was cut short"
        assert all(device.running == new for device in devices)
        place = ["--store", str(tmp_path / "store.sqlite"), "--broker", str(embedded)]
        back = command("rollout", "revert", "r", "--why", "customers complain", *place)
        assert back.returncode == 0, back.stderr
        assert all(device.running == old for device in devices)
        watched = command("rollout", "watch", "r-revert", *place[:2])
        assert (watched.returncode, watched.stdout.split(":")[0]) == (0, "r-revert succeeded")
        assert command("rollout", "revert", "r", *place).returncode == 2
    log = store.decisions("r")
    assert any(d.by and "tried by hand" in d.sentence for d in log)
    assert "customers complain" in store.decisions("r-revert")[0].sentence
    listed = json.loads(command("rollout", "list", *place[:2], "--json").stdout)
    assert [(each["name"], each["phase"]) for each in listed] == [
        ("r-revert", "succeeded"),
        ("r", "succeeded"),
    ]
