"""What keeping samples costs a device: an inference's own part, the sampler's thread, and memory.

python -m benchmarks.agent.sampling

Without and with the table `[sampling]` by turns, on the photo classifier: in one process for times, in agents that
start in pairs for memory. Times are of the processor, so that other work on the host does not count.
"""

from __future__ import annotations

import argparse
import itertools
import json
import os
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Any

import numpy as np

from benchmarks.agent.photo_release import install
from benchmarks.agent.running_agent import memory_bytes, running_agent
from edgewright_agent.config import AgentConfig, load_config
from edgewright_agent.inference import Served, load_served
from edgewright_agent.sampling.sampler import Sampler
from edgewright_agent.sampling.waiting import WaitingSamples
from edgewright_agent.slots import Slots

BLOCK, BLOCKS = 500, 201
"""Calls in a row of one kind, and how often the kinds take turns."""
LOOKS = 2000
STARTS = 5
SETTLE_S = 6.0
"""Until memory is read: samples were kept, and sent or tried to be, by then."""
ON = '\n[sampling]\nstore = "input"\nsamples_per_hour = 50000\n'


def observing_us(without: Served, with_: Served) -> tuple[float, float]:
    """Microseconds that an inference tells its observers for: without sampling, and how much more with it.

    The mailbox is full in all but one call of a block, as it is on a device that infers faster than ten a second.
    """
    inputs, outputs = _arrays(without)
    plain: list[float] = []
    more: list[float] = []
    for _ in range(BLOCKS):
        taken = [_block_us(served, inputs, outputs) for served in (without, with_)]
        plain.append(taken[0])
        more.append(taken[1] - taken[0])
        assert with_.offers is not None
        with_.offers.take()
    return median(plain), median(more)


def offering_us(served: Served) -> float:
    """The same of an inference that finds the mailbox empty, and so fills it."""
    inputs, outputs = _arrays(served)
    offers = served.offers
    assert offers is not None

    def pair() -> None:
        offers.put(inputs, outputs)
        offers.take()

    return _mean_us(pair) - _mean_us(offers.take)


def look_us(served: Served, config: AgentConfig, folder: Path) -> tuple[float, float]:
    """Microseconds of a look that keeps nothing, and of one that keeps a sample, in the sampler's thread."""
    assert served.offers is not None
    assert config.sampling is not None
    inputs, outputs = _arrays(served)
    found = []
    for draw, times in ((1.0, LOOKS), (0.0, 100)):
        sampler = Sampler(
            config,
            config.sampling,
            "x86-64-gateway",
            lambda: served.offers,
            WaitingSamples(folder / str(draw), 1 << 40),
            draw=itertools.repeat(draw).__next__,
        )
        taken = []
        for _ in range(times):
            served.offers.put(inputs, outputs)
            begun = time.thread_time()
            sampler.look(time.time())
            taken.append((time.thread_time() - begun) * 1e6)
        found.append(median(taken))
    return found[0], found[1]


def memory_mb(folder: Path, keys: str) -> float:
    """Megabytes of resident memory that an agent takes more with the table."""
    differences = []
    for turn in range(STARTS + 1):
        resident = []
        for configuration in ("", keys):
            with tempfile.TemporaryDirectory(dir=folder) as one:
                install(Path(one), configuration)
                with running_agent(Path(one)) as agent:
                    time.sleep(SETTLE_S)
                    resident.append(memory_bytes(agent.pid)[0])
        if turn:  # the first writes byte code
            differences.append((resident[1] - resident[0]) / 1e6)
    return median(differences)


def _loaded(config: AgentConfig) -> Served:
    served = Slots.open(config.state_dir).start(lambda serving: load_served(serving, config))[0]
    assert served is not None
    return served


def _arrays(served: Served) -> tuple[list[Any], list[Any]]:
    assert served.model.artifact is not None
    golden = served.model.artifact.golden()
    return [golden.inputs["image"][0]], [golden.outputs["scores"][0]]


def _block_us(served: Served, inputs: list[Any], outputs: list[Any]) -> float:
    begun = time.thread_time()
    for _ in range(BLOCK):
        for observe in served.observers:
            observe(inputs, outputs)
    return (time.thread_time() - begun) / BLOCK * 1e6


def _mean_us(call: Callable[[], object]) -> float:
    rounds = []
    for _ in range(21):
        begun = time.thread_time()
        for _ in range(BLOCK):
            call()
        rounds.append((time.thread_time() - begun) / BLOCK * 1e6)
    return float(np.median(rounds))


def main() -> None:
    """Measure and print JSON."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--no-memory", action="store_true", help="times alone: seconds, not minutes")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        served: list[Served] = []
        for configuration in ("", ON):
            one = folder / str(len(served))
            one.mkdir()
            install(one, configuration)
            config = load_config(one / "agent.toml")
            served.append(_loaded(config))
        plain, more = observing_us(*served)
        quiet, kept = look_us(served[1], config, folder)
        figures = {
            "observing_without_us": plain,
            "observing_more_us": more,
            "offering_us": offering_us(served[1]),
            "look_us": quiet,
            "look_that_keeps_us": kept,
        }
        if not arguments.no_memory:
            os.environ |= {"AWS_ACCESS_KEY_ID": "nobody", "AWS_SECRET_ACCESS_KEY": "nothing"}
            (folder / "store").mkdir()
            bucket = "s3://bucket?endpoint=https://127.0.0.1:9"
            figures |= {
                "memory_without_a_store_mb": memory_mb(folder, ON),
                "memory_with_a_folder_mb": memory_mb(folder, f'{ON}url = "{folder}/store"\n'),
                "memory_with_a_bucket_mb": memory_mb(folder, f'{ON}url = "{bucket}"\n'),
            }
    print(json.dumps({name: round(value, 3) for name, value in figures.items()}, indent=2))


if __name__ == "__main__":
    main()
