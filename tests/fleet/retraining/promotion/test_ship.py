"""What ships, with which card, and what is kept of it; nothing else does."""

from __future__ import annotations

import json
import subprocess
import sys
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import pytest

import edgewright as ew
from conftest import PROFILE
from edgewright.artifact.comparison import Comparison, Criteria, ReleaseId
from edgewright.artifact.layout import Layout
from edgewright.artifact.model_card import DataSummary, Decision, Lineage, ModelCard, Training, read_card
from edgewright.artifact.release import Release, find_artifact, open_all, open_release, open_releases, publish
from edgewright.errors import ArtifactError, ConfigError, EdgewrightError, RetrainingError, TrustError
from edgewright.trust.repository import Signing, create
from edgewright.trust.verify import verify_registry
from edgewright_fleet.retraining.chain import Chain
from edgewright_fleet.retraining.promotion.comparison import compare
from edgewright_fleet.retraining.promotion.handover import rollout_spec, write_rollout
from edgewright_fleet.retraining.promotion.ship import decision, ship
from edgewright_fleet.retraining.promotion.verdict import judge
from edgewright_fleet.rollout.spec import load_spec
from fleet.retraining.promotion.classifiers import put_classifier, registry_of, samples

AT = datetime(2026, 3, 1, 12, tzinfo=timezone.utc)
OLD, NEW = (0, 0, 0, 0), (0, 40, 0, 0)
DATA = DataSummary(
    used_for="field",
    digest=f"sha256:{'a' * 64}",
    samples=300,
    labelled=200,
    first_at=AT,
    last_at=AT,
    lineage="devices of kiosks, hard examples",
    privacy="faces are cropped out on the device",
)
TRAINING = Training(
    function="train:train", parameters={"rate": 0.01, "layers": [8, 8]}, seed=3, tools={"torch": "2.13.0"}
)


def comparison_of(serving: Release, candidate: Release, field: int = 300) -> Comparison:
    found = compare(serving, candidate, samples(300, (0, 18, 0, 0)), samples(field, NEW), latency_s=0)
    return judge(serving, candidate, found, Criteria(max_loss=15, max_group_loss=30))


def shipped(
    folder: Path, registry: Layout | None = None, *, by_hand: str | None = None
) -> tuple[Release, Chain]:
    serving, candidate = registry_of(folder / "candidates", OLD, NEW)
    chain = Chain(folder / "chain.jsonl")
    chain.add("trigger", "drift", {}, AT)
    comparison = comparison_of(serving, candidate)
    chain.add("comparison", comparison.says, {}, AT)
    base = ReleaseId(name=serving.name, version=serving.version, digest=serving.digest)
    release = ship(
        candidate,
        registry or candidate.layout,
        chain,
        who="anna",
        why=by_hand,
        comparison=comparison,
        lineage=Lineage(base=base, trigger="drift", training=TRAINING),
        data=[DATA],
        at=AT,
        intended_use="sorting animals",
        limits="not for people",
    )
    return release, chain


def card_of(release: Release) -> ModelCard:
    card = read_card(release)
    assert card is not None
    return card


def test_card_travels_in_the_release_and_says_what_led_to_it(tmp_path: Path) -> None:
    release, chain = shipped(tmp_path)
    again = open_release(Layout.open(tmp_path / "candidates"), "net:1.1.0")
    assert again.digest == release.digest
    card = card_of(again)
    assert card.data == (DATA,) and card.lineage.training == TRAINING
    assert card.lineage.base is not None and card.lineage.base.version == "1.0.0"
    assert card.comparison is not None and card.comparison.verdict == "better"
    assert card.decision.by == "comparison"
    assert [a.digest for a in card.artifacts] == [a.digest for a in again.artifacts.values()]
    # The card holds the head of the record as it was; the release's own link follows it.
    assert [link.kind for link in chain.links] == ["trigger", "comparison", "release"]
    assert chain.links[-1].before == card.lineage.chain_head
    assert chain.links[-1].evidence["digest"] == release.digest


def test_card_changes_no_artifact_and_each_is_still_found(tmp_path: Path) -> None:
    release, _ = shipped(tmp_path)
    reference = f"oci:{tmp_path}/candidates:net:1.1.0"
    assert list(release.artifacts) == [(PROFILE, "onnx")]
    assert find_artifact(reference).digest == release.artifacts[PROFILE, "onnx"].digest
    assert [a.manifest.version for a in open_all(f"{tmp_path}/candidates")] == ["1.0.0", "1.1.0"]
    assert ew.load(reference).manifest.version == "1.1.0"  # type: ignore[union-attr]
    (by_digest,) = open_releases(f"oci:{tmp_path}/candidates@{release.digest}")
    assert read_card(by_digest) == card_of(release)


def test_release_without_a_card_is_whole(tmp_path: Path) -> None:
    release, _ = registry_of(tmp_path, OLD, NEW)
    assert release.card is None and read_card(release) is None
    # What was published before cards keeps its digest.
    assert publish(release.layout, "net", "1.0.0", list(release.artifacts.values())).digest == release.digest


