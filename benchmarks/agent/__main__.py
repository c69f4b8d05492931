"""`python -m benchmarks.agent`: every figure that the agent is held to, beside the bare runtime, in one run."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path

import click

from benchmarks.agent import rest
from benchmarks.agent.growth import WARM_SWITCHES, Growth, growth
from benchmarks.agent.idle import PERIOD_S, Idle, idle_agents
from benchmarks.agent.inference_cost import CAMERA_HZ, Added, added_by_following, added_by_the_agent
from benchmarks.agent.results import Figure, Host, draw, table
from benchmarks.agent.start_and_memory import StartAndMemory, compare
from benchmarks.agent.toy_releases import toy_release
from benchmarks.agent.wire import Traffic, wired_device
from benchmarks.mosquitto import MOSQUITTO, Mosquitto
from edgewright.version import __version__

RESULTS = Path(__file__).parents[1] / "results"
API = '[serving]\nsocket = "api"\n'


@dataclass(frozen=True)
class Effort:
    """How much is measured."""

    calls: int = 20_000
    camera_calls: int = 300
    rest_calls: int = 3000
    starts: int = 7
    idle_s: float = 60.0
    inferences: int = 1_000_000
    switches: int = 1000
    wire_period_s: float = 60.0
    wire_periods: int = 5


QUICK = Effort(300, 30, 200, 2, 5.0, 5000, 10, 2.0, 2)


@click.command(
    epilog="""\b
Examples:
  python -m benchmarks.agent
  python -m benchmarks.agent --quick --output /tmp/results
