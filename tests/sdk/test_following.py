"""An application beside an agent: the real slots of the agent, real models, real threads."""

from __future__ import annotations

import itertools
import logging
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

import edgewright as ew
from conftest import put_tiny, until
from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_artifact
from edgewright.contract import to_json
from edgewright.durable_file import write_durably
from edgewright.errors import ArtifactError, EdgewrightError, StorageError
from edgewright.runtime import following
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.slots import Slots

X = np.array([[0, 1, 2, 3]], np.uint8)


class Agent:
    """What the agent does to its state folder, by the agent's own code."""

    def __init__(self, registry: Layout, root: Path) -> None:
        self.registry = registry
        self.slots = Slots.open(root)
        self.releases = {}

    def publish(self, version: str, offset: int) -> None:
        """A version that adds `offset`."""
        self.releases[version] = put_tiny(self.registry, version, offset=offset)

    def install(self, version: str) -> Callable[[], None]:
        """Copy a version into the slot that does not serve; the switch to it is for the caller to make."""
        release = self.releases[version]
        reference = ReleaseReference(name="tiny", version=version, digest=release.digest)
        (descriptor,) = release.artifacts.values()
        content = self.slots.install(open_artifact(self.registry, descriptor), reference)

        def switch() -> None:
            self.slots.switch(content, DesiredState(release=reference, rollout="r"))
            self.slots.commit()

        return switch

    def serve(self, version: str) -> None:
        self.install(version)()


@pytest.fixture
def state(tmp_path: Path) -> Path:
    return tmp_path / "state"


@pytest.fixture
def agent(tmp_path: Path, state: Path) -> Agent:
    """It serves 1.0.0, which adds 1, and could serve 2.0.0, which adds 2."""
    one = Agent(Layout.create(tmp_path / "registry"), state)
    one.publish("1.0.0", 1)
    one.publish("2.0.0", 2)
    one.serve("1.0.0")
    return one


def added(model: ew.Model | ew.FollowingModel) -> int:
    """What the version that answers adds; fails for an output that no version would give."""
    found = set((model.run(X, raw=True)["y"] - X).ravel().tolist())
    assert len(found) == 1
    return int(found.pop())


def corrupt(model: Path) -> None:
    model.write_bytes(model.read_bytes()[:-1] + b"!")


def test_a_name_follows_the_agent_from_version_to_version(agent: Agent, state: Path) -> None:
    model = ew.load("tiny", state_dir=state)
    assert isinstance(model, ew.FollowingModel)
    assert (added(model), model.manifest and model.manifest.version) == (1, "1.0.0")
    agent.serve("2.0.0")
    assert until(lambda: added(model) == 2, 5)
    assert model.manifest is not None
    assert model.manifest.version == "2.0.0"
    real = X.astype(np.float32)
    assert np.array_equal(model.run(real)["y"], real + 1.0)  # two steps of 0.5
    assert (model.inputs[0].name, model.outputs[0].name) == ("x", "y")
    assert model.runtime.startswith("onnxruntime ")


def loading() -> bool:
    """Whether a version is being loaded; other tests' threads are none of ours."""
    return any(thread.name.startswith("following ") for thread in threading.enumerate())


