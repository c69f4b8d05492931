"""The specification of a retraining: what it means is absolute, what it does not know is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from edgewright.contract import to_json
from edgewright.errors import ConfigError
from edgewright_fleet.retraining.spec import check_files, load_spec
from edgewright_profiles.errors import ProfileError
from fleet.kubernetes.cluster_host import kubeconfig

SMALLEST = {
    "name": "night",
    "fleet": "kiosks",
    "model": "models.vision:net",
    "release": "net",
    "registry": "registry",
    "training": {"function": "models.vision:train"},
    "data": {"training": "train.npz", "evaluation": "test.npz"},
    "conversion": {"profiles": ["raspberry-pi-5"]},
}


def written(path: Path, **changes: object) -> Path:
    path.write_text(yaml.safe_dump(SMALLEST | changes))
    return path


def test_paths_are_relative_to_the_file_and_urls_are_left_alone(tmp_path: Path) -> None:
    data = {"training": "s3://bucket/train", "evaluation": "my.data:batches", "samples": "samples"}
    spec = load_spec(written(tmp_path / "spec.yaml", data=data, promotion={"rollout": "night.yaml"}))
    assert (spec.registry, spec.runs, spec.code) == (tmp_path / "registry", tmp_path / "runs", tmp_path)
    assert spec.promotion.rollout == tmp_path / "night.yaml"
    assert (spec.data.training, spec.data.evaluation) == ("s3://bucket/train", "my.data:batches")
    assert spec.data.samples == str(tmp_path / "samples")
    assert spec.weights is None


def test_keys_are_relative_to_the_file_too(tmp_path: Path) -> None:
    signing = {"keys": ["keys", "/media/usb"], "passphrase_file": "secret"}
    spec = load_spec(written(tmp_path / "spec.yaml", signing=signing))
    assert spec.signing is not None
    assert spec.signing.keys == (tmp_path / "keys", Path("/media/usb"))
    assert spec.signing.passphrase_file == tmp_path / "secret"


def test_what_a_run_keeps_of_it_reads_as_the_same_anywhere(tmp_path: Path) -> None:
    spec = load_spec(written(tmp_path / "spec.yaml"))
    kept = tmp_path / "elsewhere" / "spec.yaml"
    kept.parent.mkdir()
    kept.write_bytes(to_json(spec))
    assert load_spec(kept) == spec


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"epochs": 3}, "epochs: no such key"),
        ({"model": "vision.py"}, "model: String should match"),
        ({"training": {"function": "m:f", "nodes": 0}}, r"training\.nodes: Input should be greater than 0"),
        ({"data": {"training": "train.npz"}}, r"data\.evaluation: Field required"),
        ({"conversion": {"profiles": []}}, r"conversion\.profiles: "),
        ({"training": "vision:train"}, "training: must be keys with values"),
        ({"promotion": {"rollout": "n.yaml", "cluster": {}}}, r"promotion\.cluster: name a `context`"),
        ({"promotion": {"rollout": "n.yaml", "cluster": "berlin"}}, r"promotion\.cluster: must be keys"),
        (
            {"promotion": {"rollout": "n.yaml", "cluster": {"kontext": "b"}}},
            r"promotion\.cluster\.kontext: no such key",
        ),
        ({"promotion": {"rollout": "n.yaml", "store": "r.sqlite"}}, r"promotion\.store: no such key"),
        (
            {"promotion": {"cluster": {"context": "berlin"}}},
            "promotion: .* `rollout`, whose file is not named",
        ),
        ({"promotion": {"start": True}}, "promotion: .* `rollout`, whose file is not named"),
    ],
)
def test_a_mistake_is_one_line_with_its_place(
    tmp_path: Path, changes: dict[str, object], problem: str
) -> None:
    with pytest.raises(ConfigError, match=rf"spec\.yaml: {problem}"):
        load_spec(written(tmp_path / "spec.yaml", **changes))


def test_the_cluster_of_the_rollout_is_looked_for_before_the_training_and_need_not_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("train.npz", "test.npz"):
        (tmp_path / name).touch()
    night = {"name": "night", "fleet": "kiosks", "release": "net:1.0.0", "waves": ["rest"]}
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(night))  # 'registry' is the controller's
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "nowhere"))

    def checked(**cluster: str) -> None:
        promotion = {"rollout": "night.yaml", "start": True, "cluster": cluster}
        check_files(load_spec(written(tmp_path / "spec.yaml", promotion=promotion)))

    with pytest.raises(ConfigError, match="cannot be read as a kubeconfig"):
        checked(context="berlin")
    there = kubeconfig("berlin", "https://127.0.0.1:1", "token", tmp_path / "ca.pem")
    (tmp_path / "ca.pem").touch()
    (tmp_path / "edge.kubeconfig").write_text(there)
    with pytest.raises(ConfigError, match="there is no context 'bonn'; there are: berlin"):
        checked(context="bonn", kubeconfig="edge.kubeconfig")
    checked(context="berlin", kubeconfig="edge.kubeconfig")
    checked(kubeconfig="edge.kubeconfig")
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(night | {"name": "Night_1"}))
    with pytest.raises(ConfigError, match="'Night_1' is no name for an object of Kubernetes"):
        checked(kubeconfig="edge.kubeconfig")


@pytest.mark.parametrize("text", ["", "night", "- night"])
def test_a_file_without_keys_is_one_line_in_plain_words(tmp_path: Path, text: str) -> None:
    (tmp_path / "spec.yaml").write_text(text)
    with pytest.raises(ConfigError, match=r"spec\.yaml: must be keys with values$"):
        load_spec(tmp_path / "spec.yaml")


def test_what_is_needed_after_the_training_is_missed_before_it(tmp_path: Path) -> None:
    def refused(problem: str, **changes: object) -> None:
        with pytest.raises(ConfigError, match=problem):
            check_files(load_spec(written(tmp_path / "spec.yaml", **changes)))

    refused(r"data\.evaluation: .*/test\.npz: no such file")
    (tmp_path / "test.npz").touch()
    refused(r"data\.training: .*/train\.npz: no such file")
    (tmp_path / "train.npz").touch()
    check_files(load_spec(written(tmp_path / "spec.yaml")))
    with pytest.raises(ProfileError, match="did you mean 'raspberry-pi-5'"):
        check_files(load_spec(written(tmp_path / "spec.yaml", conversion={"profiles": ["raspbery-pi-5"]})))
    with pytest.raises(ProfileError, match=rf"{tmp_path}/own\.toml: cannot be read"):
        check_files(load_spec(written(tmp_path / "spec.yaml", conversion={"profiles": ["own.toml"]})))
    refused(r"night\.yaml", promotion={"rollout": "night.yaml"})
    rollout = {
        "name": "n",
        "fleet": "kiosks",
        "release": "net:1.0.0",
        "registry": "registry",
        "waves": ["rest"],
    }
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(rollout | {"gates": {"timeout_s": 1}}))
    refused(r"night\.yaml: gates: timeout_s", promotion={"rollout": "night.yaml"})
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(rollout | {"release": "other:1.0.0"}))
    refused("rolls out 'other', but the candidate is a 'net'", promotion={"rollout": "night.yaml"})
    (tmp_path / "night.yaml").write_text(yaml.safe_dump(rollout))
    check_files(load_spec(written(tmp_path / "spec.yaml", promotion={"rollout": "night.yaml"})))
    cluster = {"backend": "kubernetes", "kubernetes": {"image": "i", "claim": "c"}, "function": "m:f"}
    elsewhere = {"training": "/edgewright/train.npz", "evaluation": "test.npz"}
    check_files(load_spec(written(tmp_path / "spec.yaml", training=cluster, data=elsewhere)))


def test_the_specification_in_the_documents_is_one(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "fleet" / "RETRAINING.md").read_text(encoding="utf-8")
    (tmp_path / "kiosks.yaml").write_text(text.split("```yaml\n")[1].split("```")[0])
    spec = load_spec(tmp_path / "kiosks.yaml")
    assert spec.triggers.drift is not None and spec.promotion.start
