"""The hub's page over HTTP: what it shows, whom it obeys, what a hostile device or site can do."""

from __future__ import annotations

import contextlib
import http.client
import re
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import urlencode, urlsplit

import pytest

from conftest import until
from edgewright.artifact.layout import MANIFEST_TYPE, Layout
from edgewright.artifact.release import FORMAT, PROFILE, publish
from edgewright.errors import ConfigError
from edgewright.mqtt import BrokerSettings
from edgewright_fleet.hub.tokens import Tokens, add_token
from edgewright_fleet.rollout.controller import start_rollout
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.store import RolloutStore
from edgewright_fleet.targets.mqtt import MqttTarget
from fleet.hub.conftest import Crowd, RunningHub, reported, running_hub
from fleet.simulated_device import reference, simulated_fleet

HOSTILE = "<img src=x onerror=alert(1)>'\"&</script><script>alert(2)</script>"

pytestmark = pytest.mark.slow


@dataclass
class Night:
    """A hub that watches a fleet with two rollouts: one that failed, one that waits to be stopped."""

    hub: RunningHub
    operator: str
    viewer: str
    tokens: Path
    states: dict[str, Any] = field(default_factory=dict)


@pytest.fixture(scope="module")
def night(mosquitto: BrokerSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Night]:
    folder = tmp_path_factory.mktemp("night")
    layout = Layout.create(folder / "registry")
    for version in ("1.0.0", "1.1.0", "1.2.0"):
        artifact = layout.put(f"net {version}".encode(), MANIFEST_TYPE, {PROFILE: "gateway", FORMAT: "onnx"})
        publish(layout, "net", version, [artifact])
    old, bad = (reference(folder / "registry", version) for version in ("1.0.0", "1.1.0"))
    store, tokens = folder / "rollouts.sqlite", folder / "tokens"
    operator, viewer = add_token(tokens, "anna", "operator"), add_token(tokens, "wall", "viewer")
    options = ("--rollouts", str(store), "--tokens", str(tokens))

    def roll(name: str, version: str, window_s: float) -> Any:
        spec = RolloutSpec.model_validate({
            "name": name, "fleet": "night", "release": f"net:{version}", "registry": folder / "registry",
            "waves": (1, "rest"), "gates": {"min_inferences": 40, "window_s": window_s, "timeout_s": 120.0},
        })  # fmt: skip
        with closing(RolloutStore(store)) as kept, closing(MqttTarget(mosquitto, "night")) as target:
            return start_rollout(spec, target, kept)

    with (
        simulated_fleet(mosquitto, "night", 4, old, broken=bad.digest),
        running_hub(mosquitto, "night", folder, *options) as hub,
    ):
        found = Night(hub, operator, viewer, tokens)
        found.states["bad"] = roll("bad", "1.1.0", 0.3)

        def wait() -> None:
            found.states["long"] = roll("long", "1.2.0", 100.0)

        controller = threading.Thread(target=wait)
        controller.start()
        hub.until("/rollout/long", lambda text: "observing" in text)
        crowd = Crowd(mosquitto, "night")
        crowd.join("hostile")
        crowd.send("hostile", "reported", reported("hostile", phase="failed", reason=HOSTILE, sequence=2))
        hub.until("/devices", lambda text: "/device/hostile" in text)
        yield found
        with closing(RolloutStore(store)) as kept:
            if found.states.get("long") is None:
                kept.request("long", "abort", time.time(), by="the end of the tests")
        controller.join(30)
        crowd.close()


def ask(
    night: Night, method: str, path: str, form: dict[str, str] | None = None, **headers: str
) -> http.client.HTTPResponse:
    address = urlsplit(night.hub.url)
    connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=10)
    sent = {name.replace("_", "-"): value for name, value in headers.items()}
    body = urlencode(form).encode() if form is not None else None
    connection.request(method, path, body, sent)
    answer = connection.getresponse()
    answer.text = answer.read().decode()  # type: ignore[attr-defined]
    connection.close()
    return answer


def log_in(night: Night, token: str) -> tuple[str, str]:
    """(cookie, CSRF token) of a session."""
    answer = ask(night, "POST", "/login", {"token": token}, Origin=night.hub.url)
    assert answer.status == 303
    cookie = answer.headers["Set-Cookie"]
    assert "HttpOnly" in cookie and "SameSite=Strict" in cookie
    value = cookie.partition(";")[0]
    page = ask(night, "GET", "/", Cookie=value).text  # type: ignore[attr-defined]
    return value, re.findall('name="csrf" value="([^"]+)"', page)[0]


