"""Fetching a release: out of the registry into the slot that does not serve, over a link that may break off.

While the registry is away it is asked again at growing intervals, for `download_retry_s`; blobs that are here are
not copied again. What the registry holds that this device cannot take is refused at once.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from typing import TypeVar

from edgewright.active_slot import SlotContent
from edgewright.artifact.layout import Layout, is_away
from edgewright.artifact.manifest import failed_checks
from edgewright.artifact.release import open_artifact, open_release_by_digest
from edgewright.errors import ArtifactError, EdgewrightError
from edgewright.twin import ReleaseReference
from edgewright_agent.config import AgentConfig
from edgewright_agent.slots import Slots
from edgewright_agent.trust import signed_size
from edgewright_profiles import HardwareProfile

FIRST_RETRY_S, LONGEST_RETRY_S = 1.0, 60.0
"""Twice as long each time, less up to a half by chance, as thousands of devices lose a registry at once."""
Away = Callable[[str, float], None]
"""Told what is wrong with the registry and for how many seconds to wait; what it raises ends the download."""
ReadT = TypeVar("ReadT")


def download(
    wanted: ReleaseReference, config: AgentConfig, profile: HardwareProfile, slots: Slots, away: Away
) -> SlotContent:
    """Bring a release's artifact for this device into a slot. Raises `EdgewrightError`."""
    end_s = time.monotonic() + config.download_retry_s

    def patiently(read: Callable[[], ReadT]) -> ReadT:
        delay_s = FIRST_RETRY_S
        while True:
            try:
                return read()
            except EdgewrightError as error:
                left_s = end_s - time.monotonic()
                if left_s <= 0 or not is_away(error, config.registry):
                    raise
                away(str(error), min(left_s, delay_s * random.uniform(0.5, 1.0)))  # noqa: S311 - no secret
            delay_s = min(2 * delay_s, LONGEST_RETRY_S)

    size, trust = None, config.trust
    if trust is not None:
        # Before anything of the registry is read by a program that knows more than signatures.
        size = patiently(
            lambda: signed_size(wanted, config.registry, root=trust.root, state_dir=config.state_dir)
        )
    release = patiently(
        lambda: open_release_by_digest(Layout.open(config.registry), str(wanted), wanted.digest, size)
    )
    chosen = release.choose(profile.name, profile.formats)
    artifact = patiently(lambda: open_artifact(release.layout, chosen))
    manifest = artifact.manifest
    found = f"{manifest.name}:{manifest.version} for {manifest.profile}"
    asked = f"{wanted} for {profile.name}"
    if found != asked:
        raise ArtifactError(f"the release holds {found}, not {asked}")
    failed = failed_checks(manifest)
    if failed and not config.accept_failed_artifacts:
        raise ArtifactError(
            f"the artifact failed its gate: {failed}",
            remedy="release a better one; accept_failed_artifacts = true in agent.toml takes it all the same",
        )
    return patiently(lambda: slots.install(artifact, wanted))
