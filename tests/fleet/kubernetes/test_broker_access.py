"""How pods prove who they are to a broker: what the manifests say, and real processes that run as they say."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner

from conftest import running_mosquitto, until
from edgewright.errors import BrokerError, ConfigError
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.secret_file import must_be_private
from edgewright_cli.fleet import fleet as fleet_command
from edgewright_fleet.targets.kubernetes.broker_access import BrokerAccess
from edgewright_fleet.targets.kubernetes.installation import Installation
from edgewright_fleet.targets.kubernetes.manifests import render
from fleet.certificates import make_certificates
from fleet.kubernetes.as_pod import lay, run_pod

PASSWORD = "correct horse battery staple"


def strict_broker(folder: Path, *users: str) -> str:
    """What mosquitto is told that wants a certificate and a password; the files of each of `users` beside."""
    tls = make_certificates(folder, *users)
    (folder / "password").write_text(f"{PASSWORD}\n")
    (folder / "password").chmod(0o600)
    if shutil.which("mosquitto_passwd") is None:
        pytest.skip("mosquitto_passwd is not installed")
    known = folder / "known"
    known.touch(mode=0o600)
    for user in users:
        subprocess.run(
            ["mosquitto_passwd", "-b", str(known), user, PASSWORD], check=True, capture_output=True
        )
    return f"{tls}allow_anonymous false\npassword_file {known}\n"


def settings_of(folder: Path, user: str, port: int) -> BrokerSettings:
    return BrokerSettings(
        port=port, ca_file=folder / "ca.pem", certificate_file=folder / f"{user}.pem",
        key_file=folder / f"{user}.key", username=user, password_file=folder / "password",
    )  # fmt: skip


def secret_of(folder: Path, user: str) -> dict[str, bytes]:
    """As `kubectl create secret generic NAME --from-file …` makes it."""
    return {
        name: (folder / name).read_bytes() for name in ("ca.pem", f"{user}.pem", f"{user}.key", "password")
    }


def kind_of(objects: list[dict[str, Any]], kind: str) -> dict[str, Any]:
    return next(document for document in objects if document["kind"] == kind)


def test_no_manifest_holds_a_secret_and_each_kind_of_pod_mounts_the_keys_of_its_own(tmp_path: Path) -> None:
    for user in ("agents", "fleet"):
        (tmp_path / f"{user}.toml").write_text(
            f'host = "mq"\nport = 8883\nusername = "{user}"\npassword_file = "password"\n'
            f'ca_file = "ca.pem"\ncertificate_file = "{user}.pem"\nkey_file = "{user}.key"\n'
        )
    (tmp_path / "password").write_text(PASSWORD)
    arguments = [
        "install",
        "--fleet",
        "kiosks",
        "--cluster",
        "berlin",
        "--image",
        "i",
        "--to",
        str(tmp_path / "m"),
    ]
    arguments += ["--profile", "x86-64-gateway", "--broker", str(tmp_path / "agents.toml")]
    arguments += ["--broker-secret", "kiosks-agents", "--controller-broker", str(tmp_path / "fleet.toml")]
    done = CliRunner().invoke(fleet_command, [*arguments, "--controller-broker-secret", "kiosks-fleet"])
    assert done.exit_code == 0, done.output
    texts = {path.name: path.read_text() for path in (tmp_path / "m").iterdir()}
    assert not any(PASSWORD in text or str(tmp_path) in text for text in texts.values())
    assert PASSWORD not in done.output
    for file, user, mode in (("agents.yaml", "agents", 0o400), ("controller.yaml", "fleet", 0o440)):
        objects = list(yaml.safe_load_all(texts[file]))
        pod = next(d for d in objects if d["kind"] in ("DaemonSet", "Deployment"))["spec"]["template"]["spec"]
        secret = next(v["secret"] for v in pod["volumes"] if v["name"] == "broker")
        assert (secret["secretName"], secret["defaultMode"]) == (f"kiosks-{user}", mode)
        keys = {"ca.pem", f"{user}.key", f"{user}.pem", "password"}
        assert {item["key"] for item in secret["items"]} == keys


@pytest.mark.parametrize(
    ("settings", "secret", "said"),
    [
        ({"ca_file": "/x/ca.pem"}, None, "kubectl create secret generic NAME --from-file=/x/ca.pem"),
        ({}, "s", "is for nothing"),
        ({"ca_file": "/x/a b"}, "s", "can be no key of a Secret"),
        ({"certificate_file": "/x/a", "key_file": "/y/a"}, "s", "would be one key"),
    ],
)
def test_files_without_a_secret_and_secrets_without_files_are_refused(
    settings: dict[str, str], secret: str | None, said: str
) -> None:
    with pytest.raises(ConfigError) as refused:
        BrokerAccess(BrokerSettings.model_validate(settings), secret)
    assert said in str(refused.value) and "\n" not in str(refused.value)


def test_a_file_of_root_is_private_to_the_group_of_a_service_and_to_no_other() -> None:
    if os.geteuid() != 0:
        pytest.skip("needs to be root, to give files away")
    descriptor, name = tempfile.mkstemp()  # in a folder that every user may enter
    os.close(descriptor)
    path = Path(name)

    def takes(mode: int, owner: int, group: int, user: int) -> bool:
        os.chown(path, owner, group)
        path.chmod(mode)
        if (child := os.fork()) == 0:
            os.setgroups([65532] if user else [])
            os.setegid(user)
            os.seteuid(user)
            try:
                must_be_private(path, "key_file", BrokerError)
            except BrokerError:
                os._exit(1)
            os._exit(0)
        return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0

    assert takes(0o600, 0, 0, 0) and takes(0o440, 0, 65532, 65532)
    assert not takes(0o440, 0, 65532, 0)  # to root it is not its own group
    assert not takes(0o460, 0, 65532, 65532)
    assert not takes(0o444, 0, 65532, 65532)
    assert not takes(0o440, 0, 1000, 65532)
    assert not takes(0o440, 1000, 65532, 65532)
    path.unlink()


@pytest.mark.slow
def test_an_agent_reaches_a_broker_that_wants_a_certificate_and_a_password_as_its_daemon_set_says(
    tmp_path: Path, registry: Path
) -> None:
    if os.geteuid() != 0 or shutil.which("setpriv") is None:
        pytest.skip("needs to be root, to mount")
    with running_mosquitto(tmp_path, strict_broker(tmp_path, "agents", "fleet")) as at:
        installation = Installation(
            fleet="kiosks", cluster="berlin", image="i", profiles=("x86-64-gateway",),
            broker=BrokerAccess(settings_of(tmp_path, "agents", at.port), "kiosks-agents"),
        )  # fmt: skip
        objects = render(installation)["agents.yaml"]
        config = {name: text.encode() for name, text in kind_of(objects, "ConfigMap")["data"].items()}
        (tmp_path / "state").mkdir()
        volumes = {
            "config": lay(tmp_path / "config", config, 0o644),
            "broker": lay(tmp_path / "secret", secret_of(tmp_path, "agents"), 0o400),
            "state": tmp_path / "state",
            "registry": registry,
        }
        heard: list[dict[str, Any]] = []
        client = make_client(settings_of(tmp_path, "fleet", at.port), "listener")
        client.on_message = lambda _, __, message: heard.append(json.loads(message.payload))
        connect(client, settings_of(tmp_path, "fleet", at.port))
        client.subscribe("edgewright/v1/kiosks/berlin.n1/status", qos=1)
        pod = kind_of(objects, "DaemonSet")["spec"]["template"]["spec"]
        log = tmp_path / "agent.log"
        agent = run_pod(pod, volumes, {"NODE_NAME": "n1"}, log)
        try:
            assert until(lambda: any(status["online"] for status in heard), 60), log.read_text()
        finally:
            agent.terminate()
            agent.wait(20)
            disconnect(client)
    assert PASSWORD not in log.read_text()
