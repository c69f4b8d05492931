from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

import edgewright_agent.slots as slots_module
from edgewright.active_slot import FailedUpdate, SlotContent, SlotState
from edgewright.artifact.layout import Layout
from edgewright.artifact.release import Artifact, open_artifact, open_release_by_digest
from edgewright.contract import from_json, to_json
from edgewright.errors import ArtifactError, StorageError
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.slots import CUT_SHORT, Serving, Slots


class Usage(NamedTuple):
    free: int


def artifact_of(registry: Path, release: ReleaseReference) -> Artifact:
    layout = Layout.open(registry)
    (descriptor,) = open_release_by_digest(layout, str(release), release.digest).artifacts.values()
    return open_artifact(layout, descriptor)


def wish(release: ReleaseReference, rollout: str = "r1") -> DesiredState:
    return DesiredState(release=release, rollout=rollout)


def version(serving: Serving | None) -> str | None:
    return serving.content.release.version if serving else None


def started(root: Path) -> tuple[Slots, str | None, str | None]:
    """The slots as a new process finds them, the version that serves, and the reason."""
    slots = Slots.open(root)
    serving, reason = slots.start(lambda s: s)
    return slots, version(serving), reason


def take(slots: Slots, registry: Any, release: ReleaseReference) -> SlotContent:
    content = slots.install(artifact_of(registry.root, release), release)
    slots.switch(content, wish(release))
    return content


def kept(root: Path, registry: Any, *versions: str) -> Slots:
    slots = Slots.open(root)
    for each in versions:
        take(slots, registry, registry.release(each))
        slots.commit()
    return slots


def flip_a_byte_of_the_model(slots: Slots, content: SlotContent) -> None:
    blob = slots.verify(content).artifact.model_path
    blob.write_bytes(blob.read_bytes()[:-1] + b"!")


def test_a_new_device_has_nothing_to_serve_and_no_complaint(tmp_path: Path) -> None:
    assert started(tmp_path / "state")[1:] == (None, None)


def test_a_kept_release_serves_after_a_restart(tmp_path: Path, registry: Any) -> None:
    kept(tmp_path / "state", registry, "1.0.0", "1.1.0")
    assert started(tmp_path / "state")[1:] == ("1.1.0", None)


def test_a_restart_while_watching_goes_back_and_counts_as_a_failure(tmp_path: Path, registry: Any) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0")
    release = registry.release("1.1.0")
    take(slots, registry, release)
    again, serves, reason = started(tmp_path / "state")
    assert (serves, reason) == ("1.0.0", CUT_SHORT)
    assert again.state.failure == FailedUpdate(desired=wish(release), reason=CUT_SHORT)
    assert started(tmp_path / "state")[1:] == ("1.0.0", None)


def test_a_first_release_that_is_cut_short_leaves_nothing_to_serve(tmp_path: Path, registry: Any) -> None:
    take(Slots.open(tmp_path / "state"), registry, registry.release("1.0.0"))
    assert started(tmp_path / "state")[1:] == (None, CUT_SHORT)


def test_an_installation_that_is_cut_short_leaves_the_active_slot_alone(
    tmp_path: Path, registry: Any
) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0")
    release = registry.release("1.1.0")
    content = slots.install(artifact_of(registry.root, release), release)
    (slots.folder(content) / "index.json").unlink()
    again, serves, reason = started(tmp_path / "state")
    assert (serves, reason) == ("1.0.0", None)
    take(again, registry, release)
    again.commit()
    assert started(tmp_path / "state")[1] == "1.1.0"


def test_a_corrupt_active_slot_is_passed_over_for_the_sound_one(tmp_path: Path, registry: Any) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0", "1.1.0")
    assert slots.state.active is not None
    flip_a_byte_of_the_model(slots, slots.state.active)
    again, serves, reason = started(tmp_path / "state")
    assert serves == "1.0.0"
    assert reason is not None
    assert "slot b cannot be used" in reason
    assert "digest does not match" in reason
    # The next installation must not take the slot that serves now.
    assert take(again, registry, registry.release("1.2.0")).slot == "b"


