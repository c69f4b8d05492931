"""Real controller processes that are killed, stopped and started beside each other: devices are told one story."""

from __future__ import annotations

import json
import random
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import pytest
import yaml

from benchmarks.fleet.devices import FLEET, device_name
from conftest import until
from edgewright.contract import from_json, to_json
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.twin import DesiredState, topic
from edgewright_fleet.rollout.store import LEASE_S, RolloutStore
from fleet.simulated_device import reference

pytestmark = pytest.mark.slow
COMMAND = [sys.executable, "-m", "edgewright_cli.main", "fleet", "rollout"]


class Simulator:
    """Many devices in a process of their own, and every wish that the broker was given for one of them."""

    def __init__(self, broker: BrokerSettings, devices: int, registry: Path) -> None:
        release = to_json(reference(registry, "1.0.0")).decode()
        arguments = [str(devices), str(broker.port), "1.0", release]
        self._process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.fleet.devices", *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        self.wishes: dict[str, list[DesiredState | None]] = {device_name(n): [] for n in range(devices)}
        self._client = make_client(broker, "recorder")
        self._client.on_message = self._record
        self._client.on_connect = lambda *_: self._client.subscribe(topic(FLEET, "+", "desired"), qos=1)
        connect(self._client, broker)
        assert until(lambda: self.ask()["connected"] == devices, 60)

    def ask(self) -> dict[str, Any]:
        assert self._process.stdin is not None and self._process.stdout is not None
        self._process.stdin.write("state\n")
        self._process.stdin.flush()
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    def stories(self) -> set[tuple[tuple[str, bool], ...]]:
        """The different wishes that devices were given, in order; the same one told again is no other."""
        found = set()
        for wishes in self.wishes.values():
            story: list[tuple[str, bool]] = []
            for wish in wishes:
                told = (wish.release.version, wish.revert) if wish else ("", False)
                if not story or story[-1] != told:
                    story.append(told)
            found.add(tuple(story))
        return found

    def close(self) -> None:
        disconnect(self._client)
        self._process.terminate()
        self._process.wait(10)

    def _record(self, client: Any, userdata: Any, message: Any) -> None:
        device = message.topic.split("/")[-2]
        wish = from_json(DesiredState, message.payload, where="wish") if message.payload else None
        self.wishes[device].append(wish)


@contextmanager
def simulated(broker: BrokerSettings, devices: int, registry: Path) -> Iterator[Simulator]:
    simulator = Simulator(broker, devices, registry)
    try:
        yield simulator
    finally:
        simulator.close()


def written(folder: Path, registry: Path, **changes: Any) -> Path:
    spec = {
        "name": "r",
        "fleet": FLEET,
        "release": "net:1.1.0",
        "registry": str(registry),
        "waves": [1, "10%", "rest"],
        "gates": {"min_inferences": 50, "window_s": 1.0, "timeout_s": 60.0},
        "max_unavailable": 0.5,
    }
    path = folder / "spec.yaml"
    path.write_text(yaml.safe_dump(spec | changes))
    return path


