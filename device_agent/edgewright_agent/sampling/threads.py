"""`Sampling`: the two threads that an agent with a table `[sampling]` has, and what they say of themselves."""

from __future__ import annotations

import threading
from collections.abc import Callable

from edgewright.object_store import open_store
from edgewright.telemetry import names
from edgewright_agent.config import AgentConfig
from edgewright_agent.control import Document
from edgewright_agent.exporter import Exporter
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
        self._reported: dict[str, int] = {}
        self._uploads: Uploads | None = None
        if settings.url is not None:
            store = open_store(settings.url, credentials_file=settings.credentials_file)
            self._uploads = Uploads(store, settings, waiting, stopping)
            self.threads.append(threading.Thread(target=self._uploads.run, name="uploads", daemon=True))

    def report(self, exporter: Exporter) -> None:
        """Count what became of samples since the last call, in the next payload."""
        sampler, uploads = self._sampler, self._uploads
        fates = {
            "kept": sum(sampler.kept.values()),
            "sent": 0 if uploads is None else uploads.sent,
            "over_budget": sampler.over_budget,
            "failed": sampler.failed,
        }
        for fate, samples in fates.items():
            if samples > self._reported.get(fate, 0):
                since = samples - self._reported.get(fate, 0)
                exporter.add(names.SAMPLES, "{sample}", since, {names.SAMPLE_FATE: fate})
        self._reported = fates

    def describe(self) -> Document:
        """What `edgewright agent status` shows."""
        sent = {} if self._uploads is None else {"samples_sent": self._uploads.sent}
        return self._sampler.describe() | sent