def test_with_both_slots_corrupt_nothing_serves_and_the_reason_is_given(
    tmp_path: Path, registry: Any
) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0", "1.1.0")
    assert slots.state.active is not None
    assert slots.state.previous is not None
    flip_a_byte_of_the_model(slots, slots.state.active)
    shutil.rmtree(slots.folder(slots.state.previous))
    _, serves, reason = started(tmp_path / "state")
    assert serves is None
    assert reason is not None
    assert "slot a cannot be used" in reason


def test_a_slot_that_holds_another_sound_artifact_is_not_served(tmp_path: Path, registry: Any) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0", "1.1.0")
    shutil.rmtree(slots.root / "b")
    shutil.copytree(slots.root / "a", slots.root / "b")
    assert slots.state.active is not None
    with pytest.raises(ArtifactError, match="holds another artifact than was installed"):
        slots.verify(slots.state.active)


def test_a_pointer_that_cannot_be_read_is_a_reason_not_a_crash(tmp_path: Path, registry: Any) -> None:
    kept(tmp_path / "state", registry, "1.0.0")
    (tmp_path / "state" / "active.json").write_text("{")
    (tmp_path / "state" / "active.copy.json").write_text("{")
    _, serves, reason = started(tmp_path / "state")
    assert serves is None
    assert reason is not None
    assert reason.startswith("the pointer to the slots cannot be read")


def test_a_damaged_pointer_is_mended_from_its_copy(tmp_path: Path, registry: Any) -> None:
    kept(tmp_path / "state", registry, "1.0.0")
    pointer = tmp_path / "state" / "active.json"
    sound = pointer.read_bytes()
    pointer.write_bytes(sound[:40])
    assert started(tmp_path / "state")[1:] == ("1.0.0", None)
    assert pointer.read_bytes() == sound


def test_an_installation_that_fails_leaves_nothing_behind(tmp_path: Path, registry: Any) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0")
    release = registry.release("1.1.0")
    artifact = artifact_of(registry.root, release)
    registry.flip_a_byte_of_the_model("1.1.0")
    with pytest.raises(ArtifactError, match="digest does not match"):
        slots.install(artifact, release)
    assert not (tmp_path / "state" / "b").exists()


def test_what_the_disk_has_no_room_for_is_refused_before_anything_is_given_up(
    tmp_path: Path, registry: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0", "1.1.0")
    release = registry.release("1.2.0")
    monkeypatch.setattr(slots_module.shutil, "disk_usage", lambda path: Usage(free=0))
    monkeypatch.setattr(slots_module, "_held", lambda folder: 100)
    with pytest.raises(StorageError, match="the disk has room for 100 B, and the artifact takes"):
        slots.install(artifact_of(registry.root, release), release)
    assert slots.previous().release.version == "1.0.0"


def test_a_file_where_a_slot_should_be_is_replaced(tmp_path: Path, registry: Any) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0")
    (tmp_path / "state" / "b").write_text("")
    take(slots, registry, registry.release("1.1.0"))
    slots.commit()
    assert started(tmp_path / "state")[1] == "1.1.0"


def test_going_back_by_hand_is_durable_and_going_back_again_returns(tmp_path: Path, registry: Any) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0", "1.1.0")
    newer = slots.state.active
    assert newer is not None
    assert slots.go_back("by hand").release.version == "1.0.0"
    again, serves, reason = started(tmp_path / "state")
    assert (serves, reason) == ("1.0.0", None)
    assert again.state.failure == FailedUpdate(desired=wish(newer.release), reason="by hand")
    assert again.go_back("by hand").release.version == "1.1.0"
    assert started(tmp_path / "state")[1] == "1.1.0"


def test_there_is_no_going_back_to_nothing_to_what_is_corrupt_or_while_watching(
    tmp_path: Path, registry: Any
) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0")
    with pytest.raises(ArtifactError, match="no release to go back to"):
        slots.go_back("by hand")
    take(slots, registry, registry.release("1.1.0"))
    with pytest.raises(ArtifactError, match="no release to go back to"):
        slots.go_back("by hand")
    slots.commit()
    flip_a_byte_of_the_model(slots, slots.previous())
    with pytest.raises(ArtifactError, match="digest does not match"):
        slots.go_back("by hand")
    assert started(tmp_path / "state")[1] == "1.1.0"


def test_a_roll_back_holds_for_this_process_even_if_the_disk_refuses_it(
    tmp_path: Path, registry: Any
) -> None:
    slots = kept(tmp_path / "state", registry, "1.0.0")
    take(slots, registry, registry.release("1.1.0"))
    (tmp_path / "state" / "active.json").unlink()
    (tmp_path / "state" / "active.json").mkdir()  # as good as a disk that cannot be written, and for root too
    with pytest.raises(Exception, match=r"active\.json"):
        slots.roll_back(None)
    assert slots.state.active is not None
    assert slots.state.active.release.version == "1.0.0"
    # The slot to overwrite next is the one that was rolled back, not the one that serves.
    assert slots.install(artifact_of(registry.root, registry.release("1.2.0")), wish_release).slot == "b"


wish_release = ReleaseReference(name="sorter", version="1.2.0", digest=f"sha256:{'0' * 64}")

names = st.from_regex(r"[A-Za-z0-9][A-Za-z0-9._-]{0,20}", fullmatch=True)
digests = st.text("0123456789abcdef", min_size=64, max_size=64).map("sha256:{}".format)
releases = st.builds(ReleaseReference, name=names, version=names, digest=digests)
contents = st.builds(SlotContent, slot=st.sampled_from(["a", "b"]), release=releases, artifact=digests)
wishes = st.builds(DesiredState, release=releases, rollout=st.text(), revert=st.booleans())
states = st.builds(
    SlotState,
    active=st.none() | contents,
    previous=st.none() | contents,
    watching=st.none() | wishes,
    kept=st.none() | wishes,
    failure=st.none() | st.builds(FailedUpdate, desired=wishes, reason=st.text()),
)


@given(states)
def test_the_pointer_reads_back_as_it_was_written(state: SlotState) -> None:
    assert from_json(SlotState, to_json(state), where="active.json") == state


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=50, deadline=None)
@given(st.binary(max_size=200))
def test_whatever_the_pointer_holds_a_device_starts(tmp_path: Path, noise: bytes) -> None:
    (tmp_path / "active.json").write_bytes(noise)
    assert started(tmp_path)[1] is None


