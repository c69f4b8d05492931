"""`Sampling`: the two threads that an agent with a table `[sampling]` has, and what they say of themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgewright.object_store import open_store
from edgewright_agent.config import AgentConfig
from edgewright_agent.control import Document
from edgewright_agent.sampling.offers import Offers
from edgewright_agent.sampling.sampler import Sampler
from edgewright_agent.sampling.uploads import Uploads
from edgewright_agent.sampling.waiting import WaitingSamples
from edgewright_agent.sampling_config import SamplingConfig


class Sampling:
    """Of one device."""

    def __init__(
        self,
        config: AgentConfig,
        settings: SamplingConfig,
        profile: str,
        current: Callable[[], Offers | None],
        stopping: threading.Event,
    ) -> None:
        """`current` gives the offers of what is served. Raises `ConfigError` for an address or credentials."""
        waiting = WaitingSamples(config.state_dir / "samples", settings.bytes_on_disk)
        self._sampler = Sampler(config, settings, profile, current, waiting)
        self.threads = [
            threading.Thread(target=self._sampler.run, args=(stopping,), name="samples", daemon=True)
        ]
        self._uploads: Uploads | None = None
        if settings.url is not None:
            store = open_store(settings.url, credentials_file=settings.credentials_file)
            self._uploads = Uploads(store, settings, waiting, stopping)
            self.threads.append(threading.Thread(target=self._uploads.run, name="uploads", daemon=True))

    def describe(self) -> Document:
        """What `edgewright agent status` shows."""
        sent = {} if self._uploads is None else {"samples_sent": self._uploads.sent}
        return self._sampler.describe() | sent
