"""`Sampler`: looks at what inferences offer, decides by chance and budget, and keeps what the policy leaves.

It runs in a thread of its own, ten looks a second, each of some 100 µs. Nothing that goes wrong here is an error
to the inference: it costs samples, which are counted.
"""

from __future__ import annotations

import logging
import random
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path

from edgewright.artifact.layout import digest_of
from edgewright.artifact.manifest import ArtifactManifest
from edgewright.contract import from_json, to_json
from edgewright.durable_file import write_durably
from edgewright.errors import EdgewrightError
from edgewright.field_sample import FieldSample, Reason, StoredTensor, pack, packed_tensors
from edgewright.privacy import NotAllowedError, redacted, stored_bytes
from edgewright_agent.config import AgentConfig
from edgewright_agent.control import Document
from edgewright_agent.sampling.allowance import Ledger, chances, inclusion, later, per_hour, spent
from edgewright_agent.sampling.hardness import Examiner, Traits, reason_for
from edgewright_agent.sampling.offers import Offer, Offers
from edgewright_agent.sampling.waiting import WaitingSamples
from edgewright_agent.sampling_config import SamplingConfig

log = logging.getLogger("edgewright.agent")
LOOK_PERIOD_S = 0.1
"""Between two looks: a slower device has each of its inferences looked at, a faster one a known share."""
LEDGER = "budget.json"
HEAD_ESTIMATE = 2048
"""Bytes that the line of a sample is taken to have, before there is one."""


@dataclass(frozen=True)
class _Subject:
    """The model whose inferences are looked at."""

    offers: Offers
    examiner: Examiner
    size: int
    """Bytes of a sample."""


