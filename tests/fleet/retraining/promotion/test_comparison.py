"""Two real releases on the same samples, and the verdict on the candidate."""

from __future__ import annotations

import dataclasses
import tracemalloc
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from conftest import PROFILE
from edgewright.artifact.comparison import Comparison, Criteria
from edgewright.artifact.layout import Layout
from edgewright.artifact.release import Release
from edgewright.contract import from_json, to_json
from edgewright.errors import ArtifactError, DataError
from edgewright_fleet.retraining.promotion.comparison import MAX_GROUPS, compare
from edgewright_fleet.retraining.promotion.samples import LabelledSample, held_out_samples
from edgewright_fleet.retraining.promotion.verdict import judge
from fleet.retraining.promotion.classifiers import put_classifier, registry_of, samples

OLD, NEW = (0, 0, 0, 0), (0, 40, 0, 0)
"""In the field the second class has become more frequent: NEW is right there, OLD often is not."""
LENIENT = Criteria(max_loss=15, max_group_loss=30)
BOTH_RIGHT = samples(400, (0, 18, 0, 0), seed=5)
"""Between the two, so that each is right on most and neither has an edge."""


def compared(
    serving: Release,
    candidate: Release,
    field: Iterable[LabelledSample],
    criteria: Criteria = LENIENT,
    held_out: Iterable[LabelledSample] = tuple(BOTH_RIGHT),
) -> Comparison:
    artifacts = compare(serving, candidate, held_out, field, latency_s=0.01)
    comparison = judge(serving, candidate, artifacts, criteria)
    assert from_json(Comparison, to_json(comparison), where="test") == comparison
    return comparison


def check(comparison: Comparison, name: str) -> str:
    return next(one.verdict for one in comparison.checks if one.name == name)


def test_candidate_that_gains_in_the_field_and_holds_the_rest_is_better(tmp_path: Path) -> None:
    comparison = compared(*registry_of(tmp_path, OLD, NEW), samples(300, NEW))
    assert comparison.verdict == "better", comparison.says
    (artifact,) = comparison.artifacts
    held_out, field = artifact.sets
    assert field.candidate.value == 1.0
    assert field.change.low > 0.1 and field.mcnemar_p < 1e-6
    assert artifact.candidate and artifact.candidate.runtime.startswith("onnxruntime ")
    assert artifact.latency and artifact.latency.low <= artifact.latency.ratio <= artifact.latency.high
    assert {group.group for group in held_out.groups} == {"cat", "dog", "hen", "cow"}
    assert sum(group.samples for group in field.groups) == 300
    assert comparison.samples_needed is None


def test_the_same_two_releases_the_other_way_round_are_mirrored(tmp_path: Path) -> None:
    old, new = registry_of(tmp_path, OLD, NEW)
    forth, back = compared(old, new, samples(300, NEW)), compared(new, old, samples(300, NEW))
    assert (forth.verdict, back.verdict) == ("better", "worse")
    for one, other in zip(forth.artifacts[0].sets, back.artifacts[0].sets, strict=True):
        assert one.change.low == pytest.approx(-other.change.high)
        assert one.mcnemar_p == other.mcnemar_p
        for group, mirrored in zip(one.groups, other.groups, strict=True):
            assert (group.low, group.change) == pytest.approx((-mirrored.high, -mirrored.change))


@pytest.mark.parametrize("count", [1, 30, 2000])
def test_identical_models_are_never_better_and_no_number_of_samples_would_make_them_so(
    tmp_path: Path, count: int
) -> None:
    comparison = compared(*registry_of(tmp_path, OLD, OLD), samples(count, NEW), Criteria(max_loss=5))
    assert comparison.verdict == "inconclusive"
    assert check(comparison, "gain") == "inconclusive"
    assert comparison.samples_needed is None


def test_few_samples_leave_it_open_and_say_how_many_would_do_which_then_do(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path, OLD, (0, 9, 0, 0))
    truth = (0, 14, 0, 0)
    criteria = Criteria(max_loss=15)
    few = compared(serving, candidate, samples(60, truth), criteria)
    assert few.verdict == "inconclusive", few.says
    assert few.samples_needed is not None and few.samples_needed > 60
    assert f"about {few.samples_needed} labelled samples" in str(few.checks)
    many = compared(serving, candidate, samples(max(2 * few.samples_needed, 1500), truth), criteria)
    assert many.verdict == "better", many.says


def test_a_gain_smaller_than_was_asked_for_is_not_enough(tmp_path: Path) -> None:
    comparison = compared(*registry_of(tmp_path, OLD, NEW), samples(300, NEW), Criteria(minimum_gain=80))
    assert comparison.verdict == "worse"
    assert check(comparison, "gain") == "fail" and "more than 80 is asked" in comparison.says