"""
)
@click.option("--quick", is_flag=True, help="Prove that all works: a minute, and figures that mean little.")
@click.option(
    "--output",
    type=click.Path(path_type=Path, file_okay=False),
    default=RESULTS,
    help="Folder of the table, the figures and the picture.  [default: benchmarks/results]",
)
def main(quick: bool, output: Path) -> None:
    """Measure what the agent costs a device, beside the bare runtime; some six minutes on a quiet host.

    It needs the Debian package mosquitto. Exit code 1 where a limit is missed.
    """
    if MOSQUITTO is None:
        raise click.ClickException("mosquitto is not installed; apt-get install mosquitto")
    output.mkdir(parents=True, exist_ok=True)
    host, begun = Host.here(), time.monotonic()
    figures, grown = measure(QUICK if quick else Effort())
    _write(output, host, figures, grown, quick=quick, seconds=time.monotonic() - begun)
    if any(figure.met is False for figure in figures):
        sys.exit(1)


def measure(effort: Effort) -> tuple[list[Figure], Growth]:
    """All figures. Beside a wall time nothing runs but a device that sends a payload a minute."""
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="edgewright-agent-")))
        broker = stack.enter_context(_broker(folder))
        device = stack.enter_context(
            wired_device(folder / "wire", broker, effort.wire_period_s, effort.wire_periods)
        )
        _say("what an inference costs")
        added = added_by_the_agent(folder / "loop", effort.calls)
        camera = added_by_the_agent(folder / "camera", effort.camera_calls, rate_hz=CAMERA_HZ)
        following = added_by_following(folder / "following", effort.calls)
        _say("the inference API")
        api = rest.compare(folder / "rest", effort.rest_calls)
        _say("start and memory")
        with_api = compare(folder / "start", effort.starts, API)
        without = compare(folder / "start-2", effort.starts, "")
        _say("processor time at rest")
        with idle_agents(folder / "idle", broker) as agents:
            idle = agents.after(effort.idle_s)
        _say("growth of memory")
        grown = growth(folder / "growth", broker, effort.inferences, effort.switches)
        application = _application(folder / "application", effort.switches)
        _say("telemetry on the wire")
        traffic = device.traffic()
    return [
        *_inference_figures(added, camera, following),
        *_api_figures(api),
        *_start_figures(with_api, without),
        *_idle_figures(idle),
        *_growth_figures(grown, effort, application),
        *_traffic_figures(traffic, effort),
    ], grown


def _inference_figures(added: Added, camera: Added, following: Added) -> list[Figure]:
    beside = f"beside {added.bare_p50_s * 1e6:.0f} µs of the bare runtime, {added.calls} calls by turns"
    cold = f"{camera.calls} calls, {CAMERA_HZ:g} a second, caches cold; one in eight is looked at for drift"
    ratio = 1 + added.p50_s / added.bare_p50_s
    return [
        Figure("added to one inference in process, p50", added.p50_s * 1e6, "µs", "wall time", 30, ratio=ratio,
               note=beside),
        Figure("the same, p99", added.p99_s * 1e6, "µs", "wall time", 100, note="time outside the runtime"),
        Figure("the same, p50", added.p50_cpu_s * 1e6, "µs", "processor time", note="of the thread"),
        Figure("the same as a camera would, p50", camera.p50_s * 1e6, "µs", "wall time",
               ratio=1 + camera.p50_s / camera.bare_p50_s, note=cold),
        Figure("the same as a camera would, p99", camera.p99_s * 1e6, "µs", "wall time", note=cold),
        Figure("added by `ew.load(\"name\")`, raw, p50", following.p50_s * 1e6, "µs", "wall time", 30,
               ratio=1 + following.p50_s / following.bare_p50_s, note="in an application; no telemetry"),
        Figure("the same, p99", following.p99_s * 1e6, "µs", "wall time", 100, note="time outside the runtime"),
    ]  # fmt: skip


def _api_figures(api: dict[str, float]) -> list[Figure]:
    added, echo = api["added_p50_s"], api["added_over_echo"]
    note = f"224×224×3 uint8, binary; echo {api['echo_p50_s'] * 1e3:.3f} ms, by turns"
    ratio = api["api_p50_s"] / api["bare_p50_s"]
    return [
        Figure("added by the inference API on a Unix socket, p50", added * 1e3, "ms", "wall time",
               rest.MAX_ADDED_S * 1e3, ratio=ratio, note=note),
        Figure("the same over an echo of the same framework", echo, "", "wall time", rest.MAX_RATIO, below=True),
    ]  # fmt: skip


def _start_figures(with_api: StartAndMemory, without: StartAndMemory) -> list[Figure]:
    figures = []
    for found, which in ((with_api, "with the inference API"), (without, "without it")):
        memory = f"{which}; bare {found.bare_rss_bytes / 1e6:.1f} MB; median of {found.starts}"
        start = f"{which}; bare {found.bare_wall_s:.2f} s; median of {found.starts}, files cached"
        rss, wall, cpu = found.added_rss_bytes, found.added_wall_s, found.added_cpu_s
        figures += [
            Figure("resident memory over the bare runtime's", rss / 1e6, "MB", "memory", 35,
                   ratio=1 + rss / found.bare_rss_bytes, note=f"Rss, {memory}"),
            Figure("the same, shared pages in part", found.added_pss_bytes / 1e6, "MB", "memory",
                   note=f"Pss, {which}"),
            Figure("from start to first inference over the bare runtime's", wall, "s", "wall time", 0.6,
                   ratio=1 + wall / found.bare_wall_s, note=start),
            Figure("the same", cpu, "s", "processor time", ratio=1 + cpu / found.bare_cpu_s, note=which),
        ]  # fmt: skip
    return figures


def _idle_figures(idle: Idle) -> list[Figure]:
    how = f"over {idle.seconds:.0f} s, reporting every {PERIOD_S:g} s to a broker, the inference API open"
    return [
        Figure("processor at rest, no inferences", idle.nothing * 100, "% of a core", "processor time", 0.5,
               note=how),
        Figure("the same, one inference a second", idle.one_a_second * 100, "% of a core", "processor time",
               note="the default source; the inferences are in it"),
    ]  # fmt: skip


def _growth_figures(grown: Growth, effort: Effort, application: int) -> list[Figure]:
    inferences = grown.end.inferences - grown.start.inferences
    switches = grown.end.switches - grown.start.switches
    how = (
        f"Rss of a whole agent over {inferences:,} inferences and {switches:,} updates by the fleet, from "
        f"{grown.start.rss_bytes / 1e6:.1f} MB after {grown.start.inferences:,} and {grown.start.switches}, in "
        f"{grown.end.seconds - grown.start.seconds:.0f} s; proofs forked"
    )
    follows = f"Rss over {effort.switches:,} switches that it follows, after {WARM_SWITCHES}"
    return [
        Figure("growth of memory", grown.grown_bytes / 1e6, "MB", "memory", 2, note=how),
        Figure("growth of an application with `ew.load(\"name\")`", application / 1e6, "MB", "memory", 2,
               note=follows),
    ]  # fmt: skip


def _traffic_figures(traffic: Traffic, effort: Effort) -> list[Figure]:
    mqtt, with_headers = traffic.per_hour()
    how = (
        f"MQTT both ways, counted by a relay over {effort.wire_periods} periods of {effort.wire_period_s:g} s; "
        "power, heat and clocks of a Jetson's recorded tree, ten inferences a second, a drift sketch"
    )
    return [
        Figure("telemetry of a device in an hour", mqtt / 1e3, "kB", "bytes", 60, note=how),
        Figure("the same with headers of TCP and IP", with_headers / 1e3, "kB", "bytes",
               note="52 bytes a segment"),
    ]  # fmt: skip


def _application(folder: Path, switches: int) -> int:
    references = [
        f"oci:{folder}:{release.name}:{release.version}"
        for release in (toy_release(folder, version) for version in ("1.0.0", "1.1.0"))
    ]
    command = [sys.executable, "-m", "benchmarks.agent.following", "--switches", str(switches), *references]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    if found["wrong_outputs"]:
        raise click.ClickException(f"{found['wrong_outputs']} answers were wrong while versions switched")
    grown: int = found["grown_bytes"]
    return grown


@contextmanager
def _broker(folder: Path) -> Iterator[Mosquitto]:
    broker = Mosquitto(folder)
    try:
        yield broker
    finally:
        broker.process.kill()
        broker.process.wait()


def _write(
    output: Path, host: Host, figures: list[Figure], grown: Growth, *, quick: bool, seconds: float
) -> None:
    now = datetime.now(timezone.utc)
    stem = output / f"agent-{now:%Y-%m-%d}"
    command = f"python -m benchmarks.agent{' --quick' if quick else ''}"
    load = ", ".join(f"{load:.2f}" for load in host.load_at_start)
    text = f"""# What the agent costs a device, {now:%Y-%m-%d}

