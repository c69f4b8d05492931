from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from edgewright_profiles.errors import EdgewrightError


@given(st.text(), st.text(), st.text())
def test_any_error_is_one_line_that_no_terminal_obeys(problem: str, where: str, remedy: str) -> None:
    line = str(EdgewrightError(problem, where=where, remedy=remedy))
    assert line.isprintable()


def test_names_of_any_language_stay_as_they_are() -> None:
    assert str(EdgewrightError("fehlt", where="größe/вход\n2")) == "größe/вход 2: fehlt"
    assert str(EdgewrightError("is red", where="a\x1b[31m.png")) == "a\\x1b[31m.png: is red"