class PowerCuts(RuleBasedStateMachine):
    """Updates with power cuts anywhere between their durable steps: the last kept release always serves."""

    artifacts: list[tuple[ReleaseReference, Artifact]]

    @initialize()
    def a_new_device(self) -> None:
        self.root = Path(tempfile.mkdtemp()) / "state"
        self.slots = Slots.open(self.root)
        self.kept: str | None = None
        self.installed: SlotContent | None = None
        self.watched: str | None = None

    @precondition(lambda self: self.watched is None)
    @rule(data=st.data())
    def install(self, data: st.DataObject) -> None:
        release, artifact = data.draw(st.sampled_from(self.artifacts))
        self.installed = self.slots.install(artifact, release)

    @precondition(lambda self: self.installed is not None and self.watched is None)
    @rule()
    def switch(self) -> None:
        assert self.installed is not None
        self.slots.switch(self.installed, wish(self.installed.release))
        self.watched, self.installed = self.installed.release.version, None

    @precondition(lambda self: self.watched is not None)
    @rule()
    def commit(self) -> None:
        self.slots.commit()
        self.kept, self.watched = self.watched, None

    @precondition(lambda self: self.watched is not None)
    @rule()
    def roll_back(self) -> None:
        self.slots.roll_back(None)
        self.watched = None

    @rule()
    def lose_power_and_start_again(self) -> None:
        self.slots, serves, reason = started(self.root)
        assert serves == self.kept
        assert (reason is not None) == (self.watched is not None)
        self.watched = self.installed = None

    @invariant()
    def a_start_now_would_serve_the_last_kept_release(self) -> None:
        copy = Path(tempfile.mkdtemp(dir=self.root.parent)) / "state"
        shutil.copytree(self.root, copy)
        assert started(copy)[1] == self.kept

    def teardown(self) -> None:
        shutil.rmtree(self.root.parent)


@pytest.mark.slow
def test_the_last_kept_release_survives_power_cuts_in_any_order(registry: Any) -> None:
    from hypothesis.stateful import run_state_machine_as_test

    published = [registry.release(f"{i}.0.0") for i in (1, 2, 3)]
    PowerCuts.artifacts = [(release, artifact_of(registry.root, release)) for release in published]
    run_state_machine_as_test(
        PowerCuts, settings=settings(max_examples=15, stateful_step_count=12, deadline=None)
    )