def test_loss_on_the_held_out_set_outweighs_a_gain_in_the_field(tmp_path: Path) -> None:
    comparison = compared(
        *registry_of(tmp_path, OLD, NEW), samples(300, NEW), Criteria(max_loss=1), samples(300, OLD)
    )
    assert check(comparison, "gain") == "pass" and check(comparison, "loss") == "fail"
    assert comparison.verdict == "worse"


def test_a_group_that_is_worse_for_certain_stops_a_candidate_that_is_better_on_the_whole(
    tmp_path: Path,
) -> None:
    serving, candidate = registry_of(tmp_path, OLD, NEW)
    kept = samples(60, OLD, seed=1, sites=["north"])
    field = [*samples(400, NEW, sites=["south", "west"]), *kept]
    comparison = compared(serving, candidate, field, Criteria(max_loss=15, max_group_loss=15))
    assert check(comparison, "gain") == "pass"
    assert comparison.verdict == "worse"
    assert "site north" in comparison.says
    assert compared(serving, candidate, field, Criteria(max_loss=15, max_group_loss=90)).verdict == "better"


def test_groups_by_chance_alone_are_not_called_worse(tmp_path: Path) -> None:
    """Two models of equal worth on 100 sites: without a correction some five sites would seem worse."""
    old, new = registry_of(tmp_path, (18, 0, 0, 0), (0, 18, 0, 0))
    sites = [f"site-{number}" for number in range(100)]
    (artifact,) = compare(old, new, [], samples(3000, (9, 9, 0, 0), sites=sites), latency_s=0)
    (field,) = artifact.sets
    site_groups = [group for group in field.groups if group.by == "site"]
    assert len(site_groups) == 100
    assert field.group_confidence == pytest.approx({"class": 1 - 0.025 / 4, "site": 1 - 0.025 / 100})
    assert not [group for group in site_groups if group.high < 0 or group.low > 0]


@pytest.mark.parametrize("gate", ["fail", "inconclusive", None])
def test_candidate_that_did_not_pass_the_gate_does_not_become_better(
    tmp_path: Path, gate: str | None
) -> None:
    layout = Layout.create(tmp_path)
    serving = put_classifier(layout, "1.0.0", OLD)
    candidate = put_classifier(layout, "1.1.0", NEW, gate=gate)  # type: ignore[arg-type]
    comparison = compared(serving, candidate, samples(300, NEW))
    assert comparison.verdict == ("worse" if gate == "fail" else "inconclusive")
    assert "gate" in comparison.says


def test_without_labelled_field_data_a_person_decides_unless_the_held_out_set_may(tmp_path: Path) -> None:
    old, new = registry_of(tmp_path, OLD, NEW)
    comparison = compared(old, new, [], held_out=samples(300, NEW))
    assert comparison.verdict == "inconclusive" and "no field data is labelled" in comparison.says
    allowed = Criteria(without_field_data="held-out")
    assert compared(old, new, [], allowed, samples(300, NEW)).verdict == "better"


@pytest.mark.parametrize("criteria", [LENIENT, Criteria(without_field_data="held-out")])
def test_without_a_single_sample_nothing_is_better(tmp_path: Path, criteria: Criteria) -> None:
    comparison = compared(*registry_of(tmp_path, OLD, NEW), [], criteria, held_out=[])
    assert comparison.verdict == "inconclusive" and "no labelled sample" in comparison.says
    only_field = compared(*registry_of(tmp_path, OLD, NEW), samples(300, NEW), criteria, held_out=[])
    assert only_field.verdict == "inconclusive" and "no held-out set" in only_field.says