def test_what_a_device_says_is_text_and_never_markup(night: Night) -> None:
    for path in ("/devices", "/device/hostile", "/", "/metrics"):
        page = night.hub.get(path)
        assert "<img" not in page and "<script>alert" not in page, path
    assert "&lt;img src=x onerror=alert(1)&gt;" in night.hub.get("/device/hostile")
    for path in ("/devices?" + urlencode({"name": HOSTILE}), f"/device/{HOSTILE.replace(' ', '%20')}"):
        answer = ask(night, "GET", path.replace("<", "%3C").replace(" ", "%20"))
        assert "<img" not in answer.text, path  # type: ignore[attr-defined]


def test_a_rollout_is_shown_with_its_waves_its_evidence_and_its_exposed_devices(night: Night) -> None:
    page = night.hub.get("/rollout/bad")
    assert night.states["bad"].phase == "failed"
    assert "golden check: outputs differ" in page
    assert "1 of 2" in night.hub.get("/rollouts")
    assert "Wave 1" in page and "to come" in page and "evidence" in page
    assert page.count('href="/device/d') == len(night.states["bad"].exposed)
    assert 'edgewright_rollout_exposed_devices{fleet="night",rollout="bad"' in night.hub.get("/metrics")


def test_a_device_s_page_draws_its_measurements_and_tells_its_events(night: Night) -> None:
    page = night.hub.until("/device/d0", lambda text: "polyline" in text)
    assert "Latency" in page and "p99" in page
    assert "committed: runs net:1.0.0" in page


def test_every_answer_carries_the_security_headers(night: Night) -> None:
    for path in ("/", "/metrics", "/static/style.css", "/nowhere", "/device/none", "/healthz"):
        headers = ask(night, "GET", path).headers
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy and "unsafe" not in policy, path
        assert headers["X-Frame-Options"] == "DENY" and headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
    # Nothing in a page needs more than the policy gives.
    page = night.hub.get("/device/d0")
    assert " style=" not in page and "<style" not in page and not re.search(r"<script(?! src)| on\w+=", page)


def test_nobody_changes_anything_without_an_operator_s_token(night: Night) -> None:
    path = "/rollout/long/abort"
    origin = {"Origin": night.hub.url}
    assert ask(night, "POST", path, {}, **origin).status == 401
    assert ask(night, "POST", path, {}, Authorization="Bearer wrong").status == 401
    assert ask(night, "POST", path, {}, Authorization="Basic wrong").status == 403, "no way around the origin"
    assert ask(night, "POST", path, {}, Authorization=f"Bearer {night.viewer}").status == 403
    assert ask(night, "POST", path, {}, Cookie="edgewright-hub=guess", **origin).status == 401
    assert ask(night, "GET", path, Authorization=f"Bearer {night.operator}").status == 404
    cookie, csrf = log_in(night, night.viewer)
    assert ask(night, "POST", path, {"csrf": csrf}, Cookie=cookie, **origin).status == 403
    assert "Abort this rollout" not in ask(night, "GET", "/rollout/long", Cookie=cookie).text  # type: ignore[attr-defined]
    assert ask(night, "POST", "/login", {"token": "wrong"}, **origin).status == 401
    assert "observing" in night.hub.get("/rollout/long")


def test_another_site_cannot_use_an_operator_s_session(night: Night) -> None:
    cookie, csrf = log_in(night, night.operator)
    path = "/rollout/long/abort"
    for form, headers in (
        ({"csrf": csrf}, {"Origin": "https://evil.example"}),
        ({"csrf": csrf}, {"Origin": "null"}),
        ({"csrf": csrf}, {}),
        ({"csrf": "guess"}, {"Origin": night.hub.url}),
        ({}, {"Origin": night.hub.url}),
    ):
        assert ask(night, "POST", path, form, Cookie=cookie, **headers).status == 403, (form, headers)
    # A name that an attacker lets point to this machine.
    assert ask(night, "GET", "/", Host="evil.example").status == 421
    assert (
        ask(night, "POST", "/login", {"token": night.operator}, Origin="https://evil.example").status == 403
    )
    assert "observing" in night.hub.get("/rollout/long")


def test_an_operator_aborts_a_rollout_on_the_page_and_its_controller_obeys(night: Night) -> None:
    cookie, csrf = log_in(night, night.operator)
    assert "Abort this rollout" in ask(night, "GET", "/rollout/long", Cookie=cookie).text  # type: ignore[attr-defined]
    form, origin = {"csrf": csrf}, {"Origin": night.hub.url}
    assert ask(night, "POST", "/rollout/long/abort", form, Cookie=cookie, **origin).status == 303
    until(lambda: "long" in night.states)
    assert night.states["long"].phase == "aborted"
    night.hub.until("/rollout/long", lambda text: "aborted" in text)
    # Once more: it has ended, which is said in a sentence.
    again = ask(night, "POST", "/rollout/long/abort", {}, Authorization=f"Bearer {night.operator}")
    assert again.status == 409 and "ended" in again.text  # type: ignore[attr-defined]
    assert ask(night, "POST", "/logout", form, Cookie=cookie, **origin).status == 303
    assert ask(night, "POST", "/rollout/bad/abort", form, Cookie=cookie, **origin).status == 401


