"""A whole hub: the command in its own process, real brokers, payloads as the agent writes them."""

from __future__ import annotations

import random
import re
import sqlite3
import subprocess
import sys
import urllib.error
from contextlib import closing
from pathlib import Path

import pytest

from conftest import free_port
from edgewright.mqtt import BrokerSettings
from edgewright.telemetry.histogram import merged
from edgewright.telemetry.window import decode_otlp
from fleet.hub.conftest import Crowd, own_broker, reported, running_hub
from fleet.simulated_device import reference, simulated_fleet

pytestmark = pytest.mark.slow


def value(text: str, name: str, **labels: str) -> float:
    """The one sample of a metric with these labels."""
    found = [
        float(line.rsplit(" ", 1)[1])
        for line in text.splitlines()
        if line.startswith(name + "{") and all(f'{key}="{said}"' in line for key, said in labels.items())
    ]
    assert len(found) == 1, (name, labels, found, text)
    return found[0]


def counted(text: str, result: str = "counted") -> float:
    return value(text, "edgewright_hub_payloads_total", result=result)


def test_a_fleet_s_quantiles_are_those_of_all_its_inferences_together(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path
) -> None:
    rng = random.Random(7)
    with running_hub(mosquitto, fleet, tmp_path) as hub:
        windows = []
        for number in range(20):
            crowd.join(f"d{number}")
            windows += decode_otlp(crowd.measure(f"d{number}", 0.01 * rng.uniform(1, 3)))
        text = hub.until("/metrics", lambda text: counted(text) == 20)
    together = merged(window.latency for window in windows)
    name = "edgewright_inference_duration_recent_seconds"
    for share in ("0.5", "0.9", "0.99"):
        assert value(text, name, quantile=share) == together.quantile(float(share))
    assert value(text, "edgewright_inference_duration_seconds_count") == 2000
    assert value(text, "edgewright_inference_duration_seconds_sum") == pytest.approx(together.total)
    for le, seen in re.findall(r'seconds_bucket\{.*le="([0-9.e-]+)"\} (\d+)', text):
        exact = sum(
            n
            for i, n in together.buckets.items()
            if 2.0 ** ((i + 1) / 2**together.scale) <= float(le) * 1.00001
        )
        assert int(seen) == exact, le
    assert value(text, "edgewright_devices", online="true", phase="committed") == 20
    assert value(text, "edgewright_energy_per_inference_joules") == pytest.approx(0.03)


def test_devices_of_either_broker_are_seen_with_what_they_run(
    broker: BrokerSettings, fleet: str, registry: Path, tmp_path: Path
) -> None:
    old = reference(registry, "1.0.0")
    with simulated_fleet(broker, fleet, 3, old) as devices, running_hub(broker, fleet, tmp_path) as hub:
        hub.until("/metrics", lambda text: counted(text) >= 6)
        page = hub.get("/")
        assert "net:1.0.0" in page and "gateway" in page
        devices[0].lose_power()
        hub.until("/devices?state=offline", lambda text: "/device/d0" in text and "/device/d1" not in text)


def test_what_a_broker_delivers_twice_is_counted_once_and_a_foreign_word_not_at_all(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path
) -> None:
    with running_hub(mosquitto, fleet, tmp_path) as hub:
        crowd.join("d0")
        payload = crowd.measure("d0")
        crowd.send("d0", "metrics", payload)
        crowd.send("d1", "metrics", payload)  # d0's words from d1's mouth
        crowd.send("d0", "metrics", b"\x01 no telemetry")
        crowd.send("<script>", "metrics", payload)
        crowd.send("d1", "reported", reported("d0"))
        text = hub.until("/metrics", lambda text: counted(text, "refused") == 4)
        assert counted(text) == 1
        assert counted(text, "repeated") == 1
        assert value(text, "edgewright_inference_duration_seconds_count") == 100


def test_a_hub_that_is_killed_goes_on_with_what_arrived_meanwhile_and_counts_nothing_twice(
    broker: BrokerSettings, fleet: str, tmp_path: Path
) -> None:
    with closing(Crowd(broker, fleet)) as crowd:
        killed_and_gone_on(broker, fleet, crowd, tmp_path)


def killed_and_gone_on(broker: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path) -> None:
    crowd.join("d0")
    sent = []
    with running_hub(broker, fleet, tmp_path) as hub:
        sent.append(crowd.measure("d0"))
        hub.until("/metrics", lambda text: counted(text) == 1)
        sent.extend(crowd.measure("d0") for _ in range(30))
        hub.kill()
    sent.extend(crowd.measure("d0") for _ in range(30))
    with running_hub(broker, fleet, tmp_path) as hub:
        crowd.send("d0", "metrics", sent[0])  # as a device whose spool was not told would
        last = crowd.measure("d0")
        hub.until("/metrics", lambda text: counted(text, "repeated") >= 1)
        sequence = decode_otlp(last)[0].sequence
        database = sqlite3.connect(hub.store)
        hub.until(
            "/metrics",
            lambda _: database.execute("SELECT max(sequence) FROM window").fetchone()[0] == sequence,
        )
        kept = [row[0] for row in database.execute("SELECT sequence FROM window ORDER BY sequence")]
        database.close()
        assert kept == list(range(62))
        assert "net:1.0.0" in hub.get("/device/d0"), "what it knew of a device is there again"


