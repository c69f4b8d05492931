from __future__ import annotations

from edgewright_converters.steps import PRIOR, TYPICAL, Steps

PLAN = ("read", "export", "min-max", "ranges", "verify", "package")


class Shown:
    def __init__(self) -> None:
        self.now = 0.0
        self.seen: list[tuple[int, int, str, float]] = []
        self.steps = Steps(lambda *step: self.seen.append(step), PLAN, lambda: self.now)

    def next(self, key: str, at: float) -> float:
        self.now = at
        self.steps.next(key, key)
        return self.seen[-1][3]


def test_first_estimate_is_what_the_steps_typically_take() -> None:
    shown = Shown()
    assert shown.next("read", 0.0) == sum(TYPICAL[key] for key in PLAN)
    assert shown.seen == [(0, 6, "read", shown.seen[0][3])]


def test_slow_first_steps_stretch_the_rest_and_a_step_left_out_counts_no_more() -> None:
    shown = Shown()
    shown.next("read", 0.0)
    shown.next("export", TYPICAL["read"])
    slow = 4 * (TYPICAL["read"] + TYPICAL["export"])
    left = shown.next("verify", slow)
    typical = TYPICAL["verify"] + TYPICAL["package"]
    stretch = (slow + PRIOR) / (TYPICAL["read"] + TYPICAL["export"] + PRIOR)
    assert left == typical * stretch > typical
    assert shown.seen[-1][:2] == (4, 6)


def test_what_is_known_better_replaces_what_is_typical() -> None:
    shown = Shown()
    shown.next("read", 0.0)
    before = shown.seen[-1][3]
    shown.steps.expect("verify", TYPICAL["verify"] + 100)
    assert shown.next("read", 0.0) > before


def test_nobody_need_watch() -> None:
    Steps(None, PLAN).next("read", "reading")
