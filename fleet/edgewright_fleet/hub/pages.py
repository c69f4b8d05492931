"""The hub's pages: what each shows, from the view, the store and the rollouts, rendered on the server.

Every page is bounded whatever the fleet's size: the map shows groups, lists are cut into pages of `PAGE`
rows, charts are thinned. Templates escape everything (Jinja2 with autoescape), since names and reasons come
from devices.
"""

from __future__ import annotations

import threading
import time
from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import urlencode

from jinja2 import Environment, PackageLoader, StrictUndefined

from edgewright.errors import RolloutError
from edgewright.figures import seconds
from edgewright_fleet.hub import compact
from edgewright_fleet.hub.chart import Line, line_chart
from edgewright_fleet.hub.metrics import SILENT_S
from edgewright_fleet.hub.rollouts import OPERATIONS, Rollouts
from edgewright_fleet.hub.store import HubStore
from edgewright_fleet.hub.view import Device, FleetView
from edgewright_fleet.retraining.triggers.drift_test import DriftTest
from edgewright_fleet.retraining.triggers.history import DeviceDrift, follow, histories

PAGE = 100
MAX_TILES = 60
"""Profiles times releases on the map; the rest is one line, and is found in the list of devices."""
RANGES = {"1h": 3600.0, "6h": 6 * 3600.0, "24h": 24 * 3600.0, "7d": 7 * 86400.0}
STATES = ("online", "offline", "updating", "failed", "silent")
_RESTING = frozenset({"idle", "committed", "failed", "unknown"})
T = TypeVar("T")


@dataclass
class Tile:
    """The devices of one profile on one release."""

    profile: str
    release: str
    devices: int = 0
    states: Counter[str] = field(default_factory=Counter)
    p50: str = "–"
    p99: str = "–"
    errors: str = "–"
    energy: str = "–"

    def bar(self, width: int) -> list[tuple[str, float, float]]:
        """(state, from, length) of each part of the tile's bar."""
        parts, x = [], 0.0
        for state in ("online", "silent", "updating", "failed", "offline"):
            length = width * self.states[state] / self.devices
            parts.append((state, round(x, 2), round(length, 2)))
            x += length
        return [part for part in parts if part[2]]


class NotFoundError(Exception):
    """There is no such page."""


