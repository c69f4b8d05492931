"""The error family of Edgewright: every failure a user can cause or mend is an `EdgewrightError`.

It stands in the lowest layer, so that every package can raise it; `edgewright.errors` is its public
address and adds the kinds that the SDK raises.
"""

from __future__ import annotations


def in_one_line(text: str) -> str:
    """The text without line breaks, its other control characters written out: a terminal would obey them."""
    line = " ".join(text.split())
    if line.isprintable():
        return line
    return "".join(c if c.isprintable() else ascii(c)[1:-1] for c in line)


class EdgewrightError(Exception):
    """What was wrong, where, and what to do about it, in one line.

    The command line prints `str(error)` and exits with 2.
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem, self.where, self.remedy = map(in_one_line, (problem, where, remedy))
        line = f"{self.where}: {self.problem}" if self.where else self.problem
        super().__init__(f"{line}; {self.remedy}" if self.remedy else line)


class ProfileError(EdgewrightError):
    """A hardware profile does not exist or does not hold."""
