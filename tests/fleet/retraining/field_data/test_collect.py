"""From a real folder of samples and a file of labels to a frozen data set, and what is refused on the way."""

from __future__ import annotations

import json
import tracemalloc
from datetime import timedelta, timezone
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from edgewright.artifact.layout import digest_of
from edgewright.contract import from_json, to_json
from edgewright.errors import DataError
from edgewright.object_store.folder import FolderStore
from edgewright.privacy import Box, PrivacyPolicy
from edgewright_converters.calibration import load_samples
from edgewright_fleet.retraining.field_data.catalogue import (
    Found,
    Unreadable,
    fetch,
    find_samples,
    forget,
    summary,
)
from edgewright_fleet.retraining.field_data.collect import collect, sample_path
from edgewright_fleet.retraining.field_data.data_set import (
    DataSetEntry,
    DataSetManifest,
    SplitRule,
    part_of,
)
from edgewright_fleet.retraining.field_data.reading import open_data_set
from fleet.retraining.field_data.stored_samples import CLASSES, NOW, RULE, SPEC, labels, put


@pytest.fixture
def root(tmp_path: Path) -> Path:
    folder = tmp_path / "store"
    folder.mkdir()
    return folder


def test_a_data_set_holds_what_was_labelled_and_where_it_is_from(root: Path, tmp_path: Path) -> None:
    digests = [put(root, number) for number in range(40)]
    put(root, 100)
    put(root, 101, policy=PrivacyPolicy(store="digest"))
    file = labels(tmp_path, [f"{digest},{CLASSES[i % 3]},anna" for i, digest in enumerate(digests)])
    manifest, digest = collect(FolderStore(root), file, tmp_path / "set", RULE, names=CLASSES)
    assert sum(manifest.counts.values()) == 40
    assert manifest.skipped == {"without a label": 1, "without their input, by policy": 1}
    assert manifest.reasons == {"uniform": 20, "low-confidence": 20}
    data_set = open_data_set(tmp_path / "set")
    assert data_set.digest == digest
    entries = list(data_set.entries())
    assert sorted(entry.digest for entry in entries) == [entry.digest for entry in entries] == sorted(digests)
    assert {entry.labeller for entry in entries} == {"anna"}
    by_digest = {entry.digest: entry for entry in entries}
    assert [by_digest[digest].label for digest in digests] == [i % 3 for i in range(40)]
    read = [sample for part in manifest.counts for sample in data_set.read(part)]
    assert len(read) == 40
    one = next(sample for sample in read if sample.entry.digest == digests[7])
    raw = np.random.default_rng(7).integers(0, 255, SPEC.shape).astype(np.uint8)
    assert np.array_equal(one.inputs["x"], (raw[0].transpose(2, 0, 1) - np.float32(4)) * np.float32(0.5))
    assert one.weight == 2.0


def test_the_same_store_and_labels_give_the_same_digest(root: Path, tmp_path: Path) -> None:
    digests = [put(root, number) for number in range(6)]
    file = labels(tmp_path, [f"{digest},{i % 3}" for i, digest in enumerate(digests)])
    first = collect(FolderStore(root), file, tmp_path / "one", RULE)
    second = collect(FolderStore(root), file, tmp_path / "two", RULE)
    assert first == second
    with pytest.raises(DataError, match="is there already"):
        collect(FolderStore(root), file, tmp_path / "two", RULE)


@given(
    st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True),
    st.floats(0, 1),
    st.floats(0, 1),
    st.lists(st.floats(0, 100), min_size=2, max_size=2),
)
def test_what_was_ever_held_out_is_never_trained_on(
    digest: str, share: float, other: float, days: list[float]
) -> None:
    captured = NOW - timedelta(days=days[0])
    rules = [
        SplitRule(held_out_share=max(share, other), recent_since=NOW - timedelta(days=day)) for day in days
    ]
    parts = {part_of(digest, captured, rule) for rule in rules}
    assert (parts == {"training"}) == ("training" in parts)
    # And with a greater share no sample comes back to training.
    small = part_of(digest, captured, SplitRule(held_out_share=min(share, other), recent_since=NOW))
    assert small == "training" or "training" not in parts


def test_equal_inputs_are_on_the_same_side_and_old_ones_of_those_held_out_are_for_nothing(
    root: Path, tmp_path: Path
) -> None:
    digests = [
        put(root, number, captured=NOW - timedelta(days=age)) for number in range(20) for age in (1, 30)
    ]
    file = labels(tmp_path, [f"{digest},0" for digest in digests])
    collect(FolderStore(root), file, tmp_path / "set", RULE)
    sides: dict[str, set[str]] = {}
    for entry in open_data_set(tmp_path / "set").entries():
        sides.setdefault(entry.payload_digest, set()).add(entry.part)
    assert len(sides) == 20
    assert {frozenset(parts) for parts in sides.values()} == {
        frozenset({"training"}),
        frozenset({"evaluation", "held-out"}),
    }


