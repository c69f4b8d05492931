"""Who may act, decided by a real API server."""

from __future__ import annotations

import contextlib
from concurrent.futures import ThreadPoolExecutor

import pytest

from edgewright.errors import ClusterError, EdgewrightError, RolloutError
from edgewright_fleet.targets.kubernetes.lease import API, LEASE, LeaderLease
from fleet.kubernetes.real_cluster import RealCluster

pytestmark = [pytest.mark.slow, pytest.mark.timeout(3600)]


class Clock:
    """A clock of one's own."""

    now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture(autouse=True)
def _nobody_has_it(berlin: RealCluster) -> None:
    """A controller that another test killed may have left it, and the clocks here stand still."""
    with contextlib.suppress(ClusterError):
        berlin.api.delete(berlin.api.named("leases", LEASE, api=API))


def lease(cluster: RealCluster, name: str, clock: Clock | None = None) -> LeaderLease:
    api = cluster.as_service_account("edgewright-controller")
    return LeaderLease(api, name, 15.0, clock or Clock())


def test_of_many_that_take_it_at_once_one_gets_it(berlin: RealCluster) -> None:
    several = [lease(berlin, f"c{index}") for index in range(8)]

    def holds(candidate: LeaderLease) -> bool:
        try:
            candidate.hold()
        except RolloutError:
            return False
        return True

    with ThreadPoolExecutor(len(several)) as threads:
        held = list(threads.map(holds, several))
    assert sum(held) == 1
    winner = several[held.index(True)]
    assert winner.left_s == 15.0
    winner.release()
    assert winner.left_s < 0


def test_it_passes_on_only_when_it_has_not_changed_for_its_duration_by_our_own_clock(
    berlin: RealCluster,
) -> None:
    mine, yours = Clock(), Clock()
    yours.now_s = 5.0  # the two clocks need not agree
    first, second = lease(berlin, "first", mine), lease(berlin, "second", yours)
    first.hold()
    with pytest.raises(RolloutError, match="controller 'first' acts"):
        second.hold()
    mine.now_s += 14
    yours.now_s += 14
    first.hold()  # renewed, so that the second waits anew
    yours.now_s += 2
    with pytest.raises(RolloutError, match="wait for 15 s"):
        second.hold()
    yours.now_s += 15
    second.hold()
    mine.now_s += 6
    with pytest.raises(EdgewrightError, match="controller 'second' acts"):
        first.hold()
    assert first.left_s < 0
    second.release()
