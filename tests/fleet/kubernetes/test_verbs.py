"""The verbs of `edgewright fleet rollout` over a real cluster, as an operator types them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import pytest
import yaml

from edgewright.errors import RolloutError
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.hub.tokens import add_token
from edgewright_fleet.rollout.state import AbortRequested, Decision
from edgewright_fleet.targets.kubernetes import pages
from edgewright_fleet.targets.kubernetes.record import ResourceRecord
from edgewright_fleet.targets.kubernetes.resource import asked_of
from edgewright_fleet.targets.kubernetes.rights import OPERATOR
from edgewright_fleet.targets.kubernetes.store import ResourceStore
from fleet.hub.conftest import running_hub
from fleet.kubernetes.fleet_on_nodes import CONTROLLER, GATES, FleetOnNodes
from fleet.kubernetes.real_cluster import NAMESPACE, RealCluster, until

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


class Operator:
    """A person at a shell, who has the Role of operators and no more; what they begin is deleted afterwards."""

    def __init__(self, cluster: RealCluster, folder: Path) -> None:
        self.cluster, self.folder = cluster, folder
        api, account = cluster.api, {"metadata": {"name": "anna", "namespace": NAMESPACE}}
        rbac = "rbac.authorization.k8s.io"
        binding = {
            "apiVersion": f"{rbac}/v1", "kind": "RoleBinding", **account,
            "roleRef": {"apiGroup": rbac, "kind": "Role", "name": OPERATOR},
            "subjects": [{"kind": "ServiceAccount", **account["metadata"]}],
        }  # fmt: skip
        api.apply(
            api.named("serviceaccounts", "anna"), {"apiVersion": "v1", "kind": "ServiceAccount", **account}
        )
        api.apply(api.named("rolebindings", "anna", api=f"{rbac}/v1"), binding)
        cluster.as_service_account("anna")
        self.config = cluster.config.with_name("anna.kubeconfig")
        self.begun: list[str] = []

    def spec(self, fleet: FleetOnNodes, name: str, **changes: Any) -> Path:
        """A specification as one writes it for either target."""
        given = {
            "name": name,
            "fleet": fleet.name,
            "release": "net:1.1.0",
            "waves": [1, "rest"],
            "gates": GATES,
        }
        path = self.folder / f"{name}.yaml"
        path.write_text(yaml.safe_dump({**given, "max_unavailable": 0.5, **changes}))
        self.begun += [name, f"{name}-revert"]
        return path

    def begins(self, *words: str) -> subprocess.Popen[str]:
        """A command that goes on beside the test."""
        line = [sys.executable, "-m", "edgewright_cli.main", "fleet", "rollout", *words]
        where = ["--kubeconfig", str(self.config), "--context", self.cluster.name]
        return subprocess.Popen(
            [*line, *where], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ.copy()
        )

    def does(self, *words: str) -> tuple[int, str, str]:
        """A command, waited for: exit code, what it printed, what it said on standard error."""
        process = self.begins(*words)
        out, said = process.communicate(timeout=240)
        return process.returncode, out, said

    def reads(self, *words: str) -> Any:
        """What a command prints as JSON."""
        code, out, said = self.does(*words, "--json")
        assert code == 0, said
        return json.loads(out)

    def close(self) -> None:
        path = self.cluster.api.named("modelrollouts", api="edgewright.dev/v1alpha1")
        there = {d["metadata"]["name"] for d in self.cluster.api.get(path)["items"]}
        for name in there & set(self.begun):
            self.cluster.api.delete(f"{path}/{name}")


@pytest.fixture
def operator(berlin: RealCluster, tmp_path: Path) -> Iterator[Operator]:
    made = Operator(berlin, tmp_path)
    yield made
    made.close()


def test_an_operator_starts_pauses_resumes_promotes_and_reverts_with_the_verbs_of_bare_devices(
    fleet: FleetOnNodes, operator: Operator
) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}")
    gates = {**GATES, "window_s": 300, "timeout_s": 600}
    spec = operator.spec(fleet, f"{fleet.name}-night", gates=gates)
    name = spec.stem
    with fleet.controller():
        starting = operator.begins("start", str(spec))
        until(lambda: name in {r["name"] for r in operator.reads("list")})
        until(lambda: fleet.status(name).phase == "observing")
        assert operator.does("pause", name, "--why", "the shop is full")[:2] == (
            0,
            f"asked for pause of {name}\n",
        )
        out, said = starting.communicate(timeout=120)
        assert starting.returncode == 3 and out.startswith(f"{name} paused: paused by ") and "full" in out, (
            said
        )
        assert "wave 1 of 2 begins" in said
        status = operator.reads("status", name)
        assert (status["phase"], len(status["exposed"]), status["controller"]) == ("paused", 1, False)

        resuming = operator.begins("resume", name)
        until(lambda: fleet.status(name).phase == "observing")
        for _ in range(2):
            until(lambda: fleet.status(name).phase in ("observing", "succeeded"))
            code, _, said = operator.does("promote", name, "--why", "tried by hand")
            assert code == 0, said
        out, said = resuming.communicate(timeout=240)
        assert resuming.returncode == 0 and out.startswith(f"{name} succeeded: "), (out, said)
        assert fleet.running(fleet.new) == sorted(fleet.devices)
        code, _, said = operator.does("abort", name)
        assert (code, said.count("\n")) == (2, 1) and "has ended already" in said

        code, out, said = operator.does("revert", name, "--why", "customers complain")
        assert code == 0 and out.startswith(f"{name}-revert succeeded: "), (out, said)
        assert fleet.running(fleet.old) == sorted(fleet.devices)
        # A device that joins now must not get what was taken back.
        late = fleet.add("berlin.b3")
        until(lambda: late.running == fleet.old)
    assert late.ran == []
    code, out, _ = operator.does("watch", f"{name}-revert")
    assert (code, out.split(":")[0]) == (0, f"{name}-revert succeeded")
    for again in (("resume", name), ("revert", name), ("start", str(spec))):
        code, _, said = operator.does(*again)
        assert (code, said.count("\n")) == (2, 1) and "has ended (succeeded)" in said, said
    history = operator.reads("history", name)
    assert history[0]["sentence"].startswith("begun by ") and "@" in history[0]["by"]
    said = [row["sentence"] for row in history]
    for who in ("paused by", "continued by", "promoted by"):
        assert any(who in sentence and "@" in sentence for sentence in said), said
    assert any("the shop is full" in sentence for sentence in said)
    assert sum("tried by hand" in sentence for sentence in said) == 2
    assert "customers complain" in operator.reads("history", f"{name}-revert")[0]["sentence"]
    listed = {row["name"]: row["phase"] for row in operator.reads("list")}
    assert (listed[name], listed[f"{name}-revert"]) == ("succeeded", "succeeded")


def test_the_emergency_stop_is_confirmed_and_where_no_controller_runs_it_says_so_and_is_kept(
    fleet: FleetOnNodes, operator: Operator, berlin: RealCluster
) -> None:
    for node in ("b0", "b1", "b2"):
        fleet.add(f"berlin.{node}")
    gates = {**GATES, "window_s": 300, "timeout_s": 600}
    spec = operator.spec(fleet, f"{fleet.name}-stop", gates=gates)
    name = spec.stem
    with fleet.controller():
        starting = operator.begins("start", str(spec))
        until(lambda: fleet_observes(fleet, name))
    # No controller runs any more, and whoever watches sees the API server go and come.
    berlin.kill("kube-apiserver")
    berlin.start("kube-apiserver")
    code, out, said = operator.does("abort", name, "--why", "smoke", "--json")
    assert (code, json.loads(out)["controller"]) == (3, False) and "no controller" in said
    record = ResourceRecord(berlin.api)
    with pytest.raises(RolloutError, match="about to be aborted"):
        record.ask(name, "promote", by="somebody else")
    asked = asked_of(fleet.document(name))
    assert asked is not None and isinstance(asked[1], AbortRequested) and asked[1].why == "smoke"
    with fleet.controller("another"):
        out, said = starting.communicate(timeout=120)
        assert starting.returncode == 3 and out.startswith(f"{name} aborted: aborted by "), (out, said)
    assert fleet.running(fleet.old) == sorted(fleet.devices)


def test_the_hub_shows_a_cluster_s_rollouts_stops_them_and_goes_on_while_the_cluster_is_away(
    fleet: FleetOnNodes, operator: Operator, berlin: RealCluster, tmp_path: Path
) -> None:
    for node in ("b0", "b1"):
        fleet.add(f"berlin.{node}")
    gates = {**GATES, "window_s": 300, "timeout_s": 600}
    where = ("--kubeconfig", str(operator.config), "--context", berlin.name)
    tokens = tmp_path / "tokens"
    token = add_token(tokens, "anna", "operator")
    with running_hub(fleet.broker, fleet.name, tmp_path, *where, "--tokens", str(tokens)) as hub:
        name = fleet.roll_out(gates=gates)
        hub.until("/rollouts", lambda page: name in page and "waiting" in page)
        with fleet.controller():
            until(lambda: fleet.status(name).phase == "observing")
            page = hub.until(f"/rollout/{name}", lambda page: "observing" in page)
            assert "wave 1 of 2 begins" in page and "berlin.b" in page
            request = Request(
                f"{hub.url}/rollout/{name}/abort", b"", {"Authorization": f"Bearer {token}"}, method="POST"
            )
            with urlopen(request, timeout=10) as answer:
                assert answer.status == 200
            assert fleet.ended(name).phase == "aborted"
        hub.until(f"/rollout/{name}", lambda page: "aborted by anna" in page)
        assert f'rollout="{name}"' in hub.get("/metrics")
        berlin.kill("kube-apiserver")
        try:
            hub.until("/metrics", lambda text: "edgewright_rollout_info" not in text, 30)
            assert "edgewright_hub_connected" in hub.get("/metrics")
            assert "berlin.b0" in hub.get("/devices")
        finally:
            berlin.start("kube-apiserver")


def fleet_observes(fleet: FleetOnNodes, name: str) -> bool:
    there = {d["metadata"]["name"] for d in fleet.documents()}
    return name in there and fleet.status(name).phase == "observing"


def test_mistakes_are_one_line_and_what_waits_or_was_refused_is_listed_as_such(
    fleet: FleetOnNodes, operator: Operator
) -> None:
    fleet.add("berlin.b0")
    unknown = operator.does("status", "no-such-night")
    assert (unknown[0], unknown[2].count("\n")) == (2, 1) and "there are:" in unknown[2]
    refused = operator.spec(fleet, f"{fleet.name}-no", release="net:9.9.9")
    with fleet.controller():
        code, _, said = operator.does("start", str(refused))
        assert (code, said.count("\n")) == (2, 1) and "was refused" in said, said
    waits = operator.spec(fleet, f"{fleet.name}-wait")
    waiting = operator.begins("start", str(waits))
    try:
        until(lambda: waits.stem in {row["name"] for row in operator.reads("list")})
        listed = {row["name"]: row["phase"] for row in operator.reads("list")}
        assert (listed[refused.stem], listed[waits.stem]) == ("refused", "waiting")
        code, _, said = operator.does("pause", waits.stem)
        assert code == 2 and "has not begun" in said
    finally:
        waiting.kill()
        waiting.communicate()
    code, _, said = operator.does("start", str(operator.spec(fleet, waits.stem, max_unavailable=0.3)))
    assert (code, said.count("\n")) == (2, 1) and "another specification" in said


def test_decisions_that_a_status_has_no_room_for_move_to_pages_and_the_history_is_whole(
    fleet: FleetOnNodes, berlin: RealCluster, operator: Operator
) -> None:
    fleet.add("berlin.b0")
    with fleet.controller():
        name = fleet.roll_out(waves=["rest"])
        fleet.ended(name)
    before = [d.sentence for d in fleet.status(name).decisions]
    api = berlin.as_service_account(CONTROLLER)
    store = ResourceStore(api, fleet.registry, "writer", page_bytes=10_000)
    said = [Decision(f"decision {number}", {"devices": ["d" * 100] * 20}) for number in range(40)]
    try:
        store.take_lease(name, "writer", 0.0)
        _, state = store.load(name)
        for number, decision in enumerate(said):
            # As by one that is killed between the page and the status: the next one makes the same page.
            pages.turn_page(api, fleet.document(name), fleet.status(name), 10_000)
            store.save(state, [decision], "writer", float(number))
    finally:
        store.close()
    status = fleet.status(name)
    assert status.pages >= 3 and len(status.model_dump_json(include={"decisions"})) < 40_000
    whole = [row["sentence"] for row in operator.reads("history", name)]
    assert whole == [*before, *(d.sentence for d in said)]
    page = next(
        item for item in berlin.api.get(berlin.api.named("configmaps"))["items"]
        if item["metadata"]["name"].startswith(f"{name}.decisions.")
    )  # fmt: skip
    assert page["immutable"] and page["metadata"]["ownerReferences"][0]["name"] == name