class Pages:
    """Renders each page of one hub; for any thread."""

    def __init__(self, view: FleetView, lock: threading.Lock, store: Path, rollouts: Rollouts | None) -> None:
        self._view, self._lock, self._store, self._rollouts = view, lock, store, rollouts
        self._templates = Environment(
            loader=PackageLoader("edgewright_fleet.hub"), autoescape=True, undefined=StrictUndefined,
            trim_blocks=True, lstrip_blocks=True,
        )  # fmt: skip
        self._templates.filters["duration"] = seconds
        self._templates.filters["clock"] = _clock
        self._templates.filters["combine"] = lambda query, **more: urlencode({**query, **more})

    def fleet(self, frame: dict[str, Any], now_s: float) -> str:
        """The map: every profile with its releases."""
        totals: Counter[str] = Counter()
        tiles: dict[tuple[str, str], Tile] = {}
        with self._lock:
            for device in self._view.devices.values():
                key = (device.profile, device.release)
                tile = tiles.get(key) or tiles.setdefault(key, Tile(*key))
                state = state_of(device, now_s)
                tile.devices += 1
                tile.states[state] += 1
                totals[state] += 1
            for key, group in self._view.groups.items():
                if key in tiles:
                    _measure(tiles[key], group.recent(now_s))
        largest = sorted(tiles.values(), key=lambda t: -t.devices)
        by_profile: dict[str, list[Tile]] = defaultdict(list)
        for tile in largest[:MAX_TILES]:
            by_profile[tile.profile].append(tile)
        return self._render(
            "fleet.html", frame, totals=totals, devices=sum(totals.values()), profiles=sorted(by_profile.items()),
            more=len(largest[MAX_TILES:]), rollouts=self._running(), states=STATES,
        )  # fmt: skip

    def devices(self, frame: dict[str, Any], now_s: float, query: dict[str, str]) -> str:
        """The list of devices, narrowed by profile, release, state and a part of the name."""
        wanted = {key: query.get(key, "") for key in ("profile", "release", "state", "name")}
        with self._lock:
            found = [
                device
                for device in self._view.devices.values()
                if wanted["profile"] in ("", device.profile)
                and wanted["release"] in ("", device.release)
                and wanted["state"] in ("", state_of(device, now_s))
                and wanted["name"].lower() in device.name.lower()
            ]
            found.sort(key=lambda device: device.name)
            rows, page, pages = _page(found, query)
            shown = [(device, state_of(device, now_s), device.quantile(0.99)) for device in rows]
        return self._render(
            "devices.html",
            frame,
            rows=shown,
            total=len(found),
            page=page,
            pages=pages,
            wanted=wanted,
            states=STATES,
        )

    def device(self, frame: dict[str, Any], now_s: float, name: str, query: dict[str, str]) -> str:
        """One device: what it runs, its measurements over time, and what it reported."""
        with self._lock:
            device = self._view.devices.get(name)
            if device is None:
                raise NotFoundError(f"no device '{name}' in fleet '{self._view.fleet}'")
            state = state_of(device, now_s)
            facts = [
                ("state", state), ("profile", device.profile), ("runs", device.release),
                ("digest", device.digest[:19]),
                ("phase", device.phase), ("reason", device.reason), ("rollout", device.rollout),
                ("last telemetry", _clock(device.heard_s) if device.heard_s else "none yet"),
                ("payloads lost on the device", str(device.dropped)),
            ]  # fmt: skip
        span = query.get("range", "1h") if query.get("range", "1h") in RANGES else "1h"
        store = HubStore(self._store, self._view.fleet, read_only=True)
        try:
            windows = store.windows(name, now_s - RANGES[span])
            events = store.events(name)
            drift = follow(histories(store.sketch_columns(name), {}), DriftTest())
        finally:
            store.close()
        windows.sort(key=lambda window: window.end_s)
        latencies = [(w.end_s, compact.from_bytes(w.latency)) for w in windows]
        latencies = [(at, histogram) for at, histogram in latencies if histogram.count]
        charts = [
            line_chart("Latency", "ms", [
                Line(label, [(at, 1e3 * h.quantile(share)) for at, h in latencies])
                for label, share in (("p50", 0.5), ("p99", 0.99))
            ]),
            line_chart("Energy above idle of an inference, measured", "mJ", [
                Line("energy", [
                    (w.end_s, 1e3 * e) for w in windows if (e := w.energy_per_inference_j) is not None
                ])
            ]),
            line_chart("Temperature of the hottest zone", "°C", [
                Line("temperature", [(w.end_s, t) for w in windows if (t := w.temperature_c) is not None])
            ]),
            line_chart("Distance of its answers from those before, less what chance gives", "PSI", [
                Line("classes", [(at, psi) for d in drift for at, psi in d.course if at >= now_s - RANGES[span]])
            ]),
        ]  # fmt: skip
        errors = sum(w.errors for w in windows)
        facts += [("data", _drift(d)) for d in drift]
        return self._render(
            "device.html", frame, device=name, facts=[fact for fact in facts if fact[1]],
            charts=[c for c in charts if c],
            events=events, span=span, ranges=list(RANGES), windows=len(windows), errors=errors,
        )  # fmt: skip

    def rollouts(self, frame: dict[str, Any]) -> str:
        """Every rollout of the fleet."""
        rows = self._rollouts.summaries() if self._rollouts else []
        return self._render("rollouts.html", frame, rollouts=rows[:PAGE], kept=self._rollouts is not None)

    def rollout(self, frame: dict[str, Any], name: str, query: dict[str, str]) -> str:
        """One rollout as it happens: waves, decisions with their evidence, exposed devices."""
        if self._rollouts is None:
            raise NotFoundError("this hub was started without a rollout store")
        try:
            detail = self._rollouts.detail(name)
        except RolloutError as error:
            raise NotFoundError(str(error)) from None
        exposed, page, pages = _page(detail.exposed, query)
        decisions = [(d.at_s, d.sentence, _evidence(d.evidence)) for d in reversed(detail.decisions[-PAGE:])]
        return self._render(
            "rollout.html", frame, r=detail.summary, detail=detail, exposed=exposed, page=page, pages=pages,
            decisions=decisions, operations=() if detail.summary.ended else OPERATIONS,
        )  # fmt: skip

    def message(self, frame: dict[str, Any], title: str, text: str) -> str:
        """A page of one sentence."""
        return self._render("message.html", frame, title=title, text=text)

    def login(self, frame: dict[str, Any], problem: str) -> str:
        """The form for a token."""
        return self._render("login.html", frame, problem=problem)

    def _running(self) -> list[Any]:
        return [r for r in self._rollouts.readable() if not r.ended][:5] if self._rollouts else []

    def _render(self, template: str, frame: dict[str, Any], **values: Any) -> str:
        text: str = self._templates.get_template(template).render(
            fleet=self._view.fleet, frame=frame, **values
        )
        return text


def state_of(device: Device, now_s: float) -> str:
    """One word for a device, the gravest that holds."""
    if device.phase == "failed":
        return "failed"
    if not device.online:
        return "offline"
    if device.phase not in _RESTING:
        return "updating"
    return "silent" if now_s - device.quiet_since_s > SILENT_S else "online"


def _measure(tile: Tile, tally: Any) -> None:
    latency, attempts = tally.latency(), tally.inferences + tally.errors
    if latency.count:
        tile.p50, tile.p99 = seconds(latency.quantile(0.5)), seconds(latency.quantile(0.99))
    if attempts:
        tile.errors = f"{tally.errors / attempts:.2%}"
    tile.energy = _joules(tally.energy_per_inference_j())


def _page(rows: Sequence[T], query: dict[str, str]) -> tuple[Sequence[T], int, int]:
    pages = max(1, -(-len(rows) // PAGE))
    said = query.get("page", "1")
    page = min(max(int(said), 1), pages) if said.isascii() and said.isdecimal() and len(said) < 10 else 1
    return rows[(page - 1) * PAGE : page * PAGE], page, pages


def _evidence(evidence: dict[str, Any]) -> list[tuple[str, str]]:
    rows = []
    for key, value in evidence.items():
        said = f"{value:.6g}" if isinstance(value, float) else str(value)
        rows.append((key.replace("_", " "), said if len(said) <= 300 else f"{said[:300]}…"))
    return rows[:40]


def _drift(drift: DeviceDrift) -> str:
    if drift.since_s is not None:
        return f"drifts since {_clock(drift.since_s)}: {', '.join(drift.drifting)}"
    if drift.flapping:
        return "goes to and fro"
    return "as before" if drift.settled else "too little yet to see a change"


def _clock(at_s: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.gmtime(at_s)) + " UTC"


def _joules(value: float | None) -> str:
    return "–" if value is None else f"{value:.3g} J" if abs(value) >= 1 else f"{value * 1e3:.3g} mJ"
