"""What a real agent takes more than the bare runtime: time and processor time to its first inference, memory."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from benchmarks.agent.photo_release import install
from benchmarks.agent.running_agent import memory_bytes, running_agent, running_bare

SETTLE_S = 1.0
"""Until memory is read: the agent's other threads have begun by then."""


@dataclass(frozen=True)
class StartAndMemory:
    """Medians over pairs of starts, one after the other."""

    starts: int
    bare_wall_s: float
    added_wall_s: float
    bare_cpu_s: float
    added_cpu_s: float
    bare_rss_bytes: int
    added_rss_bytes: int
    added_pss_bytes: int
    """Proportional: what both map of the same files counts half in each, as the two ran beside each other."""


def compare(folder: Path, starts: int, configuration: str) -> StartAndMemory:
    """Start an agent and the bare runtime `starts` times by turns, from a warm page cache."""
    model = install(folder, configuration).model_path
    wall, cpu, rss, pss, bare_wall, bare_cpu, bare_rss = ([] for _ in range(7))
    for turn in range(starts + 1):
        with running_bare(model) as bare, running_agent(folder) as agent:
            time.sleep(SETTLE_S)
            ours, plain = memory_bytes(agent.pid), memory_bytes(bare.pid)
        if turn == 0:  # reads the files, and writes byte code
            continue
        wall.append(agent.wall_s - bare.wall_s)
        cpu.append(agent.cpu_s - bare.cpu_s)
        rss.append(ours[0] - plain[0])
        pss.append(ours[1] - plain[1])
        bare_wall.append(bare.wall_s)
        bare_cpu.append(bare.cpu_s)
        bare_rss.append(plain[0])
    return StartAndMemory(
        starts,
        median(bare_wall),
        median(wall),
        median(bare_cpu),
        median(cpu),
        int(median(bare_rss)),
        int(median(rss)),
        int(median(pss)),
    )
