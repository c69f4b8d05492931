"""What is pure: a node's state, what catches up, the schema, the manifests, and what the command writes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from edgewright.errors import ClusterError, ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright.twin import ReleaseReference
from edgewright_agent.config import load_config
from edgewright_cli.fleet import fleet as fleet_command
from edgewright_fleet.devices import DeviceView
from edgewright_fleet.rollout.catch_up import due
from edgewright_fleet.rollout.maintenance import MaintenanceWindow
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import DeviceRecord, RolloutPhase, RolloutState, Stand
from edgewright_fleet.targets.kubernetes.api import from_kubeconfig
from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess
from edgewright_fleet.targets.kubernetes.install import path_of
from edgewright_fleet.targets.kubernetes.installation import Installation
from edgewright_fleet.targets.kubernetes.manifests import render
from edgewright_fleet.targets.kubernetes.nodes import NodeView, view_nodes
from edgewright_fleet.targets.kubernetes.resource import conditions, definition, spec_of
from fleet.kubernetes.cluster_host import kubeconfig

OLD = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
NEW = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
READY = {"type": "Ready", "status": "True"}


def node(**spec: Any) -> dict[str, Any]:
    metadata = {"name": "n1", "labels": {"edgewright.dev/profile": "gateway"}}
    return {"metadata": metadata, "spec": spec, "status": {"conditions": [READY]}}


def pod(phase: str = "Running", state: dict[str, Any] | None = None, **spec: Any) -> dict[str, Any]:
    status = {
        "phase": phase,
        "conditions": [READY],
        "containerStatuses": [{"state": state or {"running": {}}}],
    }
    labels = {"edgewright.dev/cluster": "berlin"}
    return {"metadata": {"name": "p", "labels": labels}, "spec": {"nodeName": "n1", **spec}, "status": status}


def view(node: dict[str, Any], *pods: dict[str, Any]) -> NodeView:
    [found] = view_nodes("ctx", [node], pods)
    return found


def test_a_node_whose_agent_runs_is_available_and_its_device_is_named_after_both() -> None:
    seen = view(node(), pod())
    assert (seen.device, seen.state, seen.serving) == ("berlin.n1", "available", True)


@pytest.mark.parametrize(
    ("given_node", "pods", "state"),
    [
        (node(unschedulable=True), [pod()], "cordoned"),
        (node(taints=[{"key": "night", "effect": "NoExecute"}]), [pod()], "tainted"),
        (node(taints=[{"key": "night", "effect": "PreferNoSchedule"}]), [pod()], "available"),
        (node(), [], "no agent"),
        (node(), [pod("Pending")], "agent starting"),
        (node(), [pod(state={"waiting": {"reason": "ImagePullBackOff"}})], "agent starting"),
        (node(), [pod(state={"waiting": {"reason": "CrashLoopBackOff"}})], "agent failing"),
        (node() | {"status": {}}, [pod()], "not ready"),
    ],
)
def test_a_node_that_cannot_take_an_update_says_why(
    given_node: dict[str, Any], pods: list[dict[str, Any]], state: str
) -> None:
    assert view(given_node, *pods).state == state


def test_while_a_pod_is_replaced_the_new_one_counts() -> None:
    old = pod()
    old["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
    assert view(node(), old, pod()).state == view(node(), pod(), old).state == "available"
    assert view(node(), old).state == "no agent"


@pytest.mark.parametrize(
    ("toleration", "tolerated"),
    [
        ({"operator": "Exists"}, True),
        ({"key": "night", "operator": "Exists"}, True),
        ({"key": "night", "operator": "Exists", "effect": "NoExecute"}, False),
        ({"key": "night", "value": "yes"}, True),
        ({"key": "night", "value": "no"}, False),
        ({"key": "day", "operator": "Exists"}, False),
    ],
)
def test_a_taint_counts_unless_the_agent_tolerates_it(toleration: dict[str, str], tolerated: bool) -> None:
    tainted = node(taints=[{"key": "night", "value": "yes", "effect": "NoSchedule"}])
    assert view(tainted, pod(tolerations=[toleration])).available is tolerated


def test_a_daemon_sets_own_tolerations_do_not_make_a_lost_node_available() -> None:
    lost = node(taints=[{"key": "node.kubernetes.io/unreachable", "effect": "NoExecute"}])
    assert view(lost, pod(tolerations=[{"operator": "Exists"}])).state == "tainted"


def rollout(phase: RolloutPhase, **stands: Stand) -> tuple[RolloutSpec, RolloutState]:
    spec = RolloutSpec(
        name=f"that-{phase}", fleet="f", release="net:1.1.0", registry=Path("r"), max_unavailable=0.9
    )
    records = {name: DeviceRecord(profile="gateway", stand=stand) for name, stand in stands.items()}
    return spec, RolloutState(
        name=spec.name, release=NEW, waves=(tuple(records),), devices=records, phase=phase, since_s=0.0
    )


def device(name: str, **changes: Any) -> DeviceView:
    had = {"profile": "gateway", "online": True, "phase": "committed", "running": OLD}
    return DeviceView(name, **{**had, **changes})


def told(views: list[DeviceView], *rollouts: tuple[RolloutSpec, RolloutState]) -> list[str]:
    return [wish.device for wish in due({v.device: v for v in views}, rollouts, 0.0)]


def test_a_device_that_was_offline_or_is_new_gets_the_release_of_a_rollout_that_succeeded() -> None:
    done = rollout("succeeded", a="committed", b="censored", c="waiting")
    views = [device("a", running=NEW), device("b"), device("c"), device("new"), device("gone", online=False)]
    assert told(views, done) == ["b", "c", "new"]
    assert told([device("b", phase="proving")], done) == []
    assert told([device("new", profile="raspberry-pi-5")], done) == []


def test_no_device_is_told_a_release_whose_rollout_did_not_succeed() -> None:
    failed = rollout("failed", a="failed", b="waiting")
    assert told([device("a"), device("b"), device("new")], failed) == []
    held = [failed, rollout("succeeded", a="committed", b="committed")]
    assert told([device("a"), device("b"), device("new")], *held) == ["new"]


def test_a_device_that_joins_is_told_only_what_it_would_have_been_chosen_for_and_in_its_window() -> None:
    spec, state = rollout("succeeded", a="committed")
    changed = [
        {"labels": {"site": "north"}}, {"running": ("net:0.9.0",)}, {"devices": ("a",)},
        {"except_devices": ("new",)},
    ]  # fmt: skip
    for change in changed:
        assert told([device("a", running=NEW), device("new")], (spec.model_copy(update=change), state)) == []
    # Unix time begins at midnight in UTC and at one o'clock in Lagos.
    night = MaintenanceWindow(begins="00:30", ends="02:00")
    nightly = spec.model_copy(update={"maintenance": (night,)})
    views = [device("utc"), device("lagos", time_zone="Africa/Lagos")]
    assert told(views, (nightly, state)) == ["lagos"]


@given(st.sampled_from(["baseline", "paused", "succeeded", "failed", "aborted"]), st.booleans())
def test_a_conditions_transition_is_dated_when_its_status_changes_and_only_then(
    phase: RolloutPhase, refused: bool
) -> None:
    first = conditions(None, None, 1, (), 0.0)
    second = conditions(rollout(phase, a="committed")[1], "no" if refused else None, 1, first, 60.0)
    assert conditions(rollout(phase, a="committed")[1], "no" if refused else None, 1, second, 120.0) == second
    for before, after in zip(first, second, strict=True):
        assert (before.last_transition_time == after.last_transition_time) == (before.status == after.status)


def test_every_node_of_the_schema_is_structural() -> None:
    version = definition()["spec"]["versions"][0]

    def check(schema: dict[str, Any]) -> None:
        open_ = schema.get("x-kubernetes-preserve-unknown-fields") or schema.get("x-kubernetes-int-or-string")
        assert "type" in schema or open_
        assert not {"$ref", "anyOf", "oneOf", "allOf", "const", "prefixItems", "title"} & set(schema)
        assert isinstance(schema.get("exclusiveMinimum", False), bool)
        inner = [schema.get("items"), schema.get("additionalProperties")]
        for below in (*schema.get("properties", {}).values(), *inner):
            if isinstance(below, dict):
                check(below)

    check(version["schema"]["openAPIV3Schema"])


def test_an_object_that_brings_its_own_name_or_registry_is_refused() -> None:
    document = {"metadata": {"name": "night"}, "spec": {"fleet": "f", "release": "net:1", "registry": "/x"}}
    with pytest.raises(ConfigError, match="no such key"):
        spec_of(document, Path("r"))


INSTALLATION = Installation(
    fleet="kiosks", cluster="berlin", image="edgewright:1",
    broker=BrokerAccess(BrokerSettings(host="mq", port=8883)), profiles=("raspberry-pi-5", "x86-64-gateway"),
    time_zone="Europe/Berlin",
)  # fmt: skip


def test_an_agents_configuration_is_one_that_an_agent_takes(tmp_path: Path) -> None:
    [config, *_] = render(INSTALLATION)["agents.yaml"]
    path = tmp_path / "agent.toml"
    path.write_text(config["data"]["agent.toml"])
    loaded = load_config(path, "berlin.n1")
    assert (loaded.fleet, loaded.device, loaded.broker.port) == ("kiosks", "berlin.n1", 8883)
    assert (loaded.labels, loaded.time_zone) == ({"cluster": "berlin"}, "Europe/Berlin")


def test_every_manifest_has_a_place_and_no_pod_gets_more_than_it_needs() -> None:
    objects = [document for documents in render(INSTALLATION).values() for document in documents]
    assert len({path_of(document) for document in objects}) == len(objects)
    pods = [d["spec"]["template"]["spec"] for d in objects if d["kind"] in ("DaemonSet", "Deployment")]
    for container in (c for p in pods for c in p["containers"]):
        limits = container["securityContext"]
        assert limits["readOnlyRootFilesystem"] and limits["capabilities"] == {"drop": ["ALL"]}
        assert not limits["allowPrivilegeEscalation"]
    assert all(
        d["spec"]["updateStrategy"] == {"type": "OnDelete"} for d in objects if d["kind"] == "DaemonSet"
    )
    rules = [r for d in objects if d["kind"] in ("Role", "ClusterRole") for r in d["rules"]]
    assert not any("*" in r["verbs"] + r["resources"] + r["apiGroups"] for r in rules)


@pytest.mark.parametrize("version", ["1.28", "1.32", "1.37"])
@pytest.mark.parametrize("secrets", [False, True])
def test_manifests_hold_nothing_that_kubernetes_own_schemas_do_not_know(version: str, secrets: bool) -> None:
    installation = INSTALLATION
    if secrets:
        access = BrokerAccess(BrokerSettings(ca_file=Path("/x/ca.pem")), "kiosks-broker")
        installation = replace(
            installation, broker=access, others=("hamburg",), others_secret="kiosks-clusters"
        )
    for documents in render(installation).values():
        for document in documents:
            kubernetes_validate.validate(document, version, strict=True)


def test_the_command_writes_a_kustomization_over_its_files(tmp_path: Path) -> None:
    arguments = ["install", "--fleet", "kiosks", "--cluster", "berlin", "--image", "edgewright:1"]
    done = CliRunner().invoke(fleet_command, [*arguments, "--to", str(tmp_path)])
    assert done.exit_code == 0, done.output
    named = yaml.safe_load((tmp_path / "kustomization.yaml").read_text())["resources"]
    assert sorted([*named, "kustomization.yaml"]) == sorted(path.name for path in tmp_path.iterdir())
    again = CliRunner().invoke(fleet_command, [*arguments, "--no-controller", "--to", str(tmp_path / "b")])
    assert again.exit_code == 0 and not (tmp_path / "b" / "controller.yaml").exists()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        (["--cluster", "a.b", "--to", "x"], "small letters"),
        (["--cluster", "a"], "give --to FOLDER or --apply"),
        (["--cluster", "a", "--to", "x", "--time-zone", "Mars"], "no time zone"),
        (["--cluster", "a", "--to", "x", "--controller-broker-secret", "s"], "needs --controller-broker"),
        (["--cluster", "a", "--to", "x", "--other-cluster", "b"], "go together"),
        (["--cluster", "a", "--to", "x", "--no-controller", "--controller-broker", "b:1"], "leaves nothing"),
        (["--cluster", "a", "--to", "x", "--broker", "nowhere"], "is no broker"),
    ],
)
def test_bad_options_are_one_line(tmp_path: Path, wrong: list[str], said: str) -> None:
    done = CliRunner().invoke(fleet_command, ["install", "--fleet", "f", "--image", "i", *wrong])
    assert done.exit_code == 2 and said in done.output
    assert not Path("x").exists()


def test_a_kubeconfig_that_cannot_be_used_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "config"
    with pytest.raises(ConfigError, match="cannot be read as a kubeconfig"):
        from_kubeconfig([path], [], "edgewright")
    path.write_text("a: [")
    with pytest.raises(ConfigError, match="cannot be read as a kubeconfig"):
        from_kubeconfig([path], [], "edgewright")
    path.write_text(kubeconfig("berlin", "https://127.0.0.1:1", "t", path))
    with pytest.raises(ConfigError, match="no context 'hamburg'; there are: berlin"):
        from_kubeconfig([path], ["hamburg"], "edgewright")
    [cluster] = from_kubeconfig([path], [], "edgewright")
    with pytest.raises(ClusterError, match="does not answer at https://127"):
        cluster.get("/api/v1/nodes")