def test_model_that_is_no_classifier_is_not_judged_by_its_sqnr(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    releases = [
        put_classifier(layout, version, OLD, classifies=False, labels=None) for version in ("1.0", "1.1")
    ]
    comparison = compared(releases[0], releases[1], samples(9, NEW))
    assert comparison.verdict == "inconclusive"
    assert "SQNR says how close" in comparison.says
    assert comparison.artifacts[0].sets == ()


def test_classes_of_other_names_are_not_compared(tmp_path: Path) -> None:
    layout = Layout.create(tmp_path)
    old = put_classifier(layout, "1.0.0", OLD)
    new = put_classifier(layout, "1.1.0", NEW, labels=("dog", "cat", "hen", "cow"))
    comparison = compared(old, new, samples(300, NEW))
    assert comparison.verdict == "inconclusive" and "name their classes differently" in comparison.says


def test_every_profile_that_is_served_must_hold_and_a_new_one_is_compared_with_nothing(
    tmp_path: Path,
) -> None:
    layout = Layout.create(tmp_path)
    old = put_classifier(layout, "1.0.0", OLD, profiles=(PROFILE, "raspberry-pi-5"))
    less = compared(old, put_classifier(layout, "1.1.0", NEW), samples(300, NEW))
    assert less.verdict == "inconclusive" and "raspberry-pi-5 onnx: the candidate holds no" in less.says
    more = put_classifier(layout, "1.2.0", NEW, profiles=(PROFILE, "raspberry-pi-5", "raspberry-pi-4"))
    comparison = compared(old, more, samples(300, NEW))
    assert comparison.verdict == "better", comparison.says
    assert [artifact.why_not is None for artifact in comparison.artifacts] == [False, True, True]
    first = compared(put_classifier(layout, "0.1", OLD, profiles=("jetson-orin-nano",)), more, [])
    assert first.verdict == "inconclusive"


def test_hard_examples_count_as_often_as_they_are_met(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path, OLD, NEW)
    hard = [dataclasses.replace(s, probability=1.0) for s in samples(300, NEW)]
    easy = [dataclasses.replace(s, probability=0.02) for s in samples(60, OLD, seed=3)]
    (artifact,) = compare(serving, candidate, [], hard + easy, latency_s=0)
    (field,) = artifact.sets
    assert field.weighted and field.unweighted is not None
    assert field.unweighted.value > 0.1 > -0.1 > field.change.value
    unknown = [*hard, dataclasses.replace(easy[0], probability=None), *easy[1:]]
    (artifact,) = compare(serving, candidate, [], unknown, latency_s=0)
    assert not artifact.sets[0].weighted and artifact.sets[0].change == field.unweighted


@pytest.mark.parametrize(
    ("sample", "problem"),
    [
        (
            LabelledSample({"x": np.zeros((1, 4), np.float32)}, 4),
            "sample 0 of the field data: label 4 is out",
        ),
        (LabelledSample({"x": np.zeros((1, 5), np.float32)}, 1), "sample 0 of the field data: .* has shape"),
        (LabelledSample({"x": np.zeros((1, 4), np.float32)}, 1, probability=0.0), "probability 0 is not"),
        (LabelledSample({"x": np.zeros((1, 4), np.float32)}, 1, probability=float("nan")), "probability nan"),
    ],
)
def test_sample_that_does_not_fit_is_named_in_one_line(
    tmp_path: Path, sample: LabelledSample, problem: str
) -> None:
    with pytest.raises(DataError, match=problem) as caught:
        compare(*registry_of(tmp_path, OLD, NEW), [], [sample])
    assert "\n" not in str(caught.value)


def test_key_with_a_value_for_each_sample_is_left_out_and_named(tmp_path: Path) -> None:
    field = samples(MAX_GROUPS + 5, NEW, sites=[str(number) for number in range(MAX_GROUPS + 5)])
    comparison = compared(*registry_of(tmp_path, OLD, NEW), field)
    _, seen = comparison.artifacts[0].sets
    assert seen.left_out == ("site",) and {group.by for group in seen.groups} == {"class"}
    assert seen.group_confidence == {"class": pytest.approx(1 - 0.05 / 4)}
    assert any("too many values to look at: site" in one.says for one in comparison.checks)


def test_corrupt_candidate_is_not_compared(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path, OLD, NEW)
    blob = tmp_path / "blobs/sha256" / candidate.artifacts[PROFILE, "onnx"].digest[7:]
    blob.write_bytes(blob.read_bytes()[:-1])
    with pytest.raises(ArtifactError, match="digest does not match"):
        compare(serving, candidate, [], samples(3, NEW))


def test_memory_does_not_grow_with_the_data(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path, OLD, NEW)
    few = samples(50, NEW, sites=["a", "b"])

    def stream(count: int) -> Iterator[LabelledSample]:
        for number in range(count):
            yield dataclasses.replace(few[number % 50], probability=0.1 + 0.5 * (number % 7) / 7)

    def peak(count: int) -> int:
        tracemalloc.start()
        compare(serving, candidate, [], stream(count), latency_s=0)
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    peak(100)
    assert peak(5000) < peak(500) + 50_000


def test_held_out_set_is_any_labelled_data_that_convert_takes(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path / "registry", OLD, NEW)
    given = samples(40, NEW)
    x, y = np.concatenate([s.inputs["x"] for s in given]), np.array([s.label for s in given])
    np.savez(tmp_path / "test.npz", x=x, y=y)
    np.savez(tmp_path / "unlabelled.npz", x=x)
    manifest = compare_manifest(candidate)
    read = list(held_out_samples(tmp_path / "test.npz", manifest))
    assert [s.label for s in read] == y.tolist()
    held_out = held_out_samples(tmp_path / "test.npz", manifest)
    assert compare(serving, candidate, held_out, [], latency_s=0) == compare(
        serving, candidate, given, [], latency_s=0
    )
    with pytest.raises(DataError, match="has no labels"):
        held_out_samples(tmp_path / "unlabelled.npz", manifest)


def compare_manifest(release: Release):  # type: ignore[no-untyped-def]
    from edgewright.artifact.release import open_artifact

    return open_artifact(release.layout, release.artifacts[PROFILE, "onnx"]).manifest
