"""A model card as a contract, and as text and a page: what people and data wrote in it is never markup."""

from __future__ import annotations

import html.parser
import re
from datetime import datetime, timezone

from hypothesis import given
from hypothesis import strategies as st

from edgewright.artifact.comparison import (
    ArtifactComparison,
    ArtifactFigures,
    Comparison,
    Criteria,
    GroupComparison,
    LatencyRatio,
    ReleaseId,
    SetComparison,
    alike,
)
from edgewright.artifact.manifest import Difference, GateCheck, Proportion
from edgewright.artifact.model_card import (
    ArtifactOnCard,
    DataSummary,
    Decision,
    Lineage,
    ModelCard,
    Training,
)
from edgewright.card.order import reach
from edgewright.card.page import page
from edgewright.card.text import card_lines, markdown
from edgewright.contract import from_json, to_json

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,12}", fullmatch=True)
digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
words = st.text(max_size=20) | st.sampled_from(
    ["<script>alert(1)</script>", "a | b", "# not a heading", "`code`", "[x](y)", "two\nlines", "&lt;"]
)
times = st.datetimes(datetime(1970, 1, 1), datetime(2100, 1, 1), timezones=st.just(timezone.utc))
shares = st.floats(0, 1)
releases = st.builds(ReleaseId, name=names, version=names, digest=digests)
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**50), 2**50) | words,
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(words, inner, max_size=2),
    max_leaves=4,
)


@st.composite
def intervals(draw: st.DrawFn) -> tuple[float, float, float]:
    low, value, high = sorted(draw(st.tuples(*[st.floats(-1, 1)] * 3)))
    return low, value, high


def group(by: str, name: str, bounds: tuple[float, float, float], samples: int) -> GroupComparison:
    low, value, high = bounds
    return GroupComparison(
        by=by,
        group=name,
        samples=samples,
        serving=0.5,
        candidate=0.5,
        change=value,
        low=low,
        high=high,
    )


groups = st.builds(group, words, words, intervals(), st.integers(1, 10**6))
differences = st.builds(
    lambda bounds, samples: Difference(
        value=bounds[1], low=bounds[0], high=bounds[2], samples=samples, lost=0, gained=samples
    ),
    intervals(),
    st.integers(1, 10**6),
)
proportions = st.builds(Proportion, value=shares, low=shares, high=shares, samples=st.integers(1, 9))
sets = st.builds(
    SetComparison,
    data=st.sampled_from(["held-out", "field"]),
    weighted=st.booleans(),
    serving=proportions,
    candidate=proportions,
    change=differences,
    unweighted=st.none() | differences,
    mcnemar_p=shares,
    group_confidence=st.dictionaries(words, shares, max_size=2),
    left_out=st.lists(words, max_size=2).map(tuple),
    groups=st.lists(groups, max_size=4).map(tuple),
)
figures = st.builds(
    ArtifactFigures,
    digest=digests,
    precision=st.just("int8"),
    model_bytes=st.integers(1, 10**9),
    runtime=words,
)
latencies = st.builds(
    LatencyRatio,
    where=words,
    ratio=st.floats(0.1, 9),
    low=st.floats(0.1, 9),
    high=st.floats(0.1, 9),
    pairs=st.integers(1, 99),
)
compared = st.builds(
    ArtifactComparison,
    profile=names,
    format=st.sampled_from(["onnx", "tflite"]),
    serving=st.none() | figures,
    candidate=st.none() | figures,
    sets=st.lists(sets, max_size=2).map(tuple),
    latency=st.none() | latencies,
    why_not=st.none() | words,
)
checks = st.builds(
    GateCheck,
    name=st.just("gain"),
    verdict=st.sampled_from(["pass", "fail", "inconclusive"]),
    unit=words,
    how=st.just("measured on host"),
    says=words,
    remedy=st.none() | words,
)
comparisons = st.builds(
    Comparison,
    serving=releases,
    criteria=st.builds(Criteria),
    artifacts=st.lists(compared, min_size=1, max_size=2).map(tuple),
    checks=st.lists(checks, min_size=1, max_size=2).map(tuple),
    verdict=st.sampled_from(["better", "worse", "inconclusive"]),
    says=words,
    samples_needed=st.none() | st.integers(1, 10**6),
)
trainings = st.builds(
    Training,
    function=words,
    code_digest=st.none() | digests,
    parameters=st.dictionaries(words, json_values, max_size=2),
    seed=st.integers(0, 2**40),
    weights_digest=st.none() | digests,
    tools=st.dictionaries(words, words, max_size=2),
)
cards = st.builds(
    ModelCard,
    name=names,
    version=names,
    made_at=times,
    intended_use=words,
    limits=words,
    data=st.lists(
        st.builds(
            DataSummary,
            used_for=words.filter(bool),
            digest=st.none() | digests,
            samples=st.none() | st.integers(0, 10**9),
            labelled=st.none() | st.integers(0, 10**9),
            first_at=st.none() | times,
            lineage=words,
            privacy=words,
        ),
        max_size=2,
    ).map(tuple),
    lineage=st.builds(
        Lineage,
        base=st.none() | releases,
        trigger=words,
        chain_head=st.none() | digests,
        training=st.none() | trainings,
    ),
    artifacts=st.lists(
        st.builds(
            ArtifactOnCard,
            profile=names,
            format=st.just("onnx"),
            digest=digests,
            model_bytes=st.integers(1, 9),
            gate=st.none(),
        ),
        min_size=1,
        max_size=2,
    ).map(tuple),
    comparison=st.none() | comparisons,
    decision=st.builds(
        Decision, by=st.sampled_from(["comparison", "hand"]), who=words, why=words.filter(bool)
    ),
)


