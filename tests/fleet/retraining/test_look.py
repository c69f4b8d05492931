"""What is known of each group of devices, from the places where it is kept, and the run that follows from it."""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import yaml

from edgewright.errors import StorageError
from edgewright_fleet.retraining.look import begin_run, look, under_way
from edgewright_fleet.retraining.loop import by_hand
from edgewright_fleet.retraining.spec import RetrainingSpec, load_spec
from edgewright_fleet.retraining.triggers.trigger import NotFired, Trigger
from fleet.retraining.field_data.stored_samples import NOW, labels, put

DATA = {"training": "train.npz", "evaluation": "test.npz"}
"""None from the field."""


@pytest.fixture
def store(tmp_path: Path) -> Path:
    """Twelve samples, on two sites; the model took every one for class 1."""
    root = tmp_path / "samples"
    root.mkdir()
    rows = []
    for number in range(12):
        digest = put(root, number, top=1, reason="uniform", labels={"site": ("lab", "shop")[number % 2]})
        rows.append(f"{digest},{1 if number < 3 else 2},anna")
    labels(tmp_path, rows)
    return root


def spec(folder: Path, triggers: dict[str, Any], **changes: Any) -> RetrainingSpec:
    document = {
        "name": "night",
        "fleet": "kiosks",
        "model": "vision:net",
        "release": "net",
        "registry": "registry",
        "by": "site",
        "triggers": triggers,
        "training": {"function": "vision:train"},
        "data": {
            "training": "train.npz", "evaluation": "test.npz", "samples": "samples", "labels": "labels.csv",
        },
        "conversion": {"profiles": ["raspberry-pi-5"]},
    } | changes  # fmt: skip
    for data in ("train.npz", "test.npz"):
        (folder / data).touch()
    (folder / "spec.yaml").write_text(yaml.safe_dump(document))
    return load_spec(folder / "spec.yaml")


def test_new_samples_are_counted_by_group_since_the_last_training(tmp_path: Path, store: Path) -> None:
    wanted = spec(tmp_path, {"samples": {"count": 6}, "cooldown_s": 3600})
    first = look(wanted, NOW)
    assert [(one.evidence.group, one.evidence.new_samples) for one in first] == [("lab", 6), ("shop", 6)]
    trigger = first[0]
    assert isinstance(trigger, Trigger) and trigger.kind == "samples"
    run = begin_run(wanted, trigger, NOW)
    assert [each.name for each in under_way(wanted)] == ["night-0001"] == [run.name]
    assert run.chain.links[0].evidence["trigger"] == trigger.model_dump(
        mode="json", by_alias=True, exclude_none=True
    )
    cooling = look(wanted, NOW + timedelta(minutes=1))
    assert all(isinstance(one, NotFired) and "short a time ago" in one.because[0] for one in cooling)
    run.chain.add("data", "some", {}, NOW)
    run.chain.add("training", "trained", {}, NOW)
    assert [one.evidence.group for one in look(wanted, NOW + timedelta(hours=2))] == ["all"]


def test_answers_chosen_by_chance_say_how_often_the_model_is_right(tmp_path: Path, store: Path) -> None:
    put(store, 99, top=1, reason="low-confidence", labels={"site": "lab"})
    lab, shop = look(spec(tmp_path, {"accuracy": {"least": 0.9, "margin": 0.3}}), NOW)
    assert lab.evidence.labels is not None and shop.evidence.labels is not None
    assert (lab.evidence.labels.labelled, lab.evidence.labels.correct) == (6, 2)
    assert (shop.evidence.labels.labelled, shop.evidence.labels.correct) == (6, 1)
    assert lab.evidence.new_samples == 7
    assert isinstance(shop, Trigger) and shop.kind == "accuracy"


def test_without_any_store_the_fleet_is_one_group(tmp_path: Path) -> None:
    (one,) = look(spec(tmp_path, {"schedule": {"every_s": 1}}, data=DATA), NOW)
    assert isinstance(one, NotFired) and one.evidence.group == "all"


def test_what_a_person_tried_in_vain_puts_no_trigger_off(tmp_path: Path, store: Path) -> None:
    wanted = spec(tmp_path, {"samples": {"count": 6}, "cooldown_s": 3600})
    run = by_hand(wanted, "", "anna", NOW)
    run.stop("training: weights: no such file", NOW)
    assert isinstance(look(wanted, NOW + timedelta(minutes=1))[0], Trigger)
    run.chain.add("training", "trained", {}, NOW - timedelta(days=9999))  # before the samples
    cooling = look(wanted, NOW + timedelta(minutes=1))
    assert all(isinstance(one, NotFired) and "short a time ago" in one.because[0] for one in cooling)


def test_a_hub_s_store_that_is_not_there_is_not_taken_for_devices_that_do_not_drift(tmp_path: Path) -> None:
    with pytest.raises(StorageError, match=r"hub\.sqlite: does not exist; .*fleet hub --store"):
        look(spec(tmp_path, {"drift": {}}, hub="hub.sqlite", data=DATA), NOW)
    (one,) = look(spec(tmp_path, {"drift": {}}, data=DATA), NOW)
    assert isinstance(one, NotFired) and "`hub` names the store" in one.because[0]
