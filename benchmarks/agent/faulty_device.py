"""One device of the fault test: the agent's own `Updater` over slots on the disk, in a process that may be killed.

All is the agent's code but for two things. The proving process is forked from this one rather than started anew,
which saves its imports, and the inputs' rate is high, so that a watch takes milliseconds. `inspect` says what a
device is worth after a fault.
"""

from __future__ import annotations

import contextlib
import io
import logging
import os
import select
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import edgewright_agent.update
from benchmarks.agent.toy_releases import PROFILE
from edgewright.active_slot import POINTER, SlotState
from edgewright.artifact.golden import prove
from edgewright.contract import from_json
from edgewright.errors import EdgewrightError
from edgewright.twin import DesiredState
from edgewright_agent import proving_process
from edgewright_agent.checked_file import copy_of
from edgewright_agent.config import AgentConfig
from edgewright_agent.feed import Feed
from edgewright_agent.feed_config import SourceConfig
from edgewright_agent.inference import serve
from edgewright_agent.prove import ProofLimits, ProofVerdict, judge, read_verdict
from edgewright_agent.slots import Slots
from edgewright_agent.update import Updater
from edgewright_profiles import load_profile

OnPhase = Callable[[str], None]


def config_for(state: Path, registry: Path) -> AgentConfig:
    """Settings that make an update as quick as it can be and leave no step out."""
    return AgentConfig(
        fleet="bench",
        device="device",
        profile=PROFILE,
        registry=registry,
        state_dir=state,
        source=SourceConfig(rate_hz=2000),
        download_retry_s=0,
        watch_s=0.01,
        watch_inferences=5,
        watch_max_s=2.0,
        # Measured and not judged: a busy host would decide what comes of a trial.
        watch_max_slowdown=0,
        prove_max_p99_s=3600.0,
        prove_runs=20,
        prove_timeout_s=20,
    )


def forked_proof(slot: Path, *, threads: int, limits: ProofLimits) -> ProofVerdict:
    """`prove_in_process_of_its_own`, by a fork of this process in place of a new interpreter."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        arguments = [str(slot), "--threads", str(threads), "--parent", str(os.getppid())]
        arguments += ["--runs", str(limits.runs), "--memory-bytes", str(limits.memory_bytes)]
        code = 1
        with contextlib.suppress(BaseException), contextlib.redirect_stdout(io.StringIO()) as out:
            proving_process.main(arguments)
            os.write(writer, out.getvalue().encode())
            code = 0
        os._exit(code)
    os.close(writer)
    answer, end = b"", time.monotonic() + limits.timeout_s
    while select.select([reader], [], [], max(0.0, end - time.monotonic()))[0]:
        part = os.read(reader, 1 << 16)
        answer += part
        if not part:
            break
    else:
        os.kill(child, signal.SIGKILL)
    os.close(reader)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return judge(read_verdict(code, answer, b""), limits)


def fork_proofs() -> None:
    """Let the agent's code in this process prove by `forked_proof`."""
    vars(edgewright_agent.update)["prove_in_process_of_its_own"] = forked_proof


class _Uncounted:
    """Takes the place of the exporter."""

    def record(self, *_: Any, **__: Any) -> None: ...

    def record_error(self, *_: Any, **__: Any) -> None: ...


def start(state: Path, registry: Path, on_phase: OnPhase = lambda phase: None) -> Updater:
    """Start a device in this process; it serves in a thread of its own."""
    logging.getLogger("edgewright.agent").setLevel(logging.CRITICAL)
    fork_proofs()
    edgewright_agent.update.WATCH_POLL_S = 0.003
    stopping = threading.Event()

    def changed() -> None:
        on_phase(updater.progress.phase)

    updater = Updater(
        config_for(state, registry), load_profile(PROFILE), stopping=stopping, on_change=changed
    )
    updater.restore()
    counting: Any = _Uncounted()
    feed = Feed.of(config_for(state, registry), lambda error: None)
    loop = threading.Thread(
        target=lambda: serve(lambda: updater.served, counting, feed, rate_hz=2000, stopping=stopping),
        daemon=True,
    )
    loop.start()
    return updater


@dataclass(frozen=True)
class Health:
    """What a device is worth."""

    version: str | None
    """Of the release that serves and whose golden vectors pass now; None: nothing serves."""
    problem: str | None
    """What should not be, whatever happened before."""


def inspect(updater: Updater) -> Health:
    """What serves, proved now, and whether anything half-written is left of the pointer."""
    served = updater.served
    if served is None:
        return Health(None, updater.progress.reason or "nothing serves, without a reason")
    artifact = served.model.artifact
    assert artifact is not None
    verdict = prove(artifact.golden(), artifact.manifest.golden, served.model.run_raw)
    version = served.content.release.version
    if not verdict.passed:
        return Health(version, f"golden vectors of what serves: {verdict.detail}")
    if artifact.manifest.version != version or artifact.digest != served.content.artifact:
        return Health(version, f"{artifact.manifest.version} is served as {version}")
    return Health(version, None)


def half_written(state: Path, *, all_of_it: bool) -> str | None:
    """What is not whole on the disk: the pointer and its copy, and with `all_of_it` both slots that it names."""
    pointers = []
    for path in (state / POINTER, copy_of(state / POINTER)):
        try:
            pointers.append(from_json(SlotState, path.read_bytes(), where=path.name))
        except (OSError, EdgewrightError) as error:
            return str(error)
    if pointers[0] != pointers[1]:
        return "the pointer and its copy differ"
    slots = Slots.open(state)
    for content in (slots.state.active, slots.state.previous):
        if all_of_it and content is not None:
            try:
                slots.verify(content)
            except EdgewrightError as error:
                return str(error)
    left = [path for path in state.glob("**/*" if all_of_it else "*") if path.name.endswith(".partial")]
    return f"{left[0].relative_to(state)} is left over" if left else None


def take(updater: Updater, wish: DesiredState) -> str:
    """Take a wish; the phase that it ends in, with its reason."""
    updater.take(wish)
    progress = updater.progress
    return progress.phase if progress.reason is None else f"{progress.phase}: {progress.reason}"


def leave() -> None:
    """End this process without the interpreter's clean-up, which a device that is killed does not get either."""
    sys.stdout.flush()
    os._exit(0)
