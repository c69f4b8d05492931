"""What the inference API adds to one inference: a real agent on a Unix socket, the runtime alone and an echo.

    python -m benchmarks.agent.rest
    python -m benchmarks.agent.rest --calls 5000 --json

Three calls take turns in one loop, so that a busy machine slows all three: an inference over the API (a 224×224×3
uint8 image as binary data), the same inference in this process, and the same bytes sent to a bare server of the
same framework (`http.server`, a thread a connection) that answers with as many of them, and as many headers, as
the API does. The model is small, so that its own time hides nothing. Limits: 0.7 ms added at the median, less than
1.3 times the echo.
"""

from __future__ import annotations

import http.client
import json
import socket
import socketserver
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from pathlib import Path
from statistics import median

import click
import numpy as np

from benchmarks.agent.photo_release import NAME, SHAPE, install
from edgewright.runtime.model import load_artifact

MAX_ADDED_S, MAX_RATIO = 0.7e-3, 1.3
START_S = 30.0


class Echo(BaseHTTPRequestHandler):
    """A bare server: reads a body, answers with its first bytes."""

    protocol_version = "HTTP/1.1"
    wbufsize = 1 << 16

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        answer = body[: int(self.headers["Answer-Bytes"])]
        self.send_response_only(200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Inference-Header-Content-Length", "0")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base class's name
        """Say nothing, as the API does."""


def caller(path: Path, url: str, body: bytes, headers: dict[str, str]) -> Callable[[], bytes]:
    """A function that posts a body over one connection that stays open, and gives the answer's."""
    connection = http.client.HTTPConnection("localhost")
    connection.sock = socket.socket(socket.AF_UNIX)
    end = time.monotonic() + START_S
    while True:
        try:
            connection.sock.connect(str(path))
            break
        except OSError:
            if time.monotonic() > end:
                raise
            time.sleep(0.05)

    def call() -> bytes:
        connection.request("POST", url, body, headers)
        response = connection.getresponse()
        answer = response.read()
        if response.status != 200:
            raise click.ClickException(answer.decode())
        return answer

    return call


def request_of(image: np.ndarray) -> tuple[bytes, int]:
    """The body of an inference with binary data both ways, and the length of its JSON."""
    tensor = {
        "name": "image",
        "datatype": "UINT8",
        "shape": image.shape,
        "parameters": {"binary_data_size": image.nbytes},
    }
    document = json.dumps({"inputs": [tensor], "parameters": {"binary_data_output": True}}).encode()
    return document + image.tobytes(), len(document)


def compare(folder: Path, calls: int) -> dict[str, float]:
    """Medians, in seconds; `added` is that of the differences between an API call and the bare one beside it."""
    model = load_artifact(install(folder, '[serving]\nsocket = "api"\n'))
    image = np.random.default_rng(1).integers(0, 256, SHAPE, dtype=np.uint8)
    body, json_length = request_of(image)
    command = [
        sys.executable,
        "-m",
        "edgewright_cli.main",
        "agent",
        "run",
        "--config",
        str(folder / "agent.toml"),
    ]
    agent = subprocess.Popen(command, stderr=subprocess.DEVNULL)
    echo = subprocess.Popen([sys.executable, "-m", "benchmarks.agent.rest", "--echo", str(folder / "echo")])
    try:
        headers = {"Inference-Header-Content-Length": str(json_length)}
        api = caller(folder / "api", f"/v2/models/{NAME}/infer", body, headers)
        answer = api()
        expected = model.run_raw({"image": image})["scores"]
        if not answer.endswith(expected.tobytes()):
            raise click.ClickException("the API and the runtime disagree")
        bare_server = caller(folder / "echo", "/", body, {**headers, "Answer-Bytes": str(len(answer))})
        timed: dict[str, Callable[[], object]] = {
            "api": api,
            "bare": lambda: model.run_raw({"image": image}),
            "echo": bare_server,
        }
        taken: dict[str, list[float]] = {name: [] for name in timed}
        turns = np.random.default_rng(2)
        for _ in range(calls):
            # In another order each time: what a call leaves in the caches helps or harms the next.
            for name in turns.permutation(list(timed)):
                start = time.perf_counter()
                timed[name]()
                taken[name].append(time.perf_counter() - start)
    finally:
        for process in (agent, echo):
            process.terminate()
            process.wait(20)
    warm = calls // 10
    added = median(a - b for a, b in list(zip(taken["api"], taken["bare"], strict=True))[warm:])
    medians = {f"{name}_p50_s": median(times[warm:]) for name, times in taken.items()}
    return {**medians, "added_p50_s": added, "added_over_echo": added / medians["echo_p50_s"]}


@click.command(help=__doc__)
@click.option("--calls", type=click.IntRange(min=100), default=2000, show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Figures in seconds, for a program.")
@click.option("--echo", type=click.Path(path_type=Path), hidden=True)
def main(calls: int, as_json: bool, echo: Path | None) -> None:
    if echo is not None:
        with socketserver.ThreadingUnixStreamServer(str(echo), Echo) as server:
            server.serve_forever()
        return
    with tempfile.TemporaryDirectory() as folder:
        figures = compare(Path(folder), calls)
    added, ratio = figures["added_p50_s"], figures["added_over_echo"]
    if as_json:
        print(json.dumps({"calls": calls, **figures}, indent=2))
    else:
        for name in ("api", "bare", "echo", "added"):
            print(f"{name:<6} p50 {figures[f'{name}_p50_s'] * 1e3:7.3f} ms")
        print(f"added / echo   {ratio:5.2f}   (limits: added {MAX_ADDED_S * 1e3} ms, ratio {MAX_RATIO})")
    if added > MAX_ADDED_S or ratio >= MAX_RATIO:
        raise SystemExit(1)


if __name__ == "__main__":
    main()
