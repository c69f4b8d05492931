"""`Mosquitto`: a real broker for a benchmark or a test, which can be killed and started again on its port."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import time
from pathlib import Path

from edgewright.mqtt import BrokerSettings

MOSQUITTO = shutil.which("mosquitto", path=f"{os.environ['PATH']}:/usr/sbin:/usr/local/sbin")
DEADLINE_S = 60.0


class Mosquitto:
    """A broker whose configuration is in `folder`, with the lines of `more`; until it is left, if entered."""

    def __init__(self, folder: Path, more: str = "") -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.settings = BrokerSettings(port=probe.getsockname()[1])
        self._config = folder / "mosquitto.conf"
        self._config.write_text(f"listener {self.settings.port} 127.0.0.1\nallow_anonymous true\n{more}")
        self.process = self.start()

    def start(self) -> subprocess.Popen[bytes]:
        """Start it and wait until it accepts."""
        if MOSQUITTO is None:
            raise SystemExit("mosquitto is not installed")
        self.process = subprocess.Popen(
            [MOSQUITTO, "-c", str(self._config)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        end = time.monotonic() + DEADLINE_S
        while time.monotonic() < end:
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", self.settings.port)) == 0:
                    return self.process
            time.sleep(0.01)
        raise TimeoutError("mosquitto does not start")

    def __enter__(self) -> Mosquitto:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.terminate()
        self.process.wait()
