"""The floor: a subscriber to all that a controller hears, which does nothing with it.

    python -m benchmarks.fleet.bare PORT paho|batch

`paho` is paho's client as it comes, `batch` the fleet's own. It says `ready`, counts until its standard input
ends, and then says in JSON how many messages it had and the processor time since it was ready.
"""

from __future__ import annotations

import json
import sys
import threading
import time
from typing import Any

import paho.mqtt.client as paho

from benchmarks.fleet.devices import FLEET
from edgewright.mqtt import BrokerSettings, connect, disconnect, make_client
from edgewright.twin import ROOT
from edgewright_fleet.targets.batch_client import BatchClient
from edgewright_fleet.targets.mqtt import PAUSE_S


def main() -> None:
    """Subscribe, count, say."""
    settings, heard, ready = BrokerSettings(port=int(sys.argv[1])), 0, threading.Event()

    def hear(*_: Any) -> None:
        nonlocal heard
        heard += 1

    if sys.argv[2] == "batch":
        batch = make_client(settings, "bare-batch", kind=BatchClient)
        batch.take, batch.pause_s = hear, PAUSE_S
        client: paho.Client = batch
    else:
        client = make_client(settings, "bare-paho")
        client.on_message = hear

    def subscribe(*_: Any) -> None:
        client.subscribe(f"{ROOT}/{FLEET}/+/+", 1)

    client.on_connect = subscribe
    client.on_subscribe = lambda *_: ready.set()
    connect(client, settings, session_s=60)
    ready.wait()
    before_s = time.process_time()
    print("ready", flush=True)
    sys.stdin.read()
    print(json.dumps({"messages": heard, "processor_s": time.process_time() - before_s}), flush=True)
    disconnect(client)


if __name__ == "__main__":
    main()
