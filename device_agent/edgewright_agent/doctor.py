"""What a person would check on a device that does not do what it should, each with what to do about it.

Every check looks at the real thing (the runtime is imported, the broker is spoken to, every digest of the slots is
computed) and leaves nothing behind. The agent may run meanwhile.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import pwd
import shutil
import tempfile
import time
import uuid
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Literal

from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_artifact, open_release
from edgewright.durable_file import check_writable
from edgewright.errors import EdgewrightError, MissingArtifactError, StorageError
from edgewright.mqtt import connect, disconnect, make_client
from edgewright.runtime.session import RUNTIMES, installed_runtimes
from edgewright_agent.config import AgentConfig
from edgewright_agent.control import ask
from edgewright_agent.heat import Heat
from edgewright_agent.power import find_sensor
from edgewright_agent.sampling_config import SamplingConfig
from edgewright_agent.slots import Slots
from edgewright_agent.trust import LOST
from edgewright_profiles import HardwareProfile, load_profile
from edgewright_profiles.detect import detect

Health = Literal["ok", "warning", "failed"]
LOW_DISK_SHARE = 0.05
"""Of a disk that is left free; below it file systems fragment and logs stop."""
RENEWAL_DUE = timedelta(days=7)
"""Before signatures are out of date: who renews once a week has missed it."""
SYNCHRONISED = "run/systemd/timesync/synchronized"
"""systemd-timesyncd touches it at each synchronisation; other services do not have it."""


@dataclass(frozen=True)
class Finding:
    """What one check saw."""

    check: str
    health: Health
    says: str
    remedy: str | None = None


def examine(config: AgentConfig, *, root: Path = Path("/")) -> list[Finding]:
    """All checks, in the order in which a device depends on them. `root` is where sysfs begins."""
    checks: list[tuple[str, Callable[[], Finding]]] = [
        ("agent", lambda: _agent(config)),
        ("profile", lambda: _profile(config, root)),
        ("runtime", lambda: _runtime(config)),
        ("state folder", lambda: _state_folder(config)),
        ("slots", lambda: _slots(config)),
        ("disk", lambda: _disk(config)),
        ("registry", lambda: _registry(config)),
        ("signatures", lambda: _signatures(config)),
        ("broker", lambda: _broker(config)),
        *([("samples", lambda: _samples(config, sampling))] if (sampling := config.sampling) else []),
        ("clock", lambda: _clock(config, root)),
        ("power sensor", lambda: _power(config, root)),
        ("heat", lambda: _heat(root)),
    ]
    return [_found(name, check) for name, check in checks]


def _found(name: str, check: Callable[[], Finding]) -> Finding:
    try:
        return check()
    except EdgewrightError as error:
        says = f"{error.where}: {error.problem}" if error.where else error.problem
        return Finding(name, "failed", says, error.remedy or None)
    except OSError as error:
        return Finding(name, "failed", f"{error.filename or 'a file'}: {error.strerror or error}")


def _agent(config: AgentConfig) -> Finding:
    answer = ask(config.state_dir, "status")
    if answer is None:
        remedy = "systemctl start edgewright-agent, or 'edgewright agent run'"
        return Finding("agent", "warning", "no agent runs here", remedy)
    return Finding("agent", "ok", f"runs, process {answer['pid']}, {answer['phase']}")


def _profile(config: AgentConfig, root: Path) -> Finding:
    profile, host = load_profile(config.profile), detect(root)
    if host.machine is not None and host.machine != profile.soc.isa:
        says = f"{profile.name} is {profile.soc.isa}, this device is {host.machine}"
        return Finding(
            "profile", "failed", says, "set 'profile'; 'edgewright profile detect' names a candidate"
        )
    if host.matching_profile not in (None, profile.name):
        says = f"set to {profile.name}, but this device looks like {host.matching_profile} ({host.reason})"
        return Finding("profile", "warning", says, f'set profile = "{host.matching_profile}"')
    return Finding("profile", "ok", profile.name)


def _runtime(config: AgentConfig) -> Finding:
    profile = load_profile(config.profile)
    found, missing = [], []
    for model_format in profile.formats:
        runtimes = installed_runtimes(model_format)
        if not runtimes:
            missing.append(RUNTIMES[model_format][0].replace("_", "-"))
            continue
        # A package that is there may still lack a library of the system: only its import tells.
        try:
            importlib.import_module(runtimes[0])
        except (ImportError, OSError, SystemError) as error:
            says = f"{runtimes[0]} cannot be imported ({error})"
            return Finding("runtime", "failed", says, "reinstall it: pip install --force-reinstall")
        found.append(f"{runtimes[0]} {importlib.metadata.version(runtimes[0].replace('_', '-'))}")
    if not found:
        says = f"none for {' or '.join(profile.formats)}"
        return Finding("runtime", "failed", says, f"pip install {missing[0]}")
    return Finding("runtime", "ok", ", ".join(found))


def _state_folder(config: AgentConfig) -> Finding:
    folder = config.state_dir
    check_writable(folder / "probe")
    if not folder.exists():
        return Finding("state folder", "warning", f"{folder} is not there yet", "the agent makes it")
    owner = _user(folder.stat().st_uid)
    if folder.stat().st_mode & 0o002:
        says = f"{folder} may be written by every user"
        return Finding("state folder", "failed", says, f"chmod o-w {folder}")
    if folder.stat().st_uid != os.geteuid():
        says = f"{folder} belongs to {owner}, and this user is {_user(os.geteuid())}"
        return Finding("state folder", "warning", says, f"run the agent as {owner}, or chown the folder")
    return Finding("state folder", "ok", f"{folder}, of {owner}")


def _user(number: int) -> str:
    """A user's name; in a container it may have none."""
    try:
        return pwd.getpwuid(number).pw_name
    except KeyError:
        return f"user {number}"