class Sampler:
    """Of one device. `run` is a thread's work."""

    def __init__(
        self,
        config: AgentConfig,
        settings: SamplingConfig,
        profile: str,
        current: Callable[[], Offers | None],
        waiting: WaitingSamples,
        *,
        draw: Callable[[], float] = random.random,
    ) -> None:
        """`current` gives the offers of what is served, `draw` a number from 0 to 1 by chance."""
        self._config, self._settings, self._profile = config, settings, profile
        self._current, self._waiting, self._draw = current, waiting, draw
        self._path = config.state_dir / "samples" / LEDGER
        self._ledger = _read_ledger(self._path, settings)
        self._subject: _Subject | None = None
        self._refused: Offers | None = None
        self._said: str | None = None
        self.kept: dict[Reason, int] = {}
        """Samples by reason, since the start; with `store: nothing`, those that would have been kept."""
        self.over_budget = 0
        """Samples that no bytes were left for: what they stand for is missing in estimates."""
        self.failed = 0
        """Samples that the disk did not take."""

    def run(self, stopping: threading.Event) -> None:
        """Look until `stopping` is set."""
        while not stopping.wait(LOOK_PERIOD_S):
            try:
                self.look(time.time())
            except Exception as error:  # noqa: BLE001 - no sample is worth the thread that takes the next
                self._fail(error)

    def look(self, now_s: float) -> None:
        """Take one inference that was offered, if any was, and decide about it."""
        offers = self._current()
        offer = offers.take() if offers is not None else None
        if offers is None or offer is None or offers is self._refused:
            return
        if self._subject is None or self._subject.offers is not offers:
            self._subject = self._examined(offers)
        if self._subject is not None:
            self._decide(self._subject, offer, now_s)

    def describe(self) -> Document:
        """What `edgewright agent status` shows."""
        return {
            "samples_kept": sum(self.kept.values()),
            "samples_waiting": len(self._waiting),
            "samples_over_budget": self.over_budget,
            "samples_failed": self.failed,
            "samples_bytes_today": self._ledger.day_bytes,
        }

    def _examined(self, offers: Offers) -> _Subject | None:
        try:
            size = stored_bytes(self._settings.policy, offers.manifest) + HEAD_ESTIMATE
        except NotAllowedError as error:
            log.warning("no samples of %s are kept: %s", offers.content.release, error)
            self._refused = offers
            return None
        return _Subject(offers, Examiner(offers.manifest), size)

    def _decide(self, subject: _Subject, offer: Offer, now_s: float) -> None:
        settings = self._settings
        traits = subject.examiner.traits(offer.inputs, offer.outputs)
        label = _label(subject.offers.manifest, traits.top)
        if label in settings.drop_labels:
            return
        hard = reason_for(traits, settings)
        rate = per_hour(settings.samples_per_hour, settings.bytes_per_day, subject.size)
        share = settings.uniform_share
        self._ledger = later(self._ledger, now_s, per_hour=rate, uniform_share=share)
        by_chance, as_hard = chances(self._ledger, hard=hard is not None, uniform_share=share)
        if self._draw() < by_chance:
            reason: Reason = "uniform"
        elif hard is not None and self._draw() < as_hard:
            reason = hard
        else:
            return
        self._keep(subject.offers, offer, traits, label, reason, inclusion(by_chance, as_hard, offer.share))

    def _keep(
        self,
        offers: Offers,
        offer: Offer,
        traits: Traits,
        label: str | None,
        reason: Reason,
        probability: float,
    ) -> None:
        policy = self._settings.policy
        data = b""
        if policy.store != "nothing":
            manifest, release = offers.manifest, offers.content.release
            left = redacted(policy, offer.inputs, manifest.inputs)
            payload = packed_tensors(left)
            sample = FieldSample(
                fleet=self._config.fleet,
                device=self._config.device,
                labels=self._config.labels,
                profile=self._profile,
                model=manifest.name,
                version=manifest.version,
                release=release.digest,
                artifact=offers.content.artifact,
                captured=datetime.fromtimestamp(offer.captured_s, timezone.utc),
                reason=reason,
                inclusion_probability=probability,
                classes=traits.classes,
                top=traits.top,
                label=label,
                confidence=traits.confidence,
                margin=traits.margin,
                shift=traits.shift,
                policy=policy,
                tensors=tuple(
                    StoredTensor(spec=spec, shape=array.shape)
                    for spec, array in zip(manifest.inputs, left, strict=True)
                ),
                payload_digest=digest_of(payload),
            )
            data = pack(sample, payload)
            day_bytes = self._ledger.day_bytes + len(data)
            if day_bytes > self._settings.bytes_per_day or not self._waiting.has_room_for(len(data)):
                self.over_budget += 1
                return
        after = spent(self._ledger, uniform=reason == "uniform", size=len(data))
        try:
            if data:
                self._waiting.make_folder()
                # Before the sample: a power cut between the two costs budget, and never exceeds it.
                write_durably(self._path, to_json(after))
                self._waiting.put(data, offer.captured_s)
        except EdgewrightError as error:
            self._fail(error)
            return
        self._ledger = after
        self.kept[reason] = self.kept.get(reason, 0) + 1
        self._said = None

    def _fail(self, error: Exception) -> None:
        self.failed += 1
        if self._said != str(error):
            log.warning("a sample is lost: %s", error)
        self._said = str(error)


def _label(manifest: ArtifactManifest, top: int | None) -> str | None:
    labels = manifest.labels or ()
    return labels[top] if top is not None and top < len(labels) else None


def _read_ledger(path: Path, settings: SamplingConfig) -> Ledger:
    """What is left of the budgets; where that cannot be read, nothing of today's."""
    try:
        return from_json(Ledger, path.read_bytes(), where=str(path))
    except FileNotFoundError:
        return Ledger()
    except (OSError, EdgewrightError) as error:
        log.warning("%s; today's budget counts as used up", error)
        today = datetime.now(timezone.utc).strftime("%Y-%m-%d")
        return Ledger(day=today, day_bytes=settings.bytes_per_day)
