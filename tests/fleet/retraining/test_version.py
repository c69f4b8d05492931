"""Versions: each comes after all that there are, by their numbers."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import TypeAdapter

from edgewright.artifact.manifest import Name
from edgewright_fleet.retraining.version import newest, next_version, ordered

VERSIONS = st.from_regex(r"[0-9]{1,4}(\.[0-9]{1,4}){0,3}(-(rc|beta)[0-9]{0,2})?", fullmatch=True)


@given(st.lists(VERSIONS, min_size=1))
def test_the_next_version_comes_after_all_and_is_a_name(versions: list[str]) -> None:
    following = next_version(versions)
    assert all(ordered(following) > ordered(version) for version in versions)
    assert TypeAdapter(Name).validate_python(following) == following


@pytest.mark.parametrize(
    ("versions", "wanted"),
    [
        ([], "1.0.0"),
        (["1.0.0"], "1.0.1"),
        (["1.9.0", "1.10.0"], "1.10.1"),
        (["2026-11-09"], "2026-11-10"),
        (["1.0.9"], "1.0.10"),
        (["first"], "first.1"),
    ],
)
def test_examples(versions: list[str], wanted: str) -> None:
    assert next_version(versions) == wanted


def test_the_newest_is_by_number() -> None:
    assert newest(["1.9.0", "1.10.0", "1.2.11"]) == "1.10.0"
    assert newest([]) is None
