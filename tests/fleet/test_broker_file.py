"""The fleet's commands at a broker that wants a certificate of whoever connects."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from fleet.conftest import running_mosquitto


@pytest.fixture
def certificates(tmp_path: Path) -> Path:
    """A certificate authority, and certificates of the broker and of an operator."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    for name, more in (
        ("ca", ["-addext", "basicConstraints=critical,CA:TRUE"]),
        ("broker", ["-CA", "ca.pem", "-CAkey", "ca.key", "-addext", "subjectAltName=IP:127.0.0.1"]),
        ("operator", ["-CA", "ca.pem", "-CAkey", "ca.key"]),
    ):
        line = [
            "openssl",
            "req",
            "-x509",
            *key,
            "-keyout",
            f"{name}.key",
            "-out",
            f"{name}.pem",
            "-subj",
            f"/CN={name}",
        ]
        subprocess.run([*line, *more], cwd=tmp_path, check=True, capture_output=True)
        (tmp_path / f"{name}.key").chmod(0o600)
    return tmp_path


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


def test_command_proves_who_it_is_with_the_certificate_of_a_broker_file(certificates: Path) -> None:
    tls = f"user root\nrequire_certificate true\ncafile {certificates}/ca.pem\n"
    tls += f"certfile {certificates}/broker.pem\nkeyfile {certificates}/broker.key\n"
    with running_mosquitto(certificates, tls) as settings:
        file = certificates / "broker.toml"
        who = 'certificate_file = "operator.pem"\nkey_file = "operator.key"\n'
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n{who}')
        admitted = devices(str(file))
        assert (admitted.returncode, admitted.stdout) == (0, "[]\n"), admitted.stderr
        file.write_text(f'port = {settings.port}\nca_file = "ca.pem"\n')
        refused = devices(str(file))
        assert (refused.returncode, refused.stderr.count("\n")) == (2, 1), refused.stderr
    wrong = devices(str(certificates / "none.toml"))
    assert (wrong.returncode, wrong.stderr.count("\n")) == (2, 1)