`{command}`, {seconds:.0f} s, Edgewright {__version__}. Measured on host: {host.processor}, {host.cores} cores,
Python {host.python}, ONNX Runtime {host.onnxruntime}, one thread; load average at the start {load}.
{"**A quick run: its figures mean little.**" if quick else ""}

Real agents in processes of their own, a real broker, a model of one integer convolution over a 224×224 photo, so
that its own time hides nothing; for growth one of a matrix product. Wall times are of a host with other work.

{table(figures)}
![Resident memory]({stem.name}.png)
"""
    document = {
        "date": now.isoformat(timespec="seconds"),
        "command": command,
        "quick": quick,
        "seconds": round(seconds, 1),
        "version": __version__,
        "host": asdict(host),
        "figures": [{**asdict(figure), "met": figure.met} for figure in figures],
    }
    stem.with_suffix(".md").write_text(text)
    stem.with_suffix(".json").write_text(json.dumps(document, indent=1, ensure_ascii=False) + "\n")
    moments = [(moment.switches, moment.inferences, moment.rss_bytes) for moment in grown.moments]
    warm = (grown.start.switches, grown.start.inferences, grown.start.rss_bytes)
    draw(moments, warm, stem.with_suffix(".png"))
    print(text)


def _say(what: str) -> None:
    print(f"measuring {what} …", file=sys.stderr, flush=True)


if __name__ == "__main__":
    # As an exception, so that the processes that run are ended too.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    main()
