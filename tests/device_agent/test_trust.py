"""A device that pins a root: it takes what is signed, keeps what it has otherwise, and says why."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import pytest

import edgewright_agent.checked_file as checked_file_module
import edgewright_agent.trust as trust_module
import edgewright_agent.update as update_module
from device_agent.updater_at_work import Device, PowerCutError, prove_here
from edgewright.artifact.layout import Layout
from edgewright.trust.repository import Signing, create
from edgewright_agent.trust_process import check

LONG_AGO = datetime.now(timezone.utc) - timedelta(days=60)


class Publisher:
    """Who signs what the registry holds."""

    def __init__(self, registry: Any, keys: Path) -> None:
        self.registry, self.keys = registry, keys
        create(registry.root, keys)

    @property
    def root(self) -> Path:
        return self.keys / "root.json"

    @property
    def signing(self) -> Signing:
        return Signing.open(self.registry.root, [self.keys])

    def release(self, version: str, **how: Any) -> Any:
        """A release that is signed."""
        made = self.registry.release(version, **how)
        self.signing.sign(str(made))
        return made


@pytest.fixture
def publisher(tmp_path: Path, registry: Any) -> Publisher:
    return Publisher(registry, tmp_path / "keys")


@pytest.fixture
def device_here(
    tmp_path: Path, registry: Any, publisher: Any, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Device]:
    """A device with the root pinned, which serves 1.0.0, signed."""
    monkeypatch.setattr(update_module, "prove_in_process_of_its_own", prove_here)
    monkeypatch.setattr(update_module, "WATCH_POLL_S", 0.002)
    one = Device(tmp_path, registry, trust={"root": publisher.root})
    assert one.take(publisher.release("1.0.0"), "first") == "committed"
    yield one
    one.stop()


def refused(device: Device, release: Any, rollout: str) -> str:
    """Why; with what served before serving on, also after a restart."""
    version = device.version
    assert device.take(release, rollout) == "failed"
    assert device.phases == ["downloading", "failed"]
    reason = device.reason
    assert reason is not None
    assert device.version == version
    device.restart()
    assert (device.version, device.reason) == (version, reason)
    return reason


def test_what_nobody_signed_is_refused_and_what_is_signed_later_is_taken(
    device_here: Device, publisher: Any, registry: Any
) -> None:
    unsigned = registry.release("1.1.0")
    reason = refused(device_here, unsigned, "night-1")
    assert reason.startswith("untrusted: ")
    assert reason.endswith("sorter:1.1.0 is not signed; edgewright trust sign")
    publisher.signing.sign("sorter:1.1.0")
    assert device_here.take(unsigned, "night-2") == "committed"
    assert device_here.take(publisher.release("1.2.0"), "night-3") == "committed"
    assert device_here.version == "1.2.0"


@pytest.mark.parametrize("name", ["timestamp.json", "3.snapshot.json", "3.targets.json"])
def test_tampered_metadata_is_refused(device_here: Device, publisher: Any, registry: Any, name: str) -> None:
    wanted = publisher.release("1.1.0")
    path = registry.root / "trust" / name
    path.write_text(path.read_text().replace('"expires":"20', '"expires":"30'))
    assert refused(device_here, wanted, "night").startswith(f"untrusted: {path}: is not signed by the keys")


def test_a_tampered_index_is_refused(device_here: Device, publisher: Any, registry: Any) -> None:
    wanted = publisher.release("1.1.0")
    path = Layout.open(registry.root).path_of(wanted.digest)
    path.write_bytes(path.read_bytes().replace(b"onnx", b"onnY"))
    assert "its digest does not match" in refused(device_here, wanted, "night")


def test_a_device_serves_on_when_signatures_are_out_of_date_and_takes_renewed_ones(
    device_here: Device, publisher: Any
) -> None:
    wanted = publisher.release("1.1.0")
    publisher.signing.renew(now=LONG_AGO)
    reason = refused(device_here, wanted, "night-1")
    assert "untrusted: " in reason and "are out of date" in reason and "edgewright trust renew" in reason
    publisher.signing.renew()
    assert device_here.take(wanted, "night-2") == "committed"


def test_an_older_registry_is_refused_also_after_a_restart(
    device_here: Device, publisher: Any, registry: Any, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(registry.root / "trust", tmp_path / "old"))
    wanted = publisher.release("1.1.0")
    assert device_here.take(wanted, "first") == "committed"
    shutil.rmtree(registry.root / "trust")
    old.rename(registry.root / "trust")
    before = registry.release("1.0.0")
    device_here.restart()
    assert device_here.take(before, "back", revert=True) == "failed"
    assert "is older than what was seen before" in str(device_here.reason)


def test_a_registry_that_is_away_is_not_untrusted_and_the_same_wish_is_taken_when_it_is_back(
    device_here: Device, publisher: Any, registry: Any
) -> None:
    wanted = publisher.release("1.1.0")
    gone = registry.root.rename(registry.root.with_name("gone"))
    assert device_here.take(wanted, "night") == "failed"
    assert device_here.reason == f"{registry.root}: is not a registry folder (no oci-layout file)"
    gone.rename(registry.root)
    assert device_here.take(wanted, "night") == "committed"


def test_a_pinned_root_that_is_gone_lets_the_device_serve_on(device_here: Device, publisher: Any) -> None:
    wanted = publisher.release("1.1.0")
    away = publisher.root.rename(publisher.root.with_name("away.json"))
    assert "the root cannot be read" in refused(device_here, wanted, "night-1")
    away.rename(publisher.root)
    assert device_here.take(wanted, "night-2") == "committed"


def test_a_device_follows_keys_that_were_replaced(
    device_here: Device, publisher: Any, tmp_path: Path
) -> None:
    for role in ("targets", "online", "root"):
        old = next(publisher.keys.glob(f"{role}-*.pem"))
        publisher.signing.rotate(role, publisher.keys)
        old.unlink()
    assert device_here.take(publisher.release("1.1.0"), "night-1") == "committed"


def test_a_device_that_is_given_the_root_of_other_keys_takes_their_releases(
    device_here: Device, publisher: Any, registry: Any
) -> None:
    publisher.signing.rotate("online", publisher.keys)
    assert device_here.take(publisher.release("1.1.0"), "night-1") == "committed"
    for folder in (registry.root / "trust", publisher.keys):
        shutil.rmtree(folder)
    create(registry.root, publisher.keys)
    assert device_here.take(publisher.release("1.2.0"), "night-2") == "committed"


def test_a_check_that_hangs_is_given_up(
    device_here: Device, publisher: Any, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = publisher.release("1.1.0")
    monkeypatch.setattr(trust_module, "CHECK_S", 1.0)
    kept = (registry.root / "trust/timestamp.json").rename(registry.root / "kept")
    os.mkfifo(registry.root / "trust/timestamp.json")
    assert refused(device_here, wanted, "night-1") == "untrusted: the check did not finish within 1 s"
    kept.rename(registry.root / "trust/timestamp.json")
    monkeypatch.setattr(trust_module, "CHECK_S", 60.0)
    assert device_here.take(wanted, "night-2") == "committed"


def flip(path: Path) -> None:
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def test_a_damaged_memory_is_mended_from_its_copy_and_older_metadata_refused_still(
    device_here: Device, publisher: Any, registry: Any, tmp_path: Path
) -> None:
    old = Path(shutil.copytree(registry.root / "trust", tmp_path / "old"))
    state = device_here.config.state_dir
    assert device_here.take(publisher.release("1.1.0"), "night-1") == "committed"
    flip(state / "trusted.json")
    shutil.rmtree(registry.root / "trust")
    old.rename(registry.root / "trust")
    assert device_here.take(registry.release("1.0.0"), "back", revert=True) == "failed"
    assert "is older than what was seen before" in str(device_here.reason)
    assert (state / "trusted.json").read_bytes() == (state / "trusted.copy.json").read_bytes()


def test_a_memory_that_is_lost_is_said_and_made_anew_from_the_pinned_root(
    device_here: Device, publisher: Any, caplog: pytest.LogCaptureFixture
) -> None:
    state = device_here.config.state_dir
    for name in ("trusted.json", "trusted.copy.json"):
        flip(state / name)
    assert device_here.take(publisher.release("1.1.0"), "night-1") == "committed"
    assert "which signatures were seen last is lost" in caplog.text
    caplog.clear()
    assert device_here.take(publisher.release("1.2.0"), "night-2") == "committed"
    assert "is lost" not in caplog.text


@pytest.mark.parametrize("cut", range(3))
def test_a_power_cut_at_any_write_leaves_a_memory_that_can_be_read(
    publisher: Any, registry: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cut: int
) -> None:
    def checked(release: Any) -> Any:
        return check(registry.root, str(release), release.digest, publisher.root, tmp_path)

    assert checked(publisher.release("1.0.0"))["size"] is not None
    wanted, left = publisher.release("1.1.0"), [cut]
    real = checked_file_module.write_durably

    def cut_short(path: Path, data: bytes) -> None:
        if left[0] == 0:
            raise PowerCutError
        left[0] -= 1
        real(path, data)

    with monkeypatch.context() as patch:
        patch.setattr(checked_file_module, "write_durably", cut_short)
        if cut < 2:
            with pytest.raises(PowerCutError):
                checked(wanted)
        else:
            checked(wanted)
    answer = checked(wanted)
    assert (answer["size"] is not None, answer["damage"]) == (True, None)


def command(publisher: Any, release: Any, state: Path) -> list[str]:
    arguments = [str(publisher.registry.root), str(release), release.digest, "--root", str(publisher.root)]
    return [*arguments, "--state", str(state)]


def test_a_check_needs_no_library_for_private_keys(publisher: Any, tmp_path: Path) -> None:
    program = (
        "import sys; sys.modules['cryptography'] = None; "
        "from edgewright_agent.trust_process import main; main(sys.argv[1:])"
    )
    release = publisher.release("1.0.0")
    (tmp_path / "state").mkdir()

    def answer() -> Any:
        run = [sys.executable, "-c", program, *command(publisher, release, tmp_path / "state")]
        return json.loads(subprocess.run(run, capture_output=True, check=True).stdout)

    assert answer()["size"] is not None
    path = publisher.registry.root / "trust/timestamp.json"
    path.write_text(path.read_text().replace('"expires":"20', '"expires":"30'))
    assert "is not signed by the keys" in answer()["says"]


@pytest.mark.slow
def test_a_check_that_is_killed_anywhere_leaves_a_memory_that_can_be_read(
    publisher: Any, tmp_path: Path
) -> None:
    state = tmp_path / "state"
    state.mkdir()
    seeded, begun = random.Random(0), time.monotonic()
    release = publisher.release("1.0.0")
    run = [sys.executable, "-m", "edgewright_agent.trust_process", *command(publisher, release, state)]
    subprocess.run(run, capture_output=True, check=True)
    took_s = time.monotonic() - begun
    for _ in range(20):
        publisher.signing.renew()
        process = subprocess.Popen(run, stdout=subprocess.DEVNULL)
        time.sleep(seeded.uniform(0.3, 1.2) * took_s)
        process.send_signal(signal.SIGKILL)
        process.wait(30)
        answer = check(publisher.registry.root, str(release), release.digest, publisher.root, state)
        assert (answer["size"] is not None, answer["damage"]) == (True, None)
    assert list(state.glob(".trusted*")) == []


@pytest.mark.slow
def test_the_fleet_is_told_that_a_release_is_untrusted_and_the_agent_imports_no_signatures(
    device: Any, fleet: Any, registry: Any, publisher: Any
) -> None:
    device.tables = {"trust": {"root": str(publisher.root)}}
    device.start()
    signed = publisher.release("1.0.0")
    fleet.desire(signed, "first")
    fleet.wait_for_phase("committed", "first")
    unsigned = registry.release("1.1.0")
    fleet.desire(unsigned, "unsigned")
    report = fleet.wait_for_phase("failed", "unsigned")
    assert report.reason.startswith("untrusted: ")
    assert (report.running.release, report.target) == (signed, unsigned)

    publisher.signing.renew()
    tampered = publisher.release("1.2.0")
    (newest,) = (registry.root / "trust").glob("4.targets.json")
    sound = newest.read_text()
    newest.write_text(sound.replace("sorter:1.2.0", "sorter:1.3.0"))
    fleet.desire(tampered, "tampered")
    report = fleet.wait_for_phase("failed", "tampered")
    assert report.reason.startswith(f"untrusted: {newest}: is not signed by the keys")
    assert report.running.release == signed

    newest.write_text(sound)
    fleet.desire(tampered, "mended")
    assert fleet.wait_for_phase("committed", "mended").running.release == tampered

    maps = Path(f"/proc/{device.process.pid}/maps").read_text()
    assert "onnxruntime" in maps
    assert "cryptography" not in maps and "_cffi_backend" not in maps
    assert device.stop() == 0


@pytest.mark.parametrize("how", ["unpinned", "sound", "old", "unsigned", "soon"])
def test_the_doctor_says_whether_signatures_hold(
    device: Any, publisher: Any, registry: Any, how: str
) -> None:
    from edgewright_agent.config import load_config
    from edgewright_agent.doctor import examine

    publisher.release("1.0.0")
    if how != "unpinned":
        device.tables = {"trust": {"root": str(publisher.root)}}
    if how == "old":
        publisher.signing.renew(now=LONG_AGO)
    if how == "soon":
        publisher.signing.renew(days=3)
    if how == "unsigned":
        shutil.rmtree(registry.root / "trust")
    (found,) = [each for each in examine(load_config(device.config)) if each.check == "signatures"]
    health: dict[str, str] = {"unpinned": "warning", "sound": "ok", "old": "failed", "unsigned": "failed"}
    assert found.health == health.get(how, "warning")
    says = {
        "unpinned": "releases are not checked",
        "old": "the signatures are out of date",
        "unsigned": "holds no signatures",
    }
    assert says.get(how, "1 releases signed, good until 20") in found.says
    assert not (device.folder / "state/trusted.json").exists()


def test_a_relative_root_is_beside_the_configuration(device: Any) -> None:
    from edgewright_agent.config import load_config

    device.tables = {"trust": {"root": "root.json"}}
    trust = load_config(device.config).trust
    assert trust is not None and trust.root == device.folder / "root.json"