def test_a_token_that_is_taken_out_of_the_file_opens_nothing_any_more(night: Night) -> None:
    token = add_token(night.tokens, "guest", "operator")
    cookie, _ = log_in(night, token)
    assert "guest (operator)" in ask(night, "GET", "/", Cookie=cookie).text  # type: ignore[attr-defined]
    lines = night.tokens.read_text().splitlines(keepends=True)
    night.tokens.write_text("".join(line for line in lines if "guest" not in line))
    assert "guest" not in ask(night, "GET", "/", Cookie=cookie).text  # type: ignore[attr-defined]
    assert token not in night.tokens.read_text()


def test_a_private_hub_shows_nothing_without_a_token(
    mosquitto: BrokerSettings, fleet: str, tmp_path: Path
) -> None:
    viewer = add_token(tmp_path / "tokens", "prometheus", "viewer")
    with running_hub(mosquitto, fleet, tmp_path, "--tokens", str(tmp_path / "tokens"), "--private") as hub:
        night = Night(hub, "", viewer, tmp_path / "tokens")
        assert ask(night, "GET", "/").status == 303
        assert ask(night, "GET", "/device/x").headers["Location"] == "/login"
        assert ask(night, "GET", "/metrics").status == 401
        assert ask(night, "GET", "/metrics", Authorization=f"Bearer {viewer}").status == 200
        assert ask(night, "GET", "/", Authorization=f"Bearer {viewer}").status == 200


def test_a_client_that_sends_rubbish_or_nothing_harms_nobody_else(night: Night) -> None:
    address = urlsplit(night.hub.url)
    silent = [socket.create_connection((address.hostname, address.port)) for _ in range(20)]
    try:
        assert ask(night, "POST", "/login", {"token": "x" * 5000}, Origin=night.hub.url).status == 413
        for path in (
            "/device/%0d%0aSet-Cookie:x=1",
            "/device/../../etc/passwd",
            "/static/../site.py",
            "/%ff",
        ):
            answer = ask(night, "GET", path)
            assert answer.status in (400, 404) and "x=1" not in str(answer.headers), path
        for method in ("PUT", "DELETE", "OPTIONS"):
            answer = ask(night, method, "/")
            assert answer.status == 501 and answer.headers["X-Frame-Options"] == "DENY"
        chunked = ask(night, "POST", "/login", Transfer_Encoding="chunked", Origin=night.hub.url)
        assert chunked.status == 413
        with socket.create_connection((address.hostname, address.port), 5) as smuggler:
            host = f"Host: {address.netloc}\r\n".encode()
            inner = b"GET /devices HTTP/1.1\r\n" + host + b"\r\n"
            smuggler.sendall(
                b"GET /healthz HTTP/1.1\r\n" + host + b"Content-Length: %d\r\n\r\n" % len(inner) + inner
            )
            heard = b""
            with contextlib.suppress(OSError):
                while part := smuggler.recv(65536):
                    heard += part
            assert heard.count(b"HTTP/1.1 ") == 1, heard
        with socket.create_connection((address.hostname, address.port), 5) as rude:
            rude.sendall(b"\x16\x03\x01 this is no HTTP\r\n\r\n")
            assert b"Traceback" not in rude.recv(4096)
        begin = time.monotonic()
        assert night.hub.get("/healthz") == "ok\n"
        assert time.monotonic() - begin < 5
    finally:
        for connection in silent:
            connection.close()


def test_a_file_of_tokens_that_others_may_write_or_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "tokens"
    token = add_token(path, "anna", "operator")
    assert path.stat().st_mode & 0o777 == 0o600
    holder = Tokens(path).holder(token)
    assert holder is not None and holder.may_write
    assert Tokens(path).holder(token[:-1]) is None and Tokens(path).holder("") is None
    with pytest.raises(ConfigError, match="already"):
        add_token(path, "anna", "viewer")
    path.chmod(0o666)
    with pytest.raises(ConfigError, match="chmod 600"):
        Tokens(path)
    path.chmod(0o600)
    path.write_text("operator secret anna\n")
    with pytest.raises(ConfigError, match="line 1"):
        Tokens(path)
