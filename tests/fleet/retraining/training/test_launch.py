"""Why ranks ended: the cause is told, not what followed from it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import pytest

from edgewright_fleet.retraining.training.launch import Ended, _why


@dataclass
class Failure:
    """What torch's agent says of a rank."""

    exitcode: int
    timestamp: int
    message: Any = "Signal received"


LOST_PEER = Failure(1, 5, {"message": "Connection reset by peer"})


@pytest.mark.parametrize(
    ("failures", "ended"),
    [
        ({0: LOST_PEER, 1: Failure(-9, 6)}, Ended(1, "rank 1 was killed by SIGKILL")),
        ({0: LOST_PEER, 1: Failure(-11, 6)}, Ended(1, "rank 1 was killed by SIGSEGV")),
        ({0: Failure(-15, 4), 1: LOST_PEER}, Ended(1, "rank 1: Connection reset by peer")),
        ({0: LOST_PEER, 1: Failure(2, 4, {"message": "no GPU"})}, Ended(2, "rank 1: no GPU")),
        ({0: Failure(75, 4), 1: Failure(75, 4)}, Ended(75, "rank 0 was asked to stop")),
        ({0: LOST_PEER, 1: Failure(75, 4)}, Ended(1, "rank 0: Connection reset by peer")),
        ({3: Failure(7, 4)}, Ended(7, "rank 3 ended with exit code 7")),
    ],
)
def test_the_failure_that_others_follow_from_is_the_reason(failures: dict[int, Any], ended: Ended) -> None:
    assert _why(failures) == ended