@given(cards)
def test_any_card_survives_a_round_trip(card: ModelCard) -> None:
    # What is None is left out of the file, inside the user's own parameters too.
    again = from_json(ModelCard, to_json(card), where="test")
    assert to_json(again) == to_json(card)
    assert again.comparison == card.comparison and again.data == card.data


class Tags(html.parser.HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()
        self.attributes: set[str] = set()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.seen.add(tag)
        self.attributes.update(name for name, _ in attrs)


OURS = {
    *("html", "head", "meta", "title", "style", "body", "h1", "h2", "p", "span", "div"),
    *("table", "tr", "th", "td", "figure", "figcaption", "svg", "line", "text", "circle"),
}


@given(cards)
def test_nothing_written_on_a_card_becomes_markup_of_the_page(card: ModelCard) -> None:
    parser = Tags()
    parser.feed(page(card))
    assert parser.seen <= OURS
    assert not parser.attributes & {"src", "href", "style"} and not any(
        name.startswith("on") for name in parser.attributes
    )


@given(cards)
def test_nothing_written_on_a_card_breaks_its_markdown(card: ModelCard) -> None:
    lines = markdown(card).splitlines()
    for line in lines:
        # A heading is ours, and a row of a table has as many cells as its head.
        assert not line.startswith("#") or line.startswith(("# Model card of ", "## "))
        assert "<" not in line.replace("\\<", "") or line.startswith("    ")
    rows = [len(re.findall(r"(?<!\\)\|", line)) for line in lines if line.startswith("|")]
    heads = [i for i, line in enumerate(lines) if line.startswith("| ---")]
    assert heads and len(rows) >= 2 * len(heads)
    for head in heads:
        cells = lines[head].count("|")
        row = head - 1
        while row < len(lines) and lines[row].startswith("|"):
            assert len(re.findall(r"(?<!\\)\|", lines[row])) == cells
            row += 1


@given(cards)
def test_every_group_is_on_the_page_and_in_the_markdown(card: ModelCard) -> None:
    expected = 0
    if card.comparison is not None:
        expected = sum(len(one.groups) for _, found in alike(card.comparison.artifacts) for one in found.sets)
    assert page(card).count("<circle") == expected
    assert markdown(card).count("●") >= expected
    assert card_lines(card)


@given(st.lists(groups, min_size=1, max_size=5))
def test_the_scale_holds_every_interval_and_is_no_wider_than_all_there_is(
    some: list[GroupComparison],
) -> None:
    ends = reach(some)
    assert all(-ends - 1e-9 <= one.low and one.high <= ends + 1e-9 for one in some)
    assert 0 < ends <= 1


def test_profiles_that_run_one_file_are_told_of_once() -> None:
    one = ArtifactComparison(profile="a", format="onnx", why_not="none")
    difference = Difference(value=0.1, low=0, high=0.2, samples=9)
    share = Proportion(value=0.5, low=0.4, high=0.6, samples=9)
    measured = SetComparison(
        data="field",
        weighted=False,
        serving=share,
        candidate=share,
        change=difference,
        mcnemar_p=1.0,
    )
    artifacts = [
        one,
        *(ArtifactComparison(profile=p, format="onnx", sets=(measured,)) for p in ("b", "c")),
        ArtifactComparison(profile="b", format="tflite", sets=(measured,)),
    ]
    assert [name for name, _ in alike(artifacts)] == ["b, c onnx", "b tflite"]
