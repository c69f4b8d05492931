"""The objects of a run, against the schemas of Kubernetes and Kubeflow, and the rules that no schema holds."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import kubeflow_trainer_api.models as trainer
import kubernetes_validate
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import from_json, from_mapping, to_json
from edgewright.errors import ClusterError, ConfigError
from edgewright_fleet.retraining.job import TrainingJob
from edgewright_fleet.retraining.kubernetes.backend import connect
from edgewright_fleet.retraining.kubernetes.objects import CODE_BYTES, job_objects, rendered
from edgewright_fleet.retraining.kubernetes.pods import object_name
from edgewright_fleet.retraining.kubernetes.rights import submitter_rights
from edgewright_fleet.retraining.kubernetes.settings import SPOT, KubernetesSettings, Toleration

VERSIONS = [f"1.{minor}" for minor in range(28, 38)]
"""From 1.28, the first that knows every field; what an older one drops is in `test_training_runs`."""
RICH: dict[str, Any] = {
    "gpus": 2, "spot": "aks", "queue": "night", "priority_class": "low", "service_account": "trainer",
    "image_pull_secrets": ("pull",), "node_selector": {"pool": "gpu"}, "ttl_s": 86_400,
    "tolerations": (Toleration(key="team", value="vision", effect="NoSchedule"), Toleration(key="any")),
}  # fmt: skip
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}", fullmatch=True)


def job(**given: Any) -> TrainingJob:
    made: dict[str, Any] = {
        "name": "night-1", "function": "shapes:train", "folder": Path("/edgewright/runs/night-1"),
        "nodes": 4, "processes_per_node": 2,
    }  # fmt: skip
    return TrainingJob(**made | given)


def settings(**given: Any) -> KubernetesSettings:
    return KubernetesSettings(image="registry.example/train:1.0", claim="runs", **given)


def pod_of(document: dict[str, Any]) -> dict[str, Any]:
    return dict(document["spec"]["template"]["spec"])


@pytest.mark.parametrize("version", VERSIONS)
@pytest.mark.parametrize("given_settings", [{}, RICH], ids=["plain", "rich"])
def test_every_object_holds_to_the_schema_of_its_kind(version: str, given_settings: dict[str, Any]) -> None:
    for document in [*job_objects(job(), settings(**given_settings)), *submitter_rights(settings())]:
        kubernetes_validate.validate(document, version, strict=True)


def test_a_schema_would_have_seen_a_misspelt_field_and_a_wrong_type() -> None:
    wrong = {"podFailurPolicy": {}, "completionMode": 1, "suspend": "yes", "podReplacementPolicy": []}
    for field, value in {
        **wrong,
        "podFailurePolicy": {"rules": [{"action": "Ignore", "onExit": {}}]},
    }.items():
        document = job_objects(job(), settings(queue="night"))[-1]
        document["spec"][field] = value
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(document, VERSIONS[-1], strict=True)


def test_what_a_schema_cannot_say_of_a_failure_policy_holds_too() -> None:
    # kubernetes/kubernetes, pkg/apis/batch/validation/validation.go: validatePodFailurePolicy and validateJobSpec
    spec = job_objects(job(), settings())[-1]["spec"]
    assert pod_of({"spec": spec})["restartPolicy"] == "Never" and spec["podReplacementPolicy"] == "Failed"
    assert spec["completionMode"] == "Indexed" and spec["completions"] == spec["parallelism"] == 4
    containers = {container["name"] for container in pod_of({"spec": spec})["containers"]}
    for rule in spec["podFailurePolicy"]["rules"]:
        assert bool(rule.get("onExitCodes")) != bool(rule.get("onPodConditions"))
        if codes := rule.get("onExitCodes"):
            assert codes["values"] == sorted(set(codes["values"])) and 0 not in codes["values"]
            assert codes["containerName"] in containers


def test_a_train_job_and_its_runtime_hold_to_kubeflows_models() -> None:
    models = {
        "TrainJob": trainer.TrainerV1alpha1TrainJob,
        "TrainingRuntime": trainer.TrainerV1alpha1TrainingRuntime,
    }
    config, runtime, run = job_objects(job(), settings(api="trainjob", **RICH))
    for document in (runtime, run):
        # A field that the model does not know would be missing from what it gives back.
        assert models[document["kind"]].from_dict(document).to_dict() == document
    [replicated] = runtime["spec"]["template"]["spec"]["replicatedJobs"]
    inner = replicated["template"]["spec"]
    arguments = pod_of({"spec": inner})["containers"][0]["args"]
    assert "night-1-node-0-0.night-1:29400" in arguments and "completions" not in inner
    plain = job_objects(job(), settings(**RICH))[-1]["spec"]
    assert inner["podFailurePolicy"] == plain["podFailurePolicy"]
    assert config["kind"] == "ConfigMap" and run["spec"]["suspend"]


@given(names, names)
def test_every_run_has_a_host_name_of_its_own(one: str, other: str) -> None:
    made = object_name(job(name=one))
    # RFC 1123, with room for a pod's index.
    assert len(made) <= 50 and made[0].isalpha() and made[-1].isalnum() and made == made.lower()
    assert set(made) <= set("abcdefghijklmnopqrstuvwxyz0123456789-")
    assert (made == object_name(job(name=other))) == (one == other)


@pytest.mark.parametrize("provider", SPOT)
def test_a_spot_run_goes_to_spot_nodes_and_bears_their_taint(provider: Any) -> None:
    pod = pod_of(job_objects(job(), settings(spot=provider))[-1])
    key, value = SPOT[provider]
    assert pod["nodeSelector"] == {key: value}
    assert {"key": key, "operator": "Equal", "value": value, "effect": "NoSchedule"} in pod["tolerations"]


def test_a_run_that_waits_in_a_queue_is_suspended_and_labelled() -> None:
    document = job_objects(job(), settings(queue="night"))[-1]
    assert document["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "night"
    assert document["spec"]["suspend"] is True
    assert "suspend" not in job_objects(job(), settings())[-1]["spec"]


def test_a_pod_has_no_privilege_no_token_and_writes_to_volumes_alone() -> None:
    pod = pod_of(job_objects(job(), settings())[-1])
    [container] = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["seccompProfile"]
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert pod["automountServiceAccountToken"] is False


def test_a_run_on_one_node_needs_no_index_and_no_service() -> None:
    config, document = job_objects(job(nodes=1), settings())
    assert config["kind"] == "ConfigMap"
    assert pod_of(document)["containers"][0]["args"] == ["--job", "/etc/edgewright-job/job.json"]


def test_code_beside_the_submitter_goes_along_with_the_job(tmp_path: Path) -> None:
    (tmp_path / "nets").mkdir()
    (tmp_path / "shapes.py").write_text("from nets import small\n")
    (tmp_path / "nets/small.py").write_text("x = 'größe'\n", encoding="utf-8")
    (tmp_path / "data.bin").write_bytes(b"\0" * 10)
    config, _, document = job_objects(job(code=tmp_path), settings())
    inside = from_json(TrainingJob, config["data"]["job.json"].encode(), where="job.json")
    assert inside == job(code=Path("/etc/edgewright-code"))
    [volume] = [one for one in pod_of(document)["volumes"] if one["name"] == "code"]
    files = {item["path"]: config["data"][item["key"]] for item in volume["configMap"]["items"]}
    assert files == {"nets/small.py": "x = 'größe'\n", "shapes.py": "from nets import small\n"}


def test_code_on_the_volume_stays_there() -> None:
    config, _, document = job_objects(job(code=Path("/edgewright/code")), settings())
    assert list(config["data"]) == ["job.json"]
    assert "code" not in {one["name"] for one in pod_of(document)["volumes"]}


@pytest.mark.parametrize(
    ("given_job", "said"),
    [
        ({"folder": "/home/anna/runs"}, "folder /home/anna/runs is not below /edgewright"),
        ({"folder": "/edgewright/../etc"}, r"folder /edgewright/\.\./etc is not below"),
        ({"weights": "float.safetensors"}, "weights float.safetensors is not below"),
        ({"data": {"train": "digits"}}, "data 'train', digits is not below"),
        ({"code": "nowhere"}, r"nowhere holds no \.py file"),
    ],
)
def test_what_the_pods_would_not_see_is_refused_in_one_line(given_job: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        job_objects(job(**given_job), settings())
    assert "\n" not in str(refused.value)


def test_code_that_does_not_fit_into_a_config_map_is_refused(tmp_path: Path) -> None:
    (tmp_path / "large.py").write_text("#" * (CODE_BYTES + 1))
    with pytest.raises(ConfigError, match="put more into the image or on the volume"):
        job_objects(job(code=tmp_path), settings())


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"memory": "16 GB"}, "memory"), ({"spot": "azure"}, "spot"), ({"claim": "Runs"}, "claim"),
        ({"gpu": 1}, "gpu: no such key"), ({"user": 0}, "user"), ({"ttl_s": 60}, "ttl_s"),
        ({"node_selector": {"a b": "c"}}, "node_selector"),
    ],
)  # fmt: skip
def test_settings_that_do_not_hold_are_refused_in_one_line(wrong: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said) as refused:
        from_mapping(KubernetesSettings, {"image": "i", "claim": "c", **wrong}, where="spec.yaml")
    assert "\n" not in str(refused.value)


def test_settings_and_yaml_come_back_as_they_were() -> None:
    rich = settings(**RICH)
    assert from_json(KubernetesSettings, to_json(rich), where="settings") == rich
    documents = list(yaml.safe_load_all(rendered(job(), rich)))
    assert documents == json.loads(json.dumps(job_objects(job(), rich)))


def test_a_process_that_has_no_cluster_is_told_so_in_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match="kubeconfig: "):
        connect(settings(context="nowhere-to-be-found"))
    monkeypatch.setenv("KUBERNETES_SERVICE_HOST", "127.0.0.1")
    monkeypatch.delenv("KUBECONFIG", raising=False)
    with pytest.raises(ClusterError, match="this process has no service account"):
        connect(settings())