def test_what_the_policy_cut_away_is_nought_in_training(root: Path, tmp_path: Path) -> None:
    policy = PrivacyPolicy(store="input", crop=Box(left=1, top=0, width=2, height=3))
    digest = put(root, 5, policy=policy)
    collect(FolderStore(root), labels(tmp_path, [f"{digest},0"]), tmp_path / "set", RULE)
    data_set = open_data_set(tmp_path / "set")
    (entry,) = data_set.entries()
    seen = data_set.sample(entry).inputs["x"]
    assert seen.shape == (3, 4, 6)
    inside = np.zeros((4, 6), bool)
    inside[0:3, 1:3] = True
    assert np.all(seen[:, ~inside] == 0)
    assert np.any(seen[:, inside] != 0)


def test_a_part_reads_the_same_as_a_stream_as_batches_by_number_and_as_the_converters_file(
    root: Path, tmp_path: Path
) -> None:
    digests = [put(root, number) for number in range(30)]
    file = labels(tmp_path, [f"{digest},{i % 3}" for i, digest in enumerate(digests)])
    collect(FolderStore(root), file, tmp_path / "set", RULE)
    data_set = open_data_set(tmp_path / "set")
    stream = list(data_set.read("training"))
    batches = list(data_set.batches("training", 4))
    assert max(len(batch["x"]) for batch in batches) == 4
    indexed = data_set.indexed("training")
    count = data_set.write_npz("training", tmp_path / "training.npz")
    assert len(stream) == len(indexed) == count == sum(len(batch["x"]) for batch in batches)
    expected = np.stack([sample.inputs["x"] for sample in stream])
    assert np.array_equal(np.concatenate([batch["x"] for batch in batches]), expected)
    assert all(np.array_equal(indexed[i].inputs["x"], expected[i]) for i in range(count))
    for data in (tmp_path / "training.npz", lambda: data_set.batches("training", 7)):
        taken = load_samples(data, ["x"])
        assert np.array_equal(np.concatenate([sample.inputs["x"] for sample in taken]), expected)
        assert taken.labels is not None
        assert taken.labels.tolist() == [sample.label for sample in stream]


@pytest.mark.slow
def test_memory_does_not_grow_with_the_data_set(root: Path, tmp_path: Path) -> None:
    spec = SPEC.model_copy(update={"shape": (1, 100, 100, 3)})
    digests = [put(root, number, spec=spec) for number in range(120)]
    peaks = []
    for count in (30, 120):
        file = labels(tmp_path, [f"{digest},0" for digest in digests[:count]], f"{count}.csv")
        tracemalloc.start()
        collect(FolderStore(root), file, tmp_path / str(count), RULE)
        data_set = open_data_set(tmp_path / str(count))
        for part in data_set.manifest.counts:
            assert sum(1 for _ in data_set.read(part)) > 0
            data_set.write_npz(part, tmp_path / f"{count}-{part}.npz")
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
    # 90 more samples are 2.7 MB as they lie, 10.8 MB as floats; what is known of each may be kept.
    assert peaks[1] - peaks[0] < 90 * 4000


@pytest.mark.parametrize("damage", ["sample", "entries", "manifest", "gone"])
def test_a_byte_that_changed_in_a_data_set_is_found(damage: str, root: Path, tmp_path: Path) -> None:
    digest = put(root, 1)
    collect(FolderStore(root), labels(tmp_path, [f"{digest},0"]), tmp_path / "set", RULE)
    victim = {
        "sample": sample_path(tmp_path / "set", digest),
        "entries": tmp_path / "set" / "entries.jsonl",
        "manifest": tmp_path / "set" / "manifest.json",
        "gone": tmp_path / "set" / "manifest.json",
    }[damage]
    data = bytearray(victim.read_bytes())
    data[-3] ^= 1
    victim.write_bytes(data)
    if damage == "gone":
        victim.unlink()
    with pytest.raises(DataError) as caught:
        data_set = open_data_set(tmp_path / "set")
        for part in ("training", "evaluation", "held-out"):
            list(data_set.read(part))  # type: ignore[arg-type]
    assert "\n" not in str(caught.value)


def test_a_sample_that_is_damaged_in_the_store_stops_the_collection_and_leaves_nothing(
    root: Path, tmp_path: Path
) -> None:
    digests = [put(root, number) for number in range(3)]
    file = labels(tmp_path, [f"{digest},0" for digest in digests])
    victim = next(root.rglob(f"{digests[1].removeprefix('sha256:')}*"))
    victim.write_bytes(victim.read_bytes()[:-1] + b"?")
    with pytest.raises(DataError, match="is damaged"):
        collect(FolderStore(root), file, tmp_path / "set", RULE)
    assert not list(tmp_path.glob("*set*"))


