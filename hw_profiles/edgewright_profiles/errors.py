"""The error family of Edgewright: every failure a user can cause or mend is an `EdgewrightError`.

It stands in the lowest layer, so that every package can raise it; `edgewright.errors` is its public
address and adds the kinds that the SDK raises.
"""

from __future__ import annotations


class EdgewrightError(Exception):
    """What was wrong, where, and what to do about it, in one line.

    The command line prints `str(error)` and exits with 2.
    """

    def __init__(self, problem: str, *, where: str = "", remedy: str = "") -> None:
        self.problem = " ".join(problem.split())
        self.where = " ".join(where.split())
        self.remedy = " ".join(remedy.split())
        line = f"{self.where}: {self.problem}" if self.where else self.problem
        super().__init__(f"{line}; {self.remedy}" if self.remedy else line)


class ProfileError(EdgewrightError):
    """A hardware profile does not exist or does not hold."""