def _slots(config: AgentConfig) -> Finding:
    if not config.state_dir.exists():
        return Finding("slots", "warning", "nothing was installed yet", "roll a release out to this device")
    slots = Slots.open(config.state_dir)
    if slots.damage is not None:
        return Finding("slots", "failed", slots.damage, "roll a release out to this device anew")
    state = slots.state
    if state.active is None:
        return Finding("slots", "warning", "nothing was installed yet", "roll a release out to this device")
    slots.verify(state.active)
    says = f"{state.active.release} in slot {state.active.slot}, every digest right"
    if state.watching is not None:
        says += ", still watched"
    if state.failure is not None:
        failed = state.failure
        return Finding(
            "slots", "warning", f"{says}; {failed.desired.release} failed: {failed.reason}",
            "mend the release and roll it out as a new version",
        )  # fmt: skip
    return Finding("slots", "ok", says)


def _disk(config: AgentConfig) -> Finding:
    folder = next(p for p in (config.state_dir, *config.state_dir.parents) if p.exists())
    usage = shutil.disk_usage(folder)
    says = f"{usage.free / 1e6:,.0f} MB free of {usage.total / 1e6:,.0f} MB"
    if usage.free < LOW_DISK_SHARE * usage.total:
        return Finding("disk", "warning", says, f"free some space on the disk of {folder}")
    return Finding("disk", "ok", says)


def _registry(config: AgentConfig) -> Finding:
    try:
        layout = Layout.open(config.registry)
    except MissingArtifactError as error:
        remedy = "set 'registry' to what 'edgewright convert --output' wrote, or mount or copy that here"
        return Finding("registry", "failed", f"{config.registry} {error.problem}", remedy)
    profile = load_profile(config.profile)
    names = sorted(layout.names())
    if not names:
        return Finding("registry", "warning", f"{config.registry} holds no release", "copy one into it")
    fitting = [name for name in names if _has_artifact(layout, name, profile)]
    if not fitting:
        says = f"{len(names)} releases, none with an artifact for {profile.name}"
        return Finding("registry", "failed", says, f"convert with --profile {profile.name}")
    return Finding("registry", "ok", f"{len(names)} releases, {len(fitting)} for {profile.name}")


def _has_artifact(layout: Layout, name: str, profile: HardwareProfile) -> bool:
    try:
        open_artifact(layout, open_release(layout, name).choose(profile.name, profile.formats))
    except EdgewrightError:
        return False
    return True