def test_samples_of_two_models_or_of_other_inputs_are_no_data_set(root: Path, tmp_path: Path) -> None:
    first, second = put(root, 1), put(root, 2, model="other")
    file = labels(tmp_path, [f"{first},0", f"{second},1"])
    with pytest.raises(DataError, match="models net, other"):
        collect(FolderStore(root), file, tmp_path / "set", RULE)
    manifest, _ = collect(FolderStore(root), file, tmp_path / "net", RULE, model="net")
    assert manifest.skipped == {"of another model": 1}
    third = put(root, 3, spec=SPEC.model_copy(update={"shape": (1, 8, 8, 3)}))
    file = labels(tmp_path, [f"{first},0", f"{third},1"], "more.csv")
    with pytest.raises(DataError, match="other inputs or classes"):
        collect(FolderStore(root), file, tmp_path / "more", RULE)


def test_what_is_no_sample_is_told_apart_and_a_device_is_forgotten_alone(root: Path) -> None:
    for number in range(9):
        put(root, number)
    stray = root / "samples" / "kiosks" / "line-0" / "2026-11-19" / f"{'0' * 64}.sample"
    stray.write_bytes(b"what somebody left here")
    (root / "samples" / "kiosks" / "line-1" / ".half.sample.partial").write_bytes(b"half")
    found = list(find_samples(FolderStore(root)))
    assert len([one for one in found if isinstance(one, Unreadable)]) == 1
    groups = summary([one for one in found if isinstance(one, Found)], "site")
    assert [(group.group, group.reason, group.samples, group.devices) for group in groups] == [
        ("lab", "low-confidence", 4, 3),
        ("lab", "uniform", 5, 3),
    ]
    assert [group.inferences for group in groups] == [8.0, 500.0]
    one = next(one for one in found if isinstance(one, Found))
    data, (tensor,) = fetch(FolderStore(root), one)
    assert (digest_of(data), tensor.shape) == (one.digest, SPEC.shape)
    assert forget(FolderStore(root), "kiosks", "line-1") == 4
    left = [one for one in find_samples(FolderStore(root)) if isinstance(one, Found)]
    assert {one.sample.device for one in left} == {"line-0", "line-2"}
    assert len(left) == 6
    assert len(list(find_samples(FolderStore(root), fleet="kiosks", device="line-2"))) == 3
    assert list(find_samples(FolderStore(root), fleet="kiosk")) == []


digests = st.from_regex(r"sha256:[0-9a-f]{64}", fullmatch=True)
names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
moments = st.datetimes(timezones=st.just(timezone.utc))


@given(
    st.builds(
        DataSetManifest,
        model=names,
        classes=st.none() | st.lists(st.text(max_size=5), max_size=3).map(tuple),
        class_count=st.integers(2, 1000),
        inputs=st.just(({"name": "x", "shape": (1, 3)},)),
        split=st.builds(SplitRule, held_out_share=st.floats(0, 1), recent_since=moments),
        counts=st.dictionaries(st.sampled_from(["training", "evaluation"]), st.integers(0, 10**6)),
        reasons=st.dictionaries(st.sampled_from(["uniform", "low-margin"]), st.integers(0, 10**6)),
        releases=st.lists(digests, max_size=2).map(tuple),
        labels_digest=digests,
        entries_digest=digests,
        skipped=st.dictionaries(st.text(max_size=10), st.integers(0, 10**6), max_size=2),
    )
    | st.builds(
        DataSetEntry,
        digest=digests,
        payload_digest=digests,
        bytes=st.integers(1, 10**9),
        part=st.sampled_from(["training", "evaluation", "held-out"]),
        label=st.integers(0, 1000),
        labeller=st.none() | st.text(max_size=10),
        labelled=st.none() | st.text(max_size=10),
        fleet=names,
        device=names,
        device_labels=st.dictionaries(names, names, max_size=2),
        profile=st.text(max_size=10),
        version=names,
        release=digests,
        captured=moments,
        reason=st.sampled_from(["uniform", "low-margin"]),
        inclusion_probability=st.floats(1e-9, 1),
        policy=digests,
    )
)
def test_manifest_and_entries_survive_a_round_trip(contract: DataSetManifest | DataSetEntry) -> None:
    text = to_json(contract)
    assert from_json(type(contract), text, where="test") == contract
    assert to_json(from_json(type(contract), text, where="test")) == text
    assert json.loads(text)