def test_candidate_ships_into_a_registry_of_its_own(tmp_path: Path) -> None:
    registry = Layout.create(tmp_path / "registry")
    release, _ = shipped(tmp_path, registry)
    assert list(registry.names()) == ["net:1.1.0"]
    assert release.layout == registry
    assert ew.load(f"oci:{registry.root}:net:1.1.0").run(samples(1, NEW)[0].inputs)
    assert card_of(release).comparison is not None


@pytest.mark.parametrize("part", ["manifest", "layer", "config"])
def test_corrupt_card_is_found_and_named(tmp_path: Path, part: str) -> None:
    release, _ = shipped(tmp_path)
    assert release.card is not None
    manifest = json.loads(release.layout.read(release.card))
    digest = {
        "manifest": release.card.digest,
        "layer": manifest["layers"][0]["digest"],
        "config": manifest["config"]["digest"],
    }[part]
    path = release.layout.path_of(digest)
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(ArtifactError, match="digest does not match"):
        read_card(open_release(release.layout, "net:1.1.0"))
    done = inspect(tmp_path / "candidates")
    assert done.returncode == 2 and path.name in done.stderr and done.stdout == ""


def test_card_of_another_release_is_refused(tmp_path: Path) -> None:
    release, _ = shipped(tmp_path)
    other = put_classifier(release.layout, "2.0.0", (1, 1, 1, 1))
    assert release.card is not None
    swapped = publish(release.layout, "net", "2.0.0", [*other.artifacts.values(), release.card])
    with pytest.raises(ArtifactError, match=r"another release than net:2\.0\.0"):
        read_card(swapped)


def test_worse_and_inconclusive_do_not_ship_by_themselves(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path, OLD, NEW)
    for comparison, word in (
        (comparison_of(candidate, serving), "worse"),
        (comparison_of(serving, candidate, field=0), "inconclusive"),
        (None, "not compared"),
    ):
        for why in (None, "", "  "):
            with pytest.raises(RetrainingError, match=f"does not ship by itself; it is {word}") as caught:
                decision(comparison, why=why)
            assert "\n" not in str(caught.value)
        by_hand = decision(comparison, who="anna@desk", why="the new lamps need it")
        assert by_hand == Decision(by="hand", who="anna@desk", why="the new lamps need it")


def test_who_promoted_by_hand_and_why_is_in_the_record_and_on_the_card(tmp_path: Path) -> None:
    release, chain = shipped(tmp_path, by_hand="the new lamps need it")
    assert card_of(release).decision.who == "anna"
    last = Chain(tmp_path / "chain.jsonl").links[-1]
    assert last == chain.links[-1]
    assert last.says == "net:1.1.0 promoted by hand, anna: the new lamps need it"


def test_a_shipping_that_fails_leaves_the_registry_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Layout.create(tmp_path / "registry")
    put_classifier(registry, "1.0.0", OLD)
    candidate = put_classifier(Layout.create(tmp_path / "candidates"), "1.1.0", NEW)
    before = sorted(registry.root.rglob("*"))

    def full(self: Layout, *_: object) -> None:
        raise OSError(28, "No space left on device")

    chain = Chain(tmp_path / "chain.jsonl")
    with monkeypatch.context() as patched, pytest.raises(OSError, match="No space"):
        patched.setattr(Layout, "tag", full)
        by_hand(candidate, registry, chain)
    assert sorted(registry.root.rglob("*")) == before and chain.links == ()
    assert by_hand(candidate, registry, chain).version == "1.1.0"


def by_hand(
    candidate: Release, registry: Layout, chain: Chain, comparison: Comparison | None = None, **more: Any
) -> Release:
    return ship(
        candidate,
        registry,
        chain,
        comparison=comparison,
        lineage=Lineage(),
        data=[],
        at=AT,
        why="test",
        **more,
    )


def test_a_release_is_signed_before_it_is_recorded(tmp_path: Path) -> None:
    registry, chain = Layout.create(tmp_path / "registry"), Chain(tmp_path / "chain.jsonl")
    candidate = put_classifier(Layout.create(tmp_path / "candidates"), "1.1.0", NEW)
    create(registry.root, tmp_path / "keys")
    online = next((tmp_path / "keys").glob("online-*"))
    away = online.rename(tmp_path / "online.pem")

    def sign(name: str) -> object:
        return Signing.open(registry.root, [tmp_path / "keys"]).sign(name)

    with pytest.raises(TrustError, match="signing snapshot lacks 1 of 1 keys"):
        by_hand(candidate, registry, chain, sign=sign)
    assert chain.links == ()
    away.rename(online)
    release = by_hand(candidate, registry, chain, sign=sign)
    assert [link.evidence["digest"] for link in chain.links] == [release.digest]
    assert verify_registry(registry.root).signers("net:1.1.0", release.digest) != ()


