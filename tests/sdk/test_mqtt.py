"""Settings and credentials of a broker: what is refused in one line, and what is never ignored."""

from __future__ import annotations

import ssl
import subprocess
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.contract import from_mapping
from edgewright.errors import BrokerError, ConfigError
from edgewright.mqtt import BrokerSettings, load_settings, make_client

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,9}", fullmatch=True)


def secret(path: Path, content: bytes = b"s3cret\n", mode: int = 0o600) -> Path:
    path.write_bytes(content)
    path.chmod(mode)
    return path


@pytest.fixture(scope="module")
def pair(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with device.pem and its device.key."""
    folder = tmp_path_factory.mktemp("pair")
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"]
    command += ["-keyout", "device.key", "-out", "device.pem", "-subj", "/CN=line-3", "-days", "9"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    (folder / "device.key").chmod(0o600)
    return folder


@given(names, names, names, names)
def test_two_devices_never_share_a_client_id(fleet: str, device: str, other: str, another: str) -> None:
    def client_id(text: str) -> bytes:
        found: bytes = make_client(BrokerSettings(), text)._client_id
        return found

    one, two = client_id(f"{fleet}/{device}"), client_id(f"{other}/{another}")
    assert (one == two) == ((fleet, device) == (other, another))
    assert b"/" not in one


@pytest.mark.parametrize(
    ("settings", "line"),
    [
        ({"password_file": "p"}, "password_file needs a username"),
        ({"key_file": "k"}, "key_file needs a certificate_file"),
    ],
)
def test_a_setting_that_would_be_ignored_is_refused(settings: dict[str, Any], line: str) -> None:
    with pytest.raises(ConfigError, match=line):
        from_mapping(BrokerSettings, settings, where="agent.toml")


@pytest.mark.parametrize("mode", [0o640, 0o604, 0o666, 0o610])
def test_a_secret_that_others_may_read_is_refused_with_what_to_do(
    mode: int, pair: Path, tmp_path: Path
) -> None:
    password = secret(tmp_path / "password", mode=mode)
    with pytest.raises(
        BrokerError, match=f"password_file is open to .*mode {mode:04o}.*; chmod 600 {password}"
    ):
        make_client(BrokerSettings(username="d", password_file=password), "d")
    key = secret(tmp_path / "key", (pair / "device.key").read_bytes(), mode)
    settings = BrokerSettings(certificate_file=pair / "device.pem", key_file=key)
    with pytest.raises(BrokerError, match=f"chmod 600 {key}"):
        make_client(settings, "d")
    both = secret(tmp_path / "both", key.read_bytes() + (pair / "device.pem").read_bytes(), mode)
    with pytest.raises(BrokerError, match=f"chmod 600 {both}"):
        make_client(BrokerSettings(certificate_file=both), "d")


def test_a_password_is_read_without_its_line_end_and_is_never_in_an_error(tmp_path: Path) -> None:
    password = secret(tmp_path / "password", "gehéim\n".encode())
    client = make_client(BrokerSettings(username="d", password_file=password), "d")
    assert client._password == "gehéim".encode()
    with pytest.raises(BrokerError, match="is not UTF-8 text") as caught:
        make_client(BrokerSettings(username="d", password_file=secret(password, b"\xffhush")), "d")
    assert "hush" not in str(caught.value)


@pytest.mark.parametrize("tls", [{"tls": True}, "certificate", "ca"])
def test_tls_is_on_as_soon_as_anything_asks_for_it(
    tls: Any, pair: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(pair / "device.pem"))  # stands for this host's own list
    given_settings = {
        "certificate": {"certificate_file": pair / "device.pem", "key_file": pair / "device.key"},
        "ca": {"ca_file": pair / "device.pem"},
    }.get(tls if isinstance(tls, str) else "", tls)
    context = make_client(BrokerSettings.model_validate(given_settings), "d")._ssl_context
    assert isinstance(context, ssl.SSLContext)
    assert (context.verify_mode, context.check_hostname) == (ssl.CERT_REQUIRED, True)
    assert context.cert_store_stats()["x509"] == 1
    assert make_client(BrokerSettings(), "d")._ssl_context is None


def test_credentials_that_cannot_be_used_are_named_in_one_line(pair: Path, tmp_path: Path) -> None:
    garbage = secret(tmp_path / "garbage", b"\xff garbage")
    certificate, key, gone = pair / "device.pem", pair / "device.key", tmp_path / "gone"
    encrypted = tmp_path / "encrypted"
    command = ["openssl", "ec", "-in", str(key), "-aes128", "-passout", "pass:x", "-out", str(encrypted)]
    subprocess.run(command, check=True, capture_output=True)
    encrypted.chmod(0o600)
    for settings, line in (
        ({"ca_file": gone}, f"{gone}: ca_file cannot be used"),
        ({"ca_file": garbage}, f"{garbage}: ca_file cannot be used"),
        ({"certificate_file": certificate, "key_file": gone}, f"{gone}: key_file cannot be used"),
        ({"certificate_file": gone, "key_file": key}, f"{gone}: certificate_file or its key_file"),
        ({"certificate_file": certificate, "key_file": garbage}, f"{certificate}: certificate_file or its"),
        ({"certificate_file": certificate, "key_file": encrypted}, f"{certificate}: certificate_file or its"),
        ({"username": "d", "password_file": gone}, f"{gone}: password_file cannot be used"),
        ({"username": "d", "password_file": tmp_path}, f"{tmp_path}: password_file"),
    ):
        with pytest.raises(BrokerError) as caught:
            make_client(BrokerSettings.model_validate(settings), "d")
        assert str(caught.value).startswith(line)
        assert "\n" not in str(caught.value)


def test_broker_file_is_read_with_paths_beside_it_and_mistakes_are_one_line(tmp_path: Path) -> None:
    file = tmp_path / "broker.toml"
    file.write_text(
        'host = "broker.lan"\nport = 8883\nca_file = "ca.pem"\ncertificate_file = "/etc/me.pem"\n'
    )
    settings = load_settings(file)
    assert (settings.host, settings.port) == ("broker.lan", 8883)
    assert (settings.ca_file, settings.certificate_file) == (tmp_path / "ca.pem", Path("/etc/me.pem"))
    for text in ("hots = 'x'\n", "port = 0\n", "not toml", 'key_file = "k"\n', "\0"):
        file.write_text(text)
        with pytest.raises(ConfigError, match=r"broker\.toml") as caught:
            load_settings(file)
        assert "\n" not in str(caught.value)
    with pytest.raises(ConfigError, match="does not exist"):
        load_settings(tmp_path / "none.toml")
