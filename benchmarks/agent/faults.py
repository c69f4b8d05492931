"""The fault test: `python -m benchmarks.agent.faults`, 3,500 devices that lose power, disk or registry.

Each trial lets a device update, start or roll back while one fault strikes, starts it again without faults, and
demands: what serves is the release before or the new one and computes its golden vectors; nothing half-written is
left; a later update is taken and kept.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import select
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

import onnxruntime  # noqa: F401 - imported before the forks, so that none of them has to

from benchmarks.agent import fault_trial, fault_world
from benchmarks.agent.fault_plan import AT_STEPS, CASES, OTHERS, Place, coverage, plan
from benchmarks.agent.fault_world import Before, Never, Outcome, Trial, Work, World, wish
from benchmarks.agent.faulty_device import leave, start, take
from benchmarks.agent.toy_releases import toy_release

RESULTS = Path(__file__).parents[1] / "results"
TRIAL_TIMEOUT_S = 120


def in_a_fork(task: Callable[[], object]) -> str:
    """What a function returns that is called in a forked process, so that this one stays without models."""
    reader, writer = os.pipe()
    if os.fork() == 0:
        os.write(writer, str(task()).encode())
        leave()
    os.close(writer)
    with os.fdopen(reader) as answer:
        text = answer.read()
    os.wait()
    return text


def make_world(scratch: Path) -> World:
    """A registry of releases, and devices that have kept one, kept two, and are watching a third."""
    registry = scratch / "registry"
    releases = {version: toy_release(registry, version) for version in ("1.0.0", "1.1.0", "1.3.0")}
    others = set(registry.rglob("*"))
    releases["1.2.0"] = toy_release(registry, "1.2.0")
    blobs = tuple(path.relative_to(registry) for path in registry.rglob("*") if path not in others)
    releases["bad"] = toy_release(registry, "1.2.1", sound=False)
    wishes = {name: wish(release, f"rollout of {name}") for name, release in releases.items()}
    states: dict[Before, Path] = {name: scratch / f"kept-{name}" for name in ("new", "one", "two", "watched")}
    (scratch / "trials").mkdir()

    def device(before: Before, *versions: str, dies_watching: bool = False) -> None:
        def on_phase(phase: str) -> None:
            if dies_watching and phase == "watching":
                leave()

        def task() -> None:
            updater = start(states[before], registry, on_phase)
            for version in versions:
                assert take(updater, wishes[version]) == "committed", updater.progress

        in_a_fork(task)

    states["new"].mkdir()
    device("one", "1.0.0")
    device("two", "1.0.0", "1.1.0")
    shutil.copytree(states["two"], states["watched"])
    device("watched", "1.2.0", dies_watching=True)
    return World(registry, states, wishes, blobs, scratch / "trials")


def count_steps(world: World, before: Before, work: Work) -> int:
    """How many durable steps a device takes for some work when nothing goes wrong."""
    seen = 0

    def count(step: int, name: str) -> None:
        nonlocal seen
        seen = step

    def task() -> int:
        trial = Trial("count", before, work, Never, 0)
        fault_trial.work(world, trial, fault_world.Place(world, trial), count)
        return seen

    return int(in_a_fork(task))


def places(world: World) -> list[Place]:
    """Every durable step of every case."""
    return [
        Place(before, work, step)
        for before, work in CASES
        for step in range(1, count_steps(world, before, work) + 2)
    ]


@dataclass
class _Running:
    child: int
    trial: Trial
    reader: int
    end: float
    said: bytes = b""


def run_all(world: World, trials: Sequence[Trial], workers: int) -> Iterator[Outcome]:
    """Run trials, each in a fork of this process, `workers` at a time."""
    waiting, running = list(reversed(trials)), dict[int, _Running]()
    while waiting or running:
        while waiting and len(running) < workers:
            trial = waiting.pop()
            reader, writer = os.pipe()
            if (child := os.fork()) == 0:
                os.setpgid(0, 0)
                outcome = fault_trial.run_trial(world, trial)
                os.write(writer, json.dumps([outcome.served, outcome.problem, outcome.struck]).encode())
                leave()
            os.close(writer)
            running[reader] = _Running(child, trial, reader, time.monotonic() + TRIAL_TIMEOUT_S)
        for reader in select.select(list(running), [], [], 1.0)[0]:
            part = os.read(reader, 1 << 16)
            running[reader].said += part
            if not part:
                yield _ended(running.pop(reader))
        for reader in [each for each, one in running.items() if time.monotonic() > one.end]:
            os.killpg(running[reader].child, 9)
            yield _ended(running.pop(reader), f"did not end within {TRIAL_TIMEOUT_S} s")


def _ended(one: _Running, problem: str | None = None) -> Outcome:
    os.close(one.reader)
    os.waitpid(one.child, 0)
    if problem is None and one.said:
        return Outcome(one.trial, *json.loads(one.said))
    return Outcome(one.trial, None, problem or "the trial's process died", struck=False)


def skipped(outcome: Outcome) -> bool:
    """Whether the system did not allow the fault."""
    return outcome.problem is not None and outcome.problem.startswith("skipped: ")


def table(outcomes: Sequence[Outcome]) -> str:
    """One row a kind of fault."""
    lines = [
        "| fault | trials | struck | served the release before | served the new one | nothing kept yet, nothing "
        "served | problems |",
        "| --- | --- | --- | --- | --- | --- | --- |",
    ]
    for kind in (*AT_STEPS, *OTHERS):
        rows = [outcome for outcome in outcomes if outcome.trial.kind == kind]
        cells = [
            len(rows),
            sum(o.struck for o in rows),
            sum(o.served in ("1.0.0", "1.1.0") for o in rows),
            sum(o.served == "1.2.0" for o in rows),
            sum(o.served is None and o.problem is None for o in rows),
            sum(o.problem is not None and not skipped(o) for o in rows),
        ]
        lines.append(f"| {kind} | {' | '.join(map(str, cells))} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Run the trials, write `results/agent-faults-DATE.md`, exit with 1 where any device failed."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.agent.faults", description=__doc__)
    parser.add_argument("--trials", type=int, default=3500, help="how many (default: 3500)")
    parser.add_argument("--seed", type=int, default=1, help="of what is chosen at random (default: 1)")
    parser.add_argument("--workers", type=int, default=os.cpu_count() or 1, help="trials at a time")
    parser.add_argument("--no-file", action="store_true", help="print the table alone")
    given = parser.parse_args()
    began = time.monotonic()
    memory = Path("/dev/shm")
    scratch = Path(tempfile.mkdtemp(prefix="edgewright-faults-", dir=memory if memory.is_dir() else None))
    outcomes: list[Outcome] = []
    try:
        world = make_world(scratch)
        at = places(world)
        trials = plan(at, given.trials, given.seed)
        for outcome in run_all(world, trials, given.workers):
            outcomes.append(outcome)
            if outcome.problem is not None:
                print(f"{outcome.trial}: {outcome.problem}")
            if len(outcomes) % 100 == 0:
                left = (time.monotonic() - began) / len(outcomes) * (len(trials) - len(outcomes))
                print(f"{len(outcomes)} of {len(trials)} trials, about {left:.0f} s left", flush=True)
    finally:
        shutil.rmtree(scratch, ignore_errors=True)
    failed = [outcome for outcome in outcomes if outcome.problem is not None and not skipped(outcome)]
    seconds = time.monotonic() - began
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    text = f"""# The device agent under faults

`python -m benchmarks.agent.faults --trials {given.trials} --seed {given.seed}`: {len(outcomes)} trials in
{seconds:.0f} s ({used.ru_utime + used.ru_stime:.0f} s of processor time, {given.workers} at a time),
{len(failed)} problems. {coverage(at, trials)}

A trial: a device updates, starts, or is rolled back by hand; a fault strikes; the device is started again without
faults. It must serve the release before or the new one, proved by its golden vectors there and then, hold nothing
half-written, and take a later update and keep it. *Struck*: the fault came to pass (one beyond the last step does
not).
Where the only slot is damaged, nothing serves until the release is delivered again, and the reason is told.
The disks are in memory; a power cut is emulated: what was not flushed (fsync of the file, and of its folder) is
lost.
The proving process is forked, not started anew, but where the broker is gone; all else is the agent's own code.

{table(outcomes)}"""
    print(text)
    if not given.no_file:
        RESULTS.joinpath(f"agent-faults-{datetime.now(timezone.utc):%Y-%m-%d}.md").write_text(text)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