def test_a_switch_does_not_make_a_call_wait(
    agent: Agent, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = ew.load("tiny", state_dir=state)
    may_load = threading.Event()
    real = following.load_artifact

    def slow(*arguments: object, **named: object) -> ew.Model:
        assert may_load.wait(10)
        return real(*arguments, **named)  # type: ignore[arg-type]

    monkeypatch.setattr(following, "load_artifact", slow)
    agent.serve("2.0.0")
    assert until(lambda: added(model) == 1 and loading(), 5)
    assert [added(model) for _ in range(100)] == [1] * 100
    held = model.current
    may_load.set()
    assert until(lambda: added(model) == 2, 5)
    assert added(held) == 1  # who holds a version keeps it


def test_what_the_pointer_says_anew_of_the_same_model_loads_nothing(agent: Agent, state: Path) -> None:
    model = ew.load("tiny", state_dir=state)
    before = model.current
    agent.slots.roll_back(None)
    threading.Event().wait(2 * following.CHECK_S)
    assert added(model) == 1
    assert until(lambda: not loading(), 5)
    assert model.current is before


def test_a_corrupt_version_is_never_loaded_and_the_old_one_serves_on(
    agent: Agent, state: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(following, "RETRY_S", 0.0)
    model = ew.load("tiny", state_dir=state)
    switch = agent.install("2.0.0")
    file = next(p for p in (state / "b" / "blobs" / "sha256").iterdir() if p.read_bytes()[:1] == b"\x08")
    sound = file.read_bytes()
    corrupt(file)
    with caplog.at_level(logging.WARNING):
        switch()
        assert until(lambda: added(model) == 1 and bool(caplog.records), 5)
        for _ in range(3):  # it is tried again and again, and said once
            threading.Event().wait(following.CHECK_S)
            assert added(model) == 1
    assert len(caplog.records) == 1
    line = caplog.records[0].getMessage()
    assert line.startswith("tiny 1.0.0 serves, as what the agent serves cannot be loaded: ")
    assert "its digest does not match" in line
    file.write_bytes(sound)
    assert until(lambda: added(model) == 2, 5)


def test_an_application_that_starts_on_a_corrupt_slot_takes_the_version_before(
    agent: Agent, state: Path, caplog: pytest.LogCaptureFixture
) -> None:
    agent.serve("2.0.0")
    model = ew.load("tiny", state_dir=state)
    assert model.artifact is not None
    corrupt(model.artifact.model_path)
    with caplog.at_level(logging.WARNING):
        assert added(ew.load("tiny", state_dir=state)) == 1
    assert len(caplog.records) == 1
    agent.slots.roll_back(None)


def test_both_slots_corrupt_is_one_line(agent: Agent, state: Path) -> None:
    agent.serve("2.0.0")
    for file in state.glob("[ab]/blobs/sha256/*"):
        corrupt(file)
    with pytest.raises(ArtifactError, match="digest does not match"):
        ew.load("tiny", state_dir=state)


@pytest.mark.parametrize("damage", [b"", b"{", b"\xff", b'{"schema":2}', b'{"active":{"slot":"c"}}'])
def test_a_damaged_pointer_is_one_line_at_the_start_and_changes_nothing_later(
    agent: Agent, state: Path, damage: bytes
) -> None:
    model = ew.load("tiny", state_dir=state)
    write_durably(state / "active.json", damage)
    with pytest.raises(ArtifactError) as caught:
        ew.load("tiny", state_dir=state)
    assert str(caught.value).startswith(str(state / "active.json"))
    assert "\n" not in str(caught.value)
    threading.Event().wait(2 * following.CHECK_S)
    assert added(model) == 1
    write_durably(state / "active.json", to_json(agent.slots.state))
    agent.serve("2.0.0")
    assert until(lambda: added(model) == 2, 5)


def test_another_model_of_the_agent_is_not_taken_for_this_one(agent: Agent, state: Path) -> None:
    with pytest.raises(ArtifactError, match="the agent serves 'tiny', not 'net'"):
        ew.load("net", state_dir=state)


def test_no_agent_and_no_model_yet_are_one_line_each(tmp_path: Path, state: Path) -> None:
    for setup, problem in ((None, "no agent keeps its state here"), (state.mkdir, "has no model here yet")):
        if setup:
            setup()
        with pytest.raises(ArtifactError, match=problem) as caught:
            ew.load("tiny", state_dir=state)
        assert "EDGEWRIGHT_STATE_DIR" in str(caught.value)
        assert "\n" not in str(caught.value)
    Slots.open(state).roll_back(None)
    with pytest.raises(ArtifactError, match="has no model here yet"):
        ew.load("tiny", state_dir=state)


def test_a_state_folder_that_cannot_be_read_is_one_line(agent: Agent, state: Path) -> None:
    (state / "active.json").unlink()
    (state / "active.json").mkdir()
    with pytest.raises(StorageError, match="is a folder"):
        ew.load("tiny", state_dir=state)


def test_the_state_folder_is_found_in_the_environment_or_where_a_unit_puts_it(
    agent: Agent, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(following.STATE_DIR_VARIABLE, str(state))
    assert added(ew.load("tiny")) == 1
    monkeypatch.delenv(following.STATE_DIR_VARIABLE)
    monkeypatch.setattr(following, "STATE_DIR", state)
    assert added(ew.load("tiny")) == 1


def test_a_file_or_folder_of_that_name_comes_first(
    agent: Agent, state: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "tiny").symlink_to(state / "a")
    assert isinstance(ew.load("tiny"), ew.Model)
    assert isinstance(ew.load("tiny", state_dir=state), ew.FollowingModel)


@pytest.mark.parametrize("target", ["model.onnx", "folder/that/is/not", "oci:nowhere:tiny:1", ""])
def test_what_is_no_name_is_no_question_to_the_agent(target: str, agent: Agent, state: Path) -> None:
    with pytest.raises(EdgewrightError) as caught:
        ew.load(target)
    assert "agent" not in str(caught.value)
    if not target.endswith(".onnx"):
        with pytest.raises(ArtifactError, match="is not a model's name"):
            ew.load(target, state_dir=state)


@pytest.mark.slow
def test_no_call_is_lost_or_torn_while_versions_switch_as_fast_as_the_disk_allows(
    agent: Agent, state: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each installation overwrites the slot that was just left, which a reader may still be loading from."""
    monkeypatch.setattr(following, "CHECK_S", 0.002)
    for i in range(3, 9):
        agent.publish(f"{i}.0.0", i)
    model = ew.load("tiny", state_dir=state)
    stop, problems, seen = threading.Event(), [], [set[int]() for _ in range(4)]

    def call(mine: set[int]) -> None:
        while not stop.is_set():
            try:
                mine.add(added(model))
            except BaseException as error:  # noqa: BLE001 - any of them would be a lost call
                problems.append(error)
                return
            time.sleep(0.001)

    threads = [threading.Thread(target=call, args=(mine,)) for mine in seen]
    for thread in threads:
        thread.start()
    for i, _ in zip(itertools.cycle(range(2, 9)), range(60), strict=False):
        agent.serve(f"{i}.0.0")
    agent.serve("1.0.0")
    assert until(lambda: added(model) == 1, 10)
    stop.set()
    for thread in threads:
        thread.join(10)
    assert problems == []
    assert all(mine <= set(range(1, 9)) and len(mine) > 3 for mine in seen)
