from __future__ import annotations

import tempfile
from pathlib import Path

from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.active_slot import SlotState
from edgewright.twin import DesiredState, ReleaseReference
from edgewright_agent.checked_file import copy_of, read_checked, sweep_unfinished, write_checked

RELEASE = ReleaseReference(name="sorter", version="1.2.0", digest=f"sha256:{'0' * 64}")
STATE = SlotState(kept=DesiredState(release=RELEASE, rollout="r1"))


def test_what_was_written_is_read_and_nothing_is_to_be_mended(tmp_path: Path) -> None:
    path = tmp_path / "active.json"
    assert read_checked(SlotState, path).content is None
    write_checked(path, STATE)
    found = read_checked(SlotState, path)
    assert (found.content, found.damage, found.mend) == (STATE, None, False)


@settings(deadline=None)
@given(st.data())
def test_no_flipped_bit_and_no_missing_end_of_either_file_changes_what_is_read(data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "active.json"
        write_checked(path, STATE)
        victim = data.draw(st.sampled_from([path, copy_of(path)]))
        held = bytearray(victim.read_bytes())
        if data.draw(st.booleans()):
            bit = data.draw(st.integers(0, len(held) * 8 - 1))
            held[bit // 8] ^= 1 << bit % 8
        else:
            del held[data.draw(st.integers(0, len(held) - 1)) :]
        victim.write_bytes(held)
        found = read_checked(SlotState, path)
        assert found.content == STATE
        assert found.damage is not None
        assert found.mend


def test_with_both_damaged_nothing_is_read_and_both_are_named(tmp_path: Path) -> None:
    path = tmp_path / "active.json"
    for each in (path, copy_of(path)):
        each.write_text("{")
    found = read_checked(SlotState, path)
    assert found.content is None
    assert found.damage is not None
    assert "active.json" in found.damage
    assert "active.copy.json" in found.damage


def test_where_the_two_differ_the_first_counts(tmp_path: Path) -> None:
    path = tmp_path / "active.json"
    write_checked(path, STATE)
    old = path.read_bytes()
    write_checked(path, SlotState())
    path.write_bytes(old)  # as after a cut between the copy, which is written first, and the file
    found = read_checked(SlotState, path)
    assert (found.content, found.damage, found.mend) == (STATE, None, True)


def test_what_a_cut_left_of_a_write_is_swept_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "active.json"
    write_checked(path, STATE)
    for name in (".active.json.x1.partial", ".active.copy.json.x2.partial", "other.partial"):
        (tmp_path / name).write_text("")
    sweep_unfinished(path)
    assert {file.name for file in tmp_path.iterdir()} == {"active.json", "active.copy.json", "other.partial"}
