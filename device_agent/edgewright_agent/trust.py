"""Trust: a release is taken only if it is signed, which is known before anything of it is read.

The signature is checked in a process of its own with a limit on time. This is the agent's side, which starts it
and believes nothing but its plain yes; the process itself is `trust_process`.
"""

from __future__ import annotations

import json
import logging
import os
import subprocess
import sys
from pathlib import Path

from edgewright.errors import MissingArtifactError, TrustError
from edgewright.twin import UNTRUSTED, ReleaseReference

log = logging.getLogger("edgewright.agent")
CHECK_S = 60.0
"""Seconds for the check, which takes half a second of processor time."""
LOST = (
    "which signatures were seen last is lost: an older registry is not recognised until a newer one is seen"
)


def signed_size(wanted: ReleaseReference, registry: Path, *, root: Path, state_dir: Path) -> int:
    """The size in bytes of the release's index, as it is signed.

    Raises `TrustError` where the release is not to be taken, `MissingArtifactError` where the registry is away.
    """
    command = [sys.executable, "-m", "edgewright_agent.trust_process", str(registry), str(wanted)]
    command += [wanted.digest, "--root", str(root), "--state", str(state_dir), "--parent", str(os.getpid())]
    try:
        done = subprocess.run(command, capture_output=True, timeout=CHECK_S, check=False)
        answer = json.loads(done.stdout)
    except subprocess.TimeoutExpired:
        raise TrustError(f"{UNTRUSTED}: the check did not finish within {CHECK_S:g} s") from None
    except OSError as error:
        raise TrustError(f"{UNTRUSTED}: no process could be started ({error.strerror or error})") from None
    except ValueError:
        last = (done.stderr.decode(errors="replace").strip().splitlines() or ["no message"])[-1][:200]
        raise TrustError(f"{UNTRUSTED}: the check ended with {done.returncode} ({last})") from None
    if answer["damage"]:
        log.warning("%s: %s", answer["damage"], LOST)
    if answer["size"] is not None:
        return int(answer["size"])
    if answer["away"] is not None:
        raise MissingArtifactError(answer["says"].removeprefix(f"{answer['away']}: "), where=answer["away"])
    raise TrustError(answer["says"])
