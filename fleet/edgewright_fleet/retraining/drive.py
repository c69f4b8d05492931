"""`drive`: one stage of a run after the other.

A stage may be cut short at any instant and is then done again from its beginning, so each either leaves nothing
behind that counts, or finds what it did: a training job has the run's name, a candidate is made in a folder of its
own, and a release that is there already with the same digests is the one that was meant.
"""

from __future__ import annotations

from collections.abc import Callable

from edgewright.errors import EdgewrightError
from edgewright_fleet.retraining.chain import LinkKind
from edgewright_fleet.retraining.run import Run, Standing
from edgewright_fleet.retraining.spec import RetrainingSpec, load_spec
from edgewright_fleet.retraining.stages.conversion import convert_candidate
from edgewright_fleet.retraining.stages.data import gather
from edgewright_fleet.retraining.stages.promotion import compare_candidate, hand_over, release_candidate
from edgewright_fleet.retraining.stages.step import Step, Tools, requested_stop
from edgewright_fleet.retraining.stages.training import train

STAGES: dict[LinkKind, Callable[[Run, RetrainingSpec, Tools], Step | None]] = {
    "data": gather,
    "training": train,
    "conversion": convert_candidate,
    "comparison": compare_candidate,
    "release": release_candidate,
    "rollout": hand_over,
}


def drive(run: Run, tools: Tools) -> Standing:
    """Do one stage after the other until the run is held, stopped or done. One process at a time."""
    with run.held():
        requested_stop(run)  # of one who asked a driver that had just ended
        while (stage := run.next_stage) is not None:
            if why := requested_stop(run):
                run.stop(why, tools.now())
                break
            spec = load_spec(run.spec_path)
            try:
                step = STAGES[stage](run, spec, tools)
            except EdgewrightError as error:
                run.stop(f"{stage}: {error}", tools.now())
                raise
            if step is not None and step.stops:
                run.stop(step.says, tools.now())
            elif step is not None:  # None: the stage added its link itself
                run.chain.add(stage, step.says, step.evidence, tools.now())
    return run.standing
