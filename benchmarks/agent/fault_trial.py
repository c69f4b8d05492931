"""One trial: a device in a known state, a fault while it works, then a start without faults and what it is worth.

Everything happens in processes forked from one that has all imported and no model loaded, on disks in memory.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import random
import re
import shutil
import signal
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.agent import private_mounts
from benchmarks.agent.broker_trial import PHASES, lose_the_broker
from benchmarks.agent.durable_steps import FlushedDisk, kill_this_process, watch_steps
from benchmarks.agent.fault_world import Never, Outcome, Place, Trial, World
from benchmarks.agent.faulty_device import Health, half_written, inspect, leave, start, take
from benchmarks.mosquitto import MOSQUITTO
from edgewright.active_slot import POINTER
from edgewright.errors import EdgewrightError

AT_ONCE = ("disk full", "clock set back", "registry damaged")
"""Kinds that are there from the beginning."""
KEPT = b"k"
Strike = Callable[[int, str], None]


def run_trial(world: World, trial: Trial) -> Outcome:
    """Run a trial in the calling process, which is its own and of no use afterwards."""
    try:
        place = Place(world, trial)
    except PermissionError as error:
        return Outcome(trial, None, f"skipped: {error}", struck=False)
    chance = random.Random(trial.seed)
    struck, problem, allowed = True, None, world.legitimate(trial.before)
    if trial.kind in ("bit flipped", "file truncated"):
        damaged = damage(place.state, chance, truncate=trial.kind == "file truncated")
        # Of the slot that serves: with two the other does, with one nothing may, with a reason. Else all is well.
        allowed = {"1.1.0"} if trial.before == "two" else {"1.0.0"}
        if damaged.parts[0] == ("b" if trial.before == "two" else "a"):
            allowed |= {"1.0.0"} if trial.before == "two" else {None}
    elif trial.kind == "registry damaged":
        damage(place.registry, chance, truncate=chance.random() < 0.5, files=world.blobs)
        problem, struck, _ = device_with_fault(world, trial, place, chance)
    elif trial.kind == "broker gone" and MOSQUITTO is None:
        return Outcome(trial, None, "skipped: mosquitto is not installed", struck=False)
    elif trial.kind == "broker gone":
        phase = PHASES[trial.step % len(PHASES)]
        problem = lose_the_broker(place.state, place.registry, world.wishes["1.2.0"], phase)
        allowed = {"1.2.0"}  # the device has said that it keeps it
    else:
        problem, struck, kept = device_with_fault(world, trial, place, chance)
        if kept:
            allowed = {"1.2.0"}
        elif trial.work == "roll back by hand":
            allowed = {"1.0.0", "1.1.0"}
    lift(trial, place)
    if still_watched(place.state):
        allowed -= {"1.2.0"}
    served, after = device_without_fault(world, trial, place, allowed)
    shutil.rmtree(place.root, ignore_errors=True)
    return Outcome(trial, served, problem or after, struck)


def still_watched(state: Path) -> bool:
    """Whether the device ended while the pointer said that the new release is watched, and not yet kept."""
    try:
        return "watching" in json.loads((state / POINTER).read_bytes())
    except (OSError, ValueError):
        return False


def lift(trial: Trial, place: Place) -> None:
    """End a fault that outlasts the device's process."""
    if trial.kind == "disk full":
        (place.state / "ballast").unlink(missing_ok=True)
    elif trial.kind == "disk read-only":
        private_mounts.remount(place.state, writable=True)
    gone = place.registry.with_suffix(".gone")
    if gone.exists():
        gone.rename(place.registry)