def _signatures(config: AgentConfig) -> Finding:
    if config.trust is None:
        says = "releases are not checked: what the fleet names is taken as the registry has it"
        return Finding(
            "signatures", "warning", says, "set root in [trust] to what 'edgewright trust init' made"
        )
    from edgewright.trust.verify import verify_registry  # in this process of the doctor's own
    from edgewright_agent.trust_process import memory

    with memory(config.state_dir, keep=False) as (known, damage):
        signed = verify_registry(config.registry, root=config.trust.root, known=known)
    says = f"{len(signed.releases)} releases signed, good until {signed.good_until:%Y-%m-%d %H:%M} UTC"
    if damage is not None:
        return Finding("signatures", "warning", f"{says}; {LOST} ({damage})", "the next update mends it")
    if signed.good_until - datetime.now(timezone.utc) < RENEWAL_DUE:
        return Finding("signatures", "warning", says, "'edgewright trust renew' where the keys are")
    return Finding("signatures", "ok", says)


def _broker(config: AgentConfig) -> Finding:
    # A client id of its own: the agent's would throw the agent out.
    client = make_client(config.broker, f"{config.fleet}/{config.device}/doctor-{uuid.uuid4().hex[:8]}")
    started = time.perf_counter()
    connect(client, config.broker)
    took_ms = 1e3 * (time.perf_counter() - started)
    disconnect(client)
    encrypted = config.broker.tls or config.broker.ca_file or config.broker.certificate_file
    says = f"{config.broker} accepts this device in {took_ms:.0f} ms"
    if not encrypted and not config.broker.host.startswith("127.") and config.broker.host != "localhost":
        remedy = "set ca_file, certificate_file and key_file in [broker]"
        return Finding("broker", "warning", f"{says}, without encryption", remedy)
    return Finding("broker", "ok", says)


def _samples(config: AgentConfig, sampling: SamplingConfig) -> Finding:
    if sampling.url is None:
        says = (
            "counted, and none is kept"
            if sampling.store == "nothing"
            else "kept on this device, sent nowhere"
        )
        return Finding("samples", "ok", says)
    # Only here, as most devices keep no samples.
    from edgewright.field_sample import device_folder
    from edgewright.object_store import open_store

    # Credentials that other users may read are an error, as they are to the agent.
    store = open_store(sampling.url, credentials_file=sampling.credentials_file)
    probe = f"{device_folder(config.fleet, config.device)}doctor"
    with tempfile.NamedTemporaryFile() as empty:
        store.put(probe, Path(empty.name))
    with contextlib.suppress(StorageError):  # a device need not be allowed to remove what it sent
        store.delete(probe)
    return Finding("samples", "ok", f"{sampling.url.partition('?')[0]} takes what this device sends")


def _clock(config: AgentConfig, root: Path) -> Finding:
    now = datetime.now(timezone.utc)
    says = now.isoformat(timespec="seconds")
    index = config.registry / "index.json"
    if index.exists() and index.stat().st_mtime > now.timestamp() + 1:
        return Finding("clock", "failed", f"{says}, earlier than the registry's last change", "set the clock")
    if (root / "run/systemd/timesync").exists() and not (root / SYNCHRONISED).exists():
        remedy = "timedatectl set-ntp true; certificates and telemetry depend on the clock"
        return Finding("clock", "warning", f"{says}, not synchronised yet", remedy)
    return Finding("clock", "ok", says)


def _power(config: AgentConfig, root: Path) -> Finding:
    sensor = find_sensor(root)
    if sensor is not None:
        return Finding("power sensor", "ok", f"{sensor.name}, read every {sensor.period_s:g} s")
    zones = list((root / "sys/class/powercap").glob("intel-rapl:*/energy_uj"))
    if zones:
        says = "RAPL is there, but this user may not read it; energy will be absent"
        return Finding("power sensor", "warning", says, f"let the agent's user read {zones[0]} and its like")
    if load_profile(config.profile).no_power_sensor is not None:
        return Finding("power sensor", "ok", "this kind of device has none; energy is absent or estimated")
    return Finding("power sensor", "warning", "none that can be read; energy will be absent")


def _heat(root: Path) -> Finding:
    reading = Heat.find(root).read(time.monotonic())
    if reading.hottest is None:
        return Finding("heat", "warning", "no thermal zone that can be read")
    says = f"{reading.hottest[1]:.0f} °C at {reading.hottest[0]}"
    if reading.throttled:
        says += f", slowed down: {', '.join(reading.reasons)}"
        return Finding("heat", "warning", says, "cool the device; its latencies are not what they should be")
    return Finding("heat", "ok", says)
