"""Alert rules by promtool, and every query of the dashboard against a real Prometheus that scraped a real hub."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import closing
from importlib import resources
from pathlib import Path
from typing import Any

import pytest

import edgewright_fleet.hub
from conftest import free_port, until
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, PROFILE, publish
from edgewright.mqtt import BrokerSettings
from edgewright.telemetry import names
from edgewright_agent.exporter import model_attributes
from edgewright_fleet.rollout.controller import start_rollout
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.store import RolloutStore
from edgewright_fleet.targets.mqtt import MqttTarget
from fleet.hub.conftest import Crowd, release, running_hub
from fleet.simulated_device import reference, simulated_fleet

SHIPPED = Path(str(resources.files(edgewright_fleet.hub)))

pytestmark = pytest.mark.slow


def program(name: str) -> str:
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"{name} is not installed (Debian package prometheus)")
    return found


def test_each_alert_fires_where_it_should_and_is_quiet_where_it_should_be(tmp_path: Path) -> None:
    promtool = program("promtool")
    shutil.copy(SHIPPED / "alerts.yml", tmp_path)
    shutil.copy(Path(__file__).with_name("alerts.test.yml"), tmp_path)
    done = subprocess.run(
        [promtool, "test", "rules", "alerts.test.yml"], cwd=tmp_path, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_each_alert_is_tested_and_is_about_metrics_that_there_are(scraped: Scraped) -> None:
    rules, tests = (
        (SHIPPED / "alerts.yml").read_text(),
        Path(__file__).with_name("alerts.test.yml").read_text(),
    )
    alerts = re.findall(r"alert: (\w+)", rules)
    assert alerts and all(f"{alert}" in tests for alert in alerts)
    known = scraped.names()
    forwarding = {"edgewright_hub_forward_dropped_total"}
    assert set(re.findall(r"edgewright_\w+", rules)) - forwarding <= known | {"edgewright_rollout_info"}


class Scraped:
    """A Prometheus that holds what a hub of fleet `p` showed for some seconds."""

    def __init__(self, url: str) -> None:
        self.url = url

    def get(self, path: str, **query: str) -> Any:
        address = f"{self.url}/api/v1/{path}?{urllib.parse.urlencode(query)}"
        with urllib.request.urlopen(address, timeout=10) as answer:
            return json.load(answer)["data"]

    def query(self, text: str) -> list[Any]:
        found: list[Any] = self.get("query", query=text)["result"]
        return found

    def names(self) -> set[str]:
        return {name for name in self.get("label/__name__/values") if name.startswith("edgewright")}


@pytest.fixture(scope="module")
def scraped(mosquitto: BrokerSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Scraped]:
    prometheus = program("prometheus")
    folder = tmp_path_factory.mktemp("prometheus")
    registry, store, port = folder / "registry", folder / "rollouts.sqlite", free_port()
    _publish(registry)
    with running_hub(mosquitto, "p", folder, "--rollouts", str(store)) as hub:
        (folder / "prometheus.yml").write_text(
            "global: {scrape_interval: 1s}\n"
            f"rule_files: [{SHIPPED}/alerts.yml]\n"
            f"scrape_configs: [{{job_name: hub, static_configs: [{{targets: ['{hub.url[7:]}']}}]}}]\n"
        )
        process = subprocess.Popen(
            [
                *(prometheus, f"--config.file={folder}/prometheus.yml", f"--storage.tsdb.path={folder}/data"),
                f"--web.listen-address=127.0.0.1:{port}",
            ],
            stderr=subprocess.DEVNULL,
        )
        crowd = Crowd(mosquitto, "p")
        try:
            with simulated_fleet(mosquitto, "p", 2, reference(registry, "1.0.0")):
                _roll_out(mosquitto, registry, store)
                for turn in range(6):
                    for number in range(4):
                        if turn == 0:
                            crowd.join(
                                f"c{number}", profile=("raspberry-pi-5", "jetson-orin-nano")[number % 2]
                            )
                        _measure(crowd, f"c{number}")
                    time.sleep(1.2)
            found = Scraped(f"http://127.0.0.1:{port}")
            assert until(lambda: bool(found.query("edgewright_drift_psi")))
            yield found
        finally:
            crowd.close()
            process.terminate()
            process.wait(20)


def _publish(registry: Path) -> None:
    layout = Layout.create(registry)
    for version in ("1.0.0", "1.1.0"):
        artifact = layout.put(f"net {version}".encode(), MANIFEST_TYPE, {PROFILE: "gateway", FORMAT: "onnx"})
        publish(layout, "net", version, [artifact])


def _roll_out(broker: BrokerSettings, registry: Path, store: Path) -> None:
    gates = {
        "min_inferences": 40,
        "window_s": 0.3,
        "timeout_s": 60.0,
        "max_p50_ratio": 5.0,
        "max_p99_ratio": 9.0,
    }
    spec = RolloutSpec.model_validate(
        {
            "name": "r",
            "fleet": "p",
            "release": "net:1.1.0",
            "registry": registry,
            "waves": (1, "rest"),
            "gates": gates,
        }
    )
    with closing(RolloutStore(store)) as kept, closing(MqttTarget(broker, "p")) as target:
        start_rollout(spec, target, kept)


def _measure(crowd: Crowd, device: str) -> None:
    exporter, model = crowd.payloads[device].exporter, model_attributes(release())
    exporter.set_throttled(True)
    exporter.record(model, 0.05)
    exporter.set_throttled(False)
    sketch = '{"classes":[1,2],"confidence":[0,3],"inputs":{"x":[]},"samples":3}'
    exporter.add(names.DRIFT_SAMPLES, "{inference}", 3, {names.DRIFT_SKETCH: sketch}, model=model)
    exporter.set(names.DRIFT, "1", 0.1, {names.DRIFT_FIGURE: "class_psi"}, model=model)
    crowd.measure(device, errors=1)


def test_every_query_of_the_dashboard_shows_something(scraped: Scraped) -> None:
    dashboard = json.loads((SHIPPED / "dashboard.json").read_text())
    asked = [(p["title"], t["expr"]) for p in dashboard["panels"] for t in p["targets"]]
    assert len(asked) >= 20
    empty = []
    for title, expression in asked:
        text = expression.replace("$fleet", "p").replace("$__rate_interval", "30s")
        assert "$" not in text, text
        if not scraped.query(text):
            empty.append((title, text))
    assert not empty
    fleets = dashboard["templating"]["list"][1]["definition"]
    assert fleets == "label_values(edgewright_hub_connected, fleet)"
    assert scraped.query("edgewright_hub_connected")[0]["metric"]["fleet"] == "p"
    # A panel for each metric: what the hub shows and nobody looks at is not worth its series.
    shown = {re.sub(r"_(bucket|sum|count)$", "", name) for name in scraped.names()}
    unseen = {name for name in shown if name not in json.dumps(dashboard)}
    assert unseen <= {
        "edgewright_energy_joules_total", "edgewright_estimated_energy_joules_total", "edgewright_reports_dropped",
        "edgewright_throttled_seconds_total", "edgewright_rollout_failed_devices",
    }  # fmt: skip


def test_the_rules_load_into_a_real_prometheus(scraped: Scraped) -> None:
    groups = scraped.get("rules")["groups"]
    rules = [rule for group in groups for rule in group["rules"]]
    assert len(rules) >= 15
    assert all(rule["health"] in ("ok", "unknown") for rule in rules), rules


def test_the_histogram_of_buckets_says_what_the_exact_quantiles_say(scraped: Scraped) -> None:
    by_buckets = scraped.query(
        "histogram_quantile(0.5, sum by (le) "
        '(edgewright_inference_duration_seconds_bucket{profile="raspberry-pi-5"}))'
    )
    exact = scraped.query(
        'edgewright_inference_duration_recent_seconds{profile="raspberry-pi-5",quantile="0.5"}'
    )
    assert float(by_buckets[0]["value"][1]) == pytest.approx(float(exact[0]["value"][1]), rel=0.19)


def test_dashboard_panels_do_not_overlap_and_explain_themselves() -> None:
    panels = json.loads((SHIPPED / "dashboard.json").read_text())["panels"]
    taken: set[tuple[int, int]] = set()
    for panel in panels:
        at = panel["gridPos"]
        cells = {(at["x"] + i, at["y"] + j) for i in range(at["w"]) for j in range(at["h"])}
        assert not cells & taken and at["x"] + at["w"] <= 24, panel["title"]
        taken |= cells
        assert panel["description"].endswith("."), panel["title"]
    assert len({panel["id"] for panel in panels}) == len(panels)
