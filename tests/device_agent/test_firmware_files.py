from __future__ import annotations

import configparser
import shutil
import subprocess
from pathlib import Path

import pytest

UNIT = Path(__file__).parents[2] / "firmware_images" / "systemd" / "edgewright-agent.service"


def test_the_agent_runs_as_a_user_of_its_own_and_is_always_restarted() -> None:
    unit = configparser.ConfigParser(interpolation=None)
    unit.optionxform = str  # type: ignore[assignment,method-assign]
    unit.read(UNIT)
    service = unit["Service"]
    assert (service["User"], service["Restart"]) == ("edgewright", "always")
    assert service["ExecStart"].split()[1:3] == ["agent", "run"]
    assert (service["NoNewPrivileges"], service["ProtectSystem"]) == ("yes", "strict")


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="needs systemd-analyze")
def test_systemd_finds_nothing_to_complain_about(tmp_path: Path) -> None:
    program = tmp_path / "edgewright"
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    copy = tmp_path / UNIT.name
    copy.write_text(UNIT.read_text().replace("/opt/edgewright/bin/edgewright", str(program)))
    drop_in = tmp_path / f"{UNIT.name}.d" / "camera.conf"
    drop_in.parent.mkdir()
    drop_in.write_text((UNIT.parent / "camera.conf").read_text())
    done = subprocess.run(
        ["systemd-analyze", "verify", str(copy)], capture_output=True, text=True, check=False
    )
    ours = [line for line in done.stderr.splitlines() if UNIT.name in line or str(tmp_path) in line]
    assert (done.returncode, ours) == (0, [])
