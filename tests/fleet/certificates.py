"""Certificates for a broker that wants one of whoever connects, made by a real openssl."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest


def make_certificates(folder: Path, *names: str) -> str:
    """`ca`, `broker` and one for each of `names`, as NAME.pem and NAME.key; gives what mosquitto is to be told."""
    if shutil.which("openssl") is None:
        pytest.skip("openssl is not installed")
    key = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "9"]
    signed = ["-CA", "ca.pem", "-CAkey", "ca.key"]
    for name, more in (
        ("ca", ["-addext", "basicConstraints=critical,CA:TRUE"]),
        ("broker", [*signed, "-addext", "subjectAltName=IP:127.0.0.1"]),
        *((name, signed) for name in names),
    ):
        line = ["openssl", "req", "-x509", *key, "-keyout", f"{name}.key", "-out", f"{name}.pem"]
        command = [*line, "-subj", f"/CN={name}", *more]
        subprocess.run(command, cwd=folder, check=True, capture_output=True)
        (folder / f"{name}.key").chmod(0o600)
    tls = f"user root\nrequire_certificate true\ncafile {folder}/ca.pem\n"
    return tls + f"certfile {folder}/broker.pem\nkeyfile {folder}/broker.key\n"
