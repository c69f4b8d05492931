"""The hub's pages in a real browser: a quiet console, readable on a phone, quick with 10,000 devices."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import pytest

from conftest import until
from edgewright.contract import to_json
from edgewright.mqtt import BrokerSettings
from edgewright.twin import DeviceStatus, Phase, ReleaseReference
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.tokens import add_token
from edgewright_fleet.hub.view import FleetView
from edgewright_fleet.rollout.records import DeviceRecord, Devices
from edgewright_fleet.rollout.spec import RolloutSpec
from edgewright_fleet.rollout.state import AbortRequested, Decision, PauseRequested, RolloutState
from edgewright_fleet.rollout.store import RolloutStore
from fleet.hub.browser import Browser, chromium
from fleet.hub.conftest import Crowd, Payloads, RunningHub, release, reported, running_hub

DEVICES = 10_000
FLEET = "large"
PROFILES = ("raspberry-pi-5", "jetson-orin-nano", "x86-64-gateway", "coral-dev-board")
HOSTILE = "<script>document.title='owned'</script><img src=x onerror=\"document.title='owned'\">"
TEXT = "document.body ? document.body.innerText : ''"  # there is none in the midst of a navigation
pytestmark = pytest.mark.slow


@dataclass
class Large:
    hub: RunningHub
    browser: Browser
    operator: str
    pictures: Path


@pytest.fixture(scope="module")
def large(mosquitto: BrokerSettings, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Large]:
    """A hub of 10,000 devices that has run for an hour, with a rollout on its way, and a browser."""
    folder = tmp_path_factory.mktemp("large")
    pictures = Path(os.environ.get("EDGEWRIGHT_PICTURES", folder / "pictures"))
    pictures.mkdir(parents=True, exist_ok=True)
    names = [f"kiosk-{number:05}" for number in range(DEVICES)]
    _fill(folder / "hub.sqlite", names)
    _roll_out(folder / "rollouts.sqlite", names)
    operator = add_token(folder / "tokens", "anna", "operator")
    options = ("--rollouts", str(folder / "rollouts.sqlite"), "--tokens", str(folder / "tokens"))
    with running_hub(mosquitto, FLEET, folder, *options) as hub, chromium(folder) as browser:
        crowd = Crowd(mosquitto, FLEET)
        for number in range(12):
            crowd.payloads[names[number]] = Payloads(
                FLEET, names[number], profile=PROFILES[number % 4], boot="b2"
            )
            crowd.measure(
                names[number], 0.01 + 0.004 * (number % 4), version="1.0.0" if number < 8 else "2.0.0"
            )
        crowd.close()
        hub.until("/metrics", lambda text: 'result="counted"} 12' in text)
        yield Large(hub, browser, operator, pictures)


def _fill(path: Path, names: list[str]) -> None:
    rng, now_s = random.Random(3), time.time()
    with closing(HubStore(path, FLEET)) as store:
        view = FleetView(FLEET, store.seen)
        changes = []
        for number, name in enumerate(names):
            phase: Phase = (
                "failed" if number % 97 == 0 else "downloading" if number % 41 == 0 else "committed"
            )
            reason = HOSTILE if number == 0 else "golden check: outputs differ" if phase == "failed" else None
            version = "2.0.0" if number % 10 == 0 else "1.0.0"
            changes += view.take(
                name, "reported",
                reported(name, version=version, phase=phase, reason=reason, profile=PROFILES[number % 4]), now_s,
            )  # fmt: skip
            status = to_json(DeviceStatus(online=number % 23 != 0, boot="b1"))
            changes += view.take(name, "status", status, now_s)
        for number in (0, 1, 2):
            device = Payloads(FLEET, names[number], profile=PROFILES[number])
            for minute in range(60):
                payload = device.window(
                    [0.02 * rng.lognormvariate(0, 0.2) for _ in range(60)],
                    energy_j=1.5 + 0.5 * rng.random(), celsius=50 + minute / 6 + rng.random(),
                )  # fmt: skip
                for change in view.take(names[number], "metrics", payload, now_s - 3600 + 60 * minute):
                    changes.append(change)
        store.keep(changes)


def _roll_out(path: Path, names: list[str]) -> None:
    spec = RolloutSpec.model_validate({
        "name": "night-7", "fleet": FLEET, "release": "net:2.0.0", "registry": path.parent,
        "waves": (10, "10%", "rest"),
    })  # fmt: skip
    waves = (tuple(names[:10]), tuple(names[10:1010]), tuple(names[1010:]))
    old = ReleaseReference(name="net", version="1.0.0", digest=release("1.0.0").digest)
    devices = {
        name: DeviceRecord(
            profile=PROFILES[number % 4], online=True, before=old if number < 400 else None,
            stand="committed" if number < 380 else "asked" if number < 400 else "waiting",
            wave=(0 if number < 10 else 1) if number < 400 else None,
        )
        for number, name in enumerate(names)
    }  # fmt: skip
    now_s = time.time()
    state = RolloutState(
        name="night-7",
        release=release("2.0.0"),
        waves=waves,
        devices=Devices.of(devices),
        phase="updating",
        wave=1,
        since_s=now_s,
    )
    with closing(RolloutStore(path)) as store:
        store.create(spec, state)
        store.take_lease("night-7", "someone", now_s)
        sentence = (
            "wave 1 passed the gate: 10 devices passed; kiosk-00003: p50 20.1 ms against 19.8 ms before"
        )
        store.save(
            state, [Decision(sentence, {"p50_before_s": 0.0198, "p50_after_s": 0.0201})], "someone", now_s
        )


PAGES = {
    "map": "/",
    "devices": "/devices",
    "failed": "/devices?state=failed&page=2",
    "device": "/device/kiosk-00001",
    "hostile": "/device/kiosk-00000",
    "rollouts": "/rollouts",
    "rollout": "/rollout/night-7",
    "login": "/login",
}


@pytest.mark.parametrize(("width", "dark"), [(1200, False), (1200, True), (390, False), (390, True)])
def test_every_page_is_quiet_in_the_console_and_fits_the_screen(large: Large, width: int, dark: bool) -> None:
    browser = large.browser
    browser.look(width=width, dark=dark)
    for name, path in PAGES.items():
        browser.problems.clear()
        browser.open(large.hub.url + path)
        browser.picture(large.pictures / f"{name}-{width}-{'dark' if dark else 'light'}.png")
        assert browser.problems == [], (name, browser.problems)
        assert browser.evaluate("document.title") != "owned", name
        assert browser.evaluate("document.documentElement.scrollWidth") <= width, name
        ground = browser.evaluate("getComputedStyle(document.body).backgroundColor")
        assert ground == ("rgb(20, 23, 27)" if dark else "rgb(255, 255, 255)")


def test_first_paint_is_under_a_second_with_10000_devices_and_pages_are_light(large: Large) -> None:
    browser = large.browser
    browser.look(width=1200, dark=False)
    figures = []
    for name, path in PAGES.items():
        paints = []
        for _ in range(3):
            browser.open(large.hub.url + path)
            assert until(
                lambda: bool(
                    browser.evaluate("performance.getEntriesByName('first-contentful-paint').length")
                )
            )
            paints.append(
                browser.evaluate("performance.getEntriesByName('first-contentful-paint')[0].startTime") / 1e3
            )
        weight = browser.evaluate(
            "performance.getEntriesByType('navigation').concat(performance.getEntriesByType('resource'))"
            ".reduce((sum, entry) => sum + entry.decodedBodySize, 0)"
        )
        figures.append(f"{name}: first paint {min(paints):.3f} s, {weight} bytes")
        assert min(paints) < 1.0, (name, paints)
        assert weight < 150_000, (name, weight)
    (large.pictures / "figures.txt").write_text("\n".join(figures))


def test_the_map_counts_every_device_and_a_page_refreshes_itself(large: Large) -> None:
    browser = large.browser
    browser.open(large.hub.url + "/")
    assert browser.evaluate("document.querySelector('.totals b').textContent") == str(DEVICES)
    browser.evaluate("document.getElementById('live').dataset.old = 'yes'")
    browser.settle(6.5)
    assert browser.evaluate("document.getElementById('live').dataset.old || ''") == ""
    assert browser.problems == []


def test_an_operator_logs_in_pauses_and_aborts_a_rollout_and_logs_out(large: Large) -> None:
    browser = large.browser
    browser.look(width=390, dark=False)
    browser.problems.clear()
    browser.open(large.hub.url + "/login")
    browser.evaluate(f"document.querySelector('[name=token]').value = '{large.operator}'; 0")
    browser.evaluate("document.querySelector('.login button').click()")
    assert until(lambda: "anna (operator)" in browser.evaluate(TEXT))
    browser.open(large.hub.url + "/rollout/night-7")
    browser.picture(large.pictures / "operator-390-light.png")
    for number, operation in enumerate(("pause", "abort"), 1):
        browser.evaluate(f"window.confirm = () => true; document.querySelector('button.{operation}').click()")
        with closing(RolloutStore(large.hub.store.parent / "rollouts.sqlite", create=False)) as store:
            assert until(lambda store=store, number=number: len(store.requests("night-7")) == number)
        assert until(
            lambda: bool(
                browser.evaluate(
                    "document.readyState == 'complete' && !!document.querySelector('button.abort')"
                )
            )
        )
    with closing(RolloutStore(large.hub.store.parent / "rollouts.sqlite", create=False)) as store:
        asked = [wish for _, wish in store.requests("night-7")]
    assert [type(wish) for wish in asked] == [PauseRequested, AbortRequested]
    assert {wish.by for wish in asked} == {"anna"}
    assert until(lambda: "night-7" in browser.evaluate("document.title"))
    browser.evaluate("document.querySelector('.who button').click()")
    assert until(lambda: "Log in" in browser.evaluate(TEXT))
    assert browser.problems == []