def damage(folder: Path, chance: random.Random, *, truncate: bool, files: Sequence[Path] = ()) -> Path:
    """Flip a bit of a file below a folder, of `files` where they are given, or cut its end off; which it was."""
    held = [path.relative_to(folder) for path in folder.rglob("*") if path.is_file()]
    chosen = chance.choice(sorted(files or held))
    path = folder / chosen
    data = bytearray(path.read_bytes())
    if truncate:
        data = data[: chance.randrange(len(data))]
    else:
        bit = chance.randrange(len(data) * 8)
        data[bit // 8] ^= 1 << bit % 8
    path.write_bytes(data)
    return chosen


def device_with_fault(
    world: World, trial: Trial, place: Place, chance: random.Random
) -> tuple[str | None, bool, bool]:
    """Let a device work until the fault ends it, or through it.

    A problem, whether the fault struck, and whether the device said that it keeps the new release.
    """
    struck_reader, struck_writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            strike = striker(trial, place, chance, struck_writer)
            health = work(world, trial, place, strike)
            if trial.work == "update" and health.version == "1.2.0":
                os.write(struck_writer, KEPT)
            if trial.kind.startswith(("kill at a", "power cut")):
                strike(Never, "the end")  # what was reported as kept must have been flushed
            if health.version not in world.legitimate(trial.before) | {"1.0.0"}:
                raise AssertionError(f"served {health.version} through the fault: {health.problem}")
            leave()
        except BaseException as error:  # noqa: BLE001 - whatever ends a device is what the trial looks for
            os.write(struck_writer, f"!{type(error).__name__}: {error}".encode()[:4000])
            os._exit(3)
    os.close(struck_writer)
    if trial.kind == "kill at random":
        time.sleep(trial.step / 1000)
        os.kill(child, signal.SIGKILL)
    said = b""
    while part := os.read(struck_reader, 1 << 16):
        said += part
    os.close(struck_reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    marks, _, complaint = said.decode().partition("!")
    kept = KEPT.decode() in marks
    struck = bool(marks.replace(KEPT.decode(), "")) or code == -signal.SIGKILL or trial.kind in AT_ONCE
    if complaint or code not in (0, -signal.SIGKILL):
        return f"the device ended with {code}: {complaint}", struck, kept
    return None, struck, kept


def work(world: World, trial: Trial, place: Place, strike: Strike) -> Health:
    """What the device does while the fault strikes."""
    watch_steps(strike, place.state)
    updater = start(place.state, place.registry)
    if trial.work == "update":
        take(updater, world.wishes["1.2.0"])
    elif trial.work == "bad update":
        take(updater, world.wishes["bad"])
    elif trial.work == "roll back by hand":
        with contextlib.suppress(EdgewrightError):
            updater.roll_back_to_previous()
    return inspect(updater)


def striker(trial: Trial, place: Place, chance: random.Random, mark: int) -> Strike:
    """What happens at each durable step of the device's; `mark` takes a byte once the fault has struck."""
    kind, at = trial.kind, trial.step
    if kind == "disk full":
        pages = shutil.disk_usage(place.state).free // 4096
        (place.state / "ballast").write_bytes(bytes(4096 * max(0, pages - at)))
    if kind == "clock set back":
        now = time.time()
        backwards = iter(range(1, Never))
        time.time = lambda: now - 3600.0 * next(backwards)
        time.time_ns = lambda: int(time.time() * 1e9)
    disk = FlushedDisk(place.state) if kind.startswith("power cut") else None
    done = False

    def strike(step: int, name: str) -> None:
        nonlocal done
        if step < at or kind in (*AT_ONCE, "kill at random"):
            return
        if kind == "kill at a durable step":
            kill_this_process()
        elif disk is not None:
            disk.cut(None if kind.endswith("flushed alone survives") else chance)
        elif kind.startswith("disk error"):
            os.write(mark, b"x")
            number = getattr(errno, kind.split()[-1])
            if number == errno.EROFS or name not in ("os.remove", "os.rmdir"):
                raise OSError(number, os.strerror(number))
        elif kind == "disk read-only" and not done:
            try:
                private_mounts.remount(place.state, writable=False)
                done = True
                os.write(mark, b"x")
            except OSError as error:
                if error.errno != errno.EBUSY:  # a file is open for writing: at the next step then
                    raise
        elif kind == "registry gone" and not done:
            place.registry.rename(place.registry.with_suffix(".gone"))
            done = True
            os.write(mark, b"x")

    return strike


def device_without_fault(
    world: World, trial: Trial, place: Place, allowed: set[str | None]
) -> tuple[str | None, str | None]:
    """Start the device again, with nothing in its way: what it serves at once, and what is wrong with it."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            answer = examine(world, trial, place, allowed)
        except BaseException as error:  # noqa: BLE001 - see above
            answer = (None, f"{type(error).__name__}: {error}")
        os.write(writer, json.dumps(answer).encode())
        leave()
    os.close(writer)
    said = b""
    while part := os.read(reader, 1 << 16):
        said += part
    os.close(reader)
    os.waitpid(child, 0)
    served, problem = json.loads(said) if said else (None, "the device died when it was started again")
    return served, problem


def examine(
    world: World, trial: Trial, place: Place, allowed: set[str | None]
) -> tuple[str | None, str | None]:
    """The checks after each trial, in the device's own process."""
    updater = start(place.state, place.registry)
    first = inspect(updater)
    if first.version not in allowed:
        return first.version, f"serves {first.version} after its start: {first.problem}"
    if first.version is not None and first.problem is not None:
        return first.version, first.problem
    reason = updater.progress.reason or ""
    if trial.kind not in ("bit flipped", "file truncated") and re.search("cannot be (used|read)", reason):
        return first.version, f"a start finds that {reason}"
    never_kept = trial.before == "new" and first.version is None
    if not never_kept and (left := half_written(place.state, all_of_it=False)):
        return first.version, left
    # What the broker would deliver again, then what the fleet asks for later.
    asked = {"update": "1.2.0", "bad update": "bad"}.get(trial.work, "1.1.0")
    again = take(updater, world.wishes[asked])
    if updater.served is None and asked != "bad" and not again.startswith("failed"):
        return first.version, f"nothing serves after the wish was delivered again: {again}"
    later = take(updater, world.wishes["1.3.0"])
    last = inspect(updater)
    if later != "committed" or last.version != "1.3.0" or last.problem is not None:
        return first.version, f"a later update ends {later}, {last.version} serves ({last.problem})"
    return first.version, half_written(place.state, all_of_it=True)
