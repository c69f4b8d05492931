"""What a device is doing: asked of the agent that runs there or, where none does, read from its disk."""

from __future__ import annotations

from edgewright.errors import ArtifactError
from edgewright_agent.config import AgentConfig
from edgewright_agent.control import Document, ask, state_folder_held
from edgewright_agent.inference import Served
from edgewright_agent.slots import Slots
from edgewright_agent.update import BY_HAND, Progress


def status_of(config: AgentConfig) -> Document:
    """The running agent's own words, or the state that its next start finds. Raises `EdgewrightError`."""
    running = ask(config.state_dir, "status")
    if running is not None:
        return running
    slots = Slots.open(config.state_dir) if config.state_dir.exists() else None
    state = slots.state if slots else None
    active, failure = (state.active, state.failure) if state else (None, None)
    spool = config.state_dir / "spool"
    return {
        "agent": "not running",
        "fleet": config.fleet,
        "device": config.device,
        "profile": config.profile,
        "release": str(active.release) if active else None,
        "digest": active.release.digest if active else None,
        "slot": active.slot if active else None,
        "previous": str(state.previous.release) if state and state.previous else None,
        "watched": bool(state and state.watching),
        "target": str(failure.desired.release) if failure else None,
        "rollout": failure.desired.rollout if failure else None,
        "reason": slots.damage if slots and slots.damage else failure.reason if failure else None,
        "telemetry_waiting": sum(1 for _ in spool.iterdir()) if spool.exists() else 0,
    }


def summary(served: Served | None, progress: Progress) -> str:
    """What an agent does, in a few words."""
    return f"{progress.phase}, {f'serving {served.content.release}' if served else 'no model'}"


def update_status(served: Served | None, progress: Progress) -> Document:
    """What an agent serves, and where it is with an update."""
    release = served.content.release if served else None
    return {
        "phase": progress.phase,
        "release": str(release) if release else None,
        "digest": release.digest if release else None,
        "slot": served.content.slot if served else None,
        "runtime": served.model.runtime if served else None,
        "inferences": served.tally.inferences if served else None,
        "errors": served.tally.errors if served else None,
        "target": str(progress.target) if progress.target else None,
        "rollout": progress.rollout,
        "reason": progress.reason,
    }


def roll_back(config: AgentConfig) -> Document:
    """Go back to the release before, by the running agent or, where none runs, on the disk.

    Raises `EdgewrightError` where there is none, it is corrupt, or an update is under way.
    """
    answer = ask(config.state_dir, "rollback")
    if answer is not None:
        return answer
    if not config.state_dir.exists():
        raise ArtifactError("there is no release to go back to", where=str(config.state_dir))
    with state_folder_held(config.state_dir):
        content = Slots.open(config.state_dir).go_back(BY_HAND)
    return {"agent": "not running", "release": str(content.release), "digest": content.release.digest}
