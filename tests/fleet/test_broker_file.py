"""The fleet's commands at a broker that wants a certificate of whoever connects."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from conftest import running_mosquitto
from fleet.certificates import make_certificates


def devices(broker: str) -> subprocess.CompletedProcess[str]:
    line = [
        sys.executable,
        "-m",
        "edgewright_cli.main",
        "fleet",
        "devices",
        "--fleet",
        "f",
        "--broker",
        broker,
    ]
    return subprocess.run([*line, "--json"], check=False, capture_output=True, text=True, timeout=60)


def test_command_proves_who_it_is_with_the_certificate_of_a_broker_file(tmp_path: Path) -> None:
    with running_mosquitto(tmp_path, make_certificates(tmp_path, "operator")) as settings:
        file = tmp_path / "broker.toml"
        who = 'certificate_file = "operator.pem"\nkey_file = "operator.key"\n'
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n{who}')
        admitted = devices(str(file))
        assert (admitted.returncode, admitted.stdout) == (0, "[]\n"), admitted.stderr
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n')
        refused = devices(str(file))
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    wrong = devices(str(tmp_path / "none.toml"))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