def start(arguments: list[str]) -> subprocess.Popen[str]:
    return subprocess.Popen([*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def let_the_lease_run_out(database: Path) -> None:
    """At once, in place of a quarter of a minute of waiting."""
    with closing(sqlite3.connect(database)) as db, db:
        db.execute("UPDATE rollout SET lease_until = 0")


def held(database: Path) -> bool:
    if not database.exists():
        return False
    with closing(RolloutStore(database)) as store:
        return "r" in store.names() and store.is_held("r", time.time())


@pytest.mark.parametrize("ends", ["succeeded", "aborted"])
def test_controller_killed_at_random_instants_tells_devices_one_story_and_ends_the_same(
    fresh_mosquitto: BrokerSettings, registry: Path, tmp_path: Path, ends: str
) -> None:
    chance, database = random.Random(ends), tmp_path / "store.sqlite"
    arguments = [
        "start",
        str(written(tmp_path, registry)),
        "--store",
        str(database),
        "--broker",
        str(fresh_mosquitto),
    ]
    with simulated(fresh_mosquitto, 60, registry) as simulator:
        for kill in range(6):
            controller = start(arguments)
            assert until(lambda: held(database) or controller.poll() is not None, 30)  # noqa: B023
            if controller.poll() is not None:  # the one before had come to the end
                controller.communicate()
                break
            if ends == "aborted" and kill == 4:
                asked = subprocess.run(
                    [*COMMAND, "abort", "r", *arguments[2:]], check=False, capture_output=True
                )
                assert asked.returncode == 0, asked.stderr
            time.sleep(chance.uniform(0.0, 3.0))
            controller.send_signal(signal.SIGKILL)
            controller.communicate()
            let_the_lease_run_out(database)
        finished = subprocess.run(
            [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=180
        )
        ended_before = "has ended" in finished.stderr
        assert finished.returncode == (2 if ended_before else 0 if ends == "succeeded" else 3), (
            finished.stderr
        )
        with closing(RolloutStore(database)) as store:
            state, log = store.load("r")[1], store.decisions("r")
        assert state.phase == ends, state.verdict
        version = "1.1.0" if ends == "succeeded" else "1.0.0"
        assert simulator.ask()["running"][reference(registry, version).digest] == 60
        forward, back = ("1.1.0", False), ("1.0.0", True)
        allowed = {(forward,)} if ends == "succeeded" else {(), (forward,), (forward, back)}
        assert simulator.stories() <= allowed
        promotions = [d.sentence for d in log if d.sentence.startswith("promoted")]
        assert len(promotions) == len(set(promotions)), "no decision was taken twice"


def test_two_controllers_that_start_together_do_not_both_act(
    fresh_mosquitto: BrokerSettings, registry: Path, tmp_path: Path
) -> None:
    database = tmp_path / "store.sqlite"
    arguments = [
        "start",
        str(written(tmp_path, registry)),
        "--store",
        str(database),
        "--broker",
        str(fresh_mosquitto),
    ]
    with simulated(fresh_mosquitto, 10, registry) as simulator:
        pair = [start(arguments), start(arguments)]
        ends = sorted((p.communicate(timeout=180)[1], p.returncode) for p in pair)
        assert sorted(code for _, code in ends) == [0, 2], ends
        refused = next(text for text, code in ends if code == 2)
        assert refused.count("\n") == 1
        assert (
            "another controller acts on rollout 'r'" in refused or "there is a rollout 'r' already" in refused
        )
        assert simulator.stories() == {(("1.1.0", False),)}
        with closing(RolloutStore(database)) as store:
            begun = [d for d in store.decisions("r") if d.sentence.startswith("begun")]
        assert len(begun) == 1


def test_controller_that_slept_past_its_lease_finds_another_at_work_and_says_nothing(
    fresh_mosquitto: BrokerSettings, registry: Path, tmp_path: Path
) -> None:
    database = tmp_path / "store.sqlite"
    arguments = [
        "start",
        str(written(tmp_path, registry)),
        "--store",
        str(database),
        "--broker",
        str(fresh_mosquitto),
    ]
    with simulated(fresh_mosquitto, 10, registry) as simulator:
        sleeper = start(arguments)
        assert until(lambda: any(simulator.wishes.values()), 60)
        sleeper.send_signal(signal.SIGSTOP)
        time.sleep(LEASE_S + 1)
        second = subprocess.run(
            [*COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=180
        )
        assert second.returncode == 0, second.stderr
        told = {device: len(wishes) for device, wishes in simulator.wishes.items()}
        sleeper.send_signal(signal.SIGCONT)
        _, said = sleeper.communicate(timeout=60)
        assert sleeper.returncode == 2
        assert "taken over" in said or "another controller" in said or "has ended" in said
        assert {device: len(wishes) for device, wishes in simulator.wishes.items()} == told
        assert simulator.stories() == {(("1.1.0", False),)}