def test_a_crash_between_release_and_record_is_made_good_by_the_next_call(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Layout.create(tmp_path / "registry")
    candidate = put_classifier(Layout.create(tmp_path / "candidates"), "1.1.0", NEW)

    def cut(*_: object) -> None:
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Chain, "add", cut)
        by_hand(candidate, registry, Chain(tmp_path / "chain.jsonl"))
    named = open_release(registry, "net:1.1.0")
    chain = Chain(tmp_path / "chain.jsonl")
    assert by_hand(candidate, registry, chain).digest == named.digest
    assert [link.evidence["digest"] for link in chain.links] == [named.digest]


def test_what_ships_is_what_was_compared_and_takes_no_name_of_another(tmp_path: Path) -> None:
    serving, candidate = registry_of(tmp_path / "candidates", OLD, NEW)
    comparison = comparison_of(serving, candidate)
    chain = Chain(tmp_path / "chain.jsonl")
    changed = put_classifier(candidate.layout, "1.1.0", (0, 41, 0, 0))
    with pytest.raises(RetrainingError, match="not what was compared"):
        by_hand(changed, candidate.layout, chain, comparison)
    registry = Layout.create(tmp_path / "registry")
    put_classifier(registry, "1.1.0", OLD)
    with pytest.raises(RetrainingError, match=r"holds another net:1\.1\.0"):
        by_hand(changed, registry, chain)
    assert chain.links == ()


TEMPLATE = """
name: night
fleet: kiosks
release: net:0
registry: candidates
labels: {site: berlin}
waves: [1, rest]
gates: {max_p50_ratio: 1.2}
"""


def test_rollout_of_the_candidate_is_the_template_under_a_name_of_its_own(tmp_path: Path) -> None:
    release, _ = shipped(tmp_path)
    template = tmp_path / "night.yaml"
    template.write_text(TEMPLATE)
    spec = rollout_spec(template, release, taken=("night-1.1.0", "night-1.1.0-2"))
    assert (spec.name, spec.release) == ("night-1.1.0-3", "net:1.1.0")
    path = write_rollout(spec, tmp_path / "rollouts")
    read = load_spec(path)
    assert read == spec
    assert read.gates.max_p50_ratio == 1.2 and read.waves == (1, "rest") and read.labels == {"site": "berlin"}
    assert open_release(Layout.open(read.registry), read.release).digest == release.digest
    # What the template leaves to its defaults is left to them.
    assert "max_unavailable" not in path.read_text()


def test_long_names_stay_names(tmp_path: Path) -> None:
    release, _ = shipped(tmp_path)
    template = tmp_path / "night.yaml"
    template.write_text(TEMPLATE.replace("night", "n" * 128))
    first = rollout_spec(template, release)
    assert len(first.name) == 128
    second = rollout_spec(template, release, taken=[first.name])
    assert len(second.name) == 128 and second.name != first.name


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        (TEMPLATE.replace("net:0", "other:1"), "rolls out 'other', but the candidate is a 'net'"),
        (TEMPLATE.replace("[1, rest]", "[1]"), "waves"),
        ("waves: [", "night.yaml"),
    ],
)
def test_template_that_does_not_fit_is_one_line(tmp_path: Path, text: str, problem: str) -> None:
    release, _ = shipped(tmp_path)
    template = tmp_path / "night.yaml"
    template.write_text(text)
    with pytest.raises(ConfigError, match=problem) as caught:
        rollout_spec(template, release)
    assert isinstance(caught.value, EdgewrightError) and "\n" not in str(caught.value)


def inspect(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "edgewright_cli.main", "inspect", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)


def test_inspect_shows_the_card_and_writes_it(tmp_path: Path) -> None:
    release, _ = shipped(tmp_path)
    shown = inspect(tmp_path / "candidates")
    assert shown.returncode == 0, shown.stderr
    for words in (
        "Model card of net:1.1.0",
        "better",
        "sorting animals",
        "faces are cropped out on the device",
    ):
        assert words in shown.stdout
    entries = json.loads(inspect(tmp_path / "candidates", "--json").stdout)
    assert [entry["card"] is None for entry in entries] == [True, False]
    assert ModelCard.model_validate(entries[1]["card"]) == card_of(release)
    reference = f"oci:{tmp_path}/candidates:net:1.1.0"
    for ending, part in (("html", "<svg"), ("md", "## Decision"), ("json", '"schema": 1')):
        path = tmp_path / f"card.{ending}"
        done = inspect(reference, "--card", path)
        assert done.returncode == 0, done.stderr
        assert part in path.read_text(encoding="utf-8")
    for arguments, problem in (
        ((f"oci:{tmp_path}/candidates:net:1.0.0", "--card", tmp_path / "none.md"), "holds 0 model cards"),
        ((reference, "--card", tmp_path / "none.pdf"), "ends in none of"),
    ):
        done = inspect(*arguments)
        assert done.returncode == 2 and problem in done.stderr and done.stderr.count("\n") == 1
    assert not list(tmp_path.glob("none.*"))