def test_a_hub_that_goes_in_the_middle_of_its_work_leaves_the_embedded_broker_alive(
    embedded: BrokerSettings, fleet: str, registry: Path, tmp_path: Path
) -> None:
    with simulated_fleet(embedded, fleet, 3, reference(registry, "1.0.0")):
        for ends in (False, True):
            with running_hub(embedded, fleet, tmp_path) as hub:
                hub.until("/metrics", lambda text: counted(text) >= 6)
                if ends:
                    hub.kill()
        with closing(Crowd(embedded, fleet)) as crowd:
            crowd.join("d9")  # which a broker without its router does not answer


def test_two_hubs_share_the_telemetry_and_both_see_every_device(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path
) -> None:
    with (
        running_hub(mosquitto, fleet, tmp_path / "a") as first,
        running_hub(mosquitto, fleet, tmp_path / "b") as second,
    ):
        for number in range(10):
            crowd.join(f"d{number}")
            for _ in range(5):
                crowd.measure(f"d{number}")

        def all_counts() -> list[float]:
            return [counted(hub.get("/metrics")) for hub in (first, second)]

        first.until("/metrics", lambda _: sum(all_counts()) == 50)
        assert min(all_counts()) > 0
        for hub in (first, second):
            hub.until("/metrics", lambda text: value(text, "edgewright_devices", online="true") == 10)


def test_a_hub_that_cannot_write_ends_in_one_line_and_the_broker_keeps_what_came(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path
) -> None:
    with running_hub(mosquitto, fleet, tmp_path) as hub, closing(sqlite3.connect(hub.store)) as database:
        crowd.join("d0")
        crowd.measure("d0")
        hub.until("/metrics", lambda text: counted(text) == 1)
        database.execute(
            "CREATE TRIGGER full BEFORE INSERT ON window BEGIN SELECT RAISE(ABORT, 'no room'); END"
        )
        database.commit()
        for _ in range(3):
            crowd.measure("d0")
        assert hub.process.wait(20) == 2
        assert hub.process.stderr is not None
        said = hub.process.stderr.read()
        assert "no room" in said and said.count("\n") == 1, said
        database.execute("DROP TRIGGER full")
        database.commit()
        with running_hub(mosquitto, fleet, tmp_path) as again:
            again.until("/metrics", lambda text: counted(text) == 3)


def test_a_hub_says_that_its_broker_is_away_and_goes_on_when_it_is_back(fleet: str, tmp_path: Path) -> None:
    port = free_port()
    with own_broker(tmp_path, port) as (settings, stop), running_hub(settings, fleet, tmp_path) as hub:
        assert hub.get("/healthz") == "ok\n"
        with closing(Crowd(settings, fleet)) as crowd:
            crowd.join("d0")
            crowd.measure("d0")
        hub.until("/metrics", lambda text: counted(text) == 1)
        stop()
        hub.until("/metrics", lambda text: value(text, "edgewright_hub_connected") == 0)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            hub.get("/healthz")
        assert "not connected to its broker" in hub.get("/") and "/device/d0" in hub.get("/devices")
        with own_broker(tmp_path, port) as (again, _):
            hub.until("/healthz", lambda text: text == "ok\n")
            with closing(Crowd(again, fleet)) as crowd:
                crowd.join("d1")
                crowd.measure("d1")
            hub.until("/metrics", lambda text: counted(text) == 2)


def test_a_device_that_is_taken_from_the_fleet_is_forgotten(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path
) -> None:
    with running_hub(mosquitto, fleet, tmp_path) as hub:
        crowd.join("d0")
        crowd.join("d1")
        hub.until("/devices", lambda text: "/device/d0" in text and "/device/d1" in text)
        crowd.send("d0", "reported", b"")
        hub.until("/devices", lambda text: "/device/d0" not in text)


def test_single_devices_are_in_the_metrics_only_where_asked_for(
    mosquitto: BrokerSettings, fleet: str, crowd: Crowd, tmp_path: Path
) -> None:
    # On one store, as the broker keeps a hub's share of the telemetry for a while.
    for number, (options, there) in enumerate((((), False), (("--per-device-metrics",), True))):
        with running_hub(mosquitto, fleet, tmp_path, *options) as hub:
            crowd.join(f"d{number}")
            crowd.measure(f"d{number}")
            text = hub.until("/metrics", lambda text: counted(text) == 1)
            assert (f'device="d{number}"' in text) is there


def test_bad_options_are_one_line_and_leave_nothing_behind(fleet: str, tmp_path: Path) -> None:
    for options, problem in (
        (("--broker", "127.0.0.1:1"), "cannot be reached"),
        (("--listen", "0.0.0.0:9464"), "--origin"),
        (("--private",), "--tokens"),
        (("--tokens", str(tmp_path / "missing")), "missing"),
        (("--forward", "collector"), "no OTLP endpoint"),
        (("--listen", "nowhere"), "HOST:PORT"),
    ):
        command = [sys.executable, "-m", "edgewright_cli.main", "fleet", "hub", "--fleet", fleet]
        done = subprocess.run(
            [*command, "--store", str(tmp_path / "s" / "hub.sqlite"), *options],
            capture_output=True,
            text=True,
        )
        assert done.returncode == 2, done
        assert problem in done.stderr and "Traceback" not in done.stderr
