from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.twin import ReleaseReference
from edgewright_agent.update import is_older
from edgewright_agent.watch import MIN_WATCHED_INFERENCES, error_reason

versions = st.lists(st.integers(0, 30), min_size=1, max_size=4)


def release(version: str, name: str = "sorter") -> ReleaseReference:
    return ReleaseReference(name=name, version=version, digest=f"sha256:{'0' * 64}")


def older(version: str, than: str) -> bool:
    return is_older(release(version), release(than))


@pytest.mark.parametrize(
    ("version", "than", "expected"),
    [
        ("1.9.0", "1.10.0", True),
        ("1.10.0", "1.9.0", False),
        ("1.0", "1.0.0", False),
        ("1.0.0", "1.0", False),
        ("1.0", "1.0.1", True),
        ("v1.2", "1.3", True),
        ("20261124", "20261125", True),
        ("1.0.0", "1.0.0-rc1", False),
        ("1.0.0-rc1", "1.0.0", False),
        ("0.9-rc1", "1.0.0-rc1", True),
        ("main", "1.0.0", False),
        ("1.0.0", "main", False),
    ],
)
def test_versions_are_compared_by_their_numbers(version: str, than: str, expected: bool) -> None:
    assert older(version, than) is expected


def test_another_model_is_not_an_older_one() -> None:
    assert not is_older(release("1.0.0", "sorter"), release("2.0.0", "counter"))


@given(versions, versions)
def test_the_order_is_that_of_the_numbers(one: list[int], other: list[int]) -> None:
    width = max(len(one), len(other))
    padded = [numbers + [0] * (width - len(numbers)) for numbers in (one, other)]
    left, right = (".".join(map(str, numbers)) for numbers in (one, other))
    assert older(left, right) is (padded[0] < padded[1])
    assert not (older(left, right) and older(right, left))


@given(st.integers(0, 1000), st.integers(0, 1000), st.floats(0, 0.99), st.booleans())
def test_a_watched_release_fails_by_its_share_of_errors(
    errors: int, successes: int, limit: float, over: bool
) -> None:
    inferences = errors + successes
    failed = error_reason(errors, inferences, limit, over=over) is not None
    if errors == 0:
        assert not failed
    elif inferences >= MIN_WATCHED_INFERENCES:
        assert failed is (errors > limit * inferences)
    else:
        assert failed is (over and successes == 0)
