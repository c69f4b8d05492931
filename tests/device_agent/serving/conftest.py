"""A model as the agent serves it, and the real API in front of it on a socket of its own."""

from __future__ import annotations

import contextlib
import http.client
import json
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from edgewright.active_slot import SlotContent
from edgewright.artifact.release import find_artifact
from edgewright.runtime.model import Model
from edgewright.runtime.session import open_session
from edgewright_agent.config import ServingConfig
from edgewright_agent.exporter import Exporter, model_attributes
from edgewright_agent.inference import Served
from edgewright_agent.serving import listeners
from edgewright_agent.serving.http_api import Service
from edgewright_agent.serving.listeners import listening

ServedMaker = Callable[..., Served]


@pytest.fixture
def served_of(registry: Any) -> ServedMaker:
    """Publish `sorter:VERSION` and load it as the agent does; `inputs` and `outputs` describe its tensors anew."""

    def make(version: str = "1.0.0", *, inputs: Any = None, outputs: Any = None, **how: Any) -> Served:
        release = registry.release(version, **how)
        artifact = find_artifact(f"oci:{registry.root}:sorter:{version}")
        model = Model(open_session(artifact.model_path, "onnx"), artifact, inputs=inputs, outputs=outputs)
        content = SlotContent(slot="a", release=release, artifact=artifact.digest)
        return Served(content, model, model_attributes(release))

    return make


@dataclass
class Api:
    """A running API; `served` is what it serves at the moment."""

    config: ServingConfig
    served: Served | None
    service: Service | None = None
    stop: Callable[[], None] = lambda: None
    exporter: Exporter = field(
        default_factory=lambda: Exporter(fleet="plant", device="line-3", profile="x86-64-gateway", boot="b")
    )

    def socket(self) -> socket.socket:
        connection = socket.socket(socket.AF_UNIX)
        connection.settimeout(20)
        end = time.monotonic() + 10
        while True:
            try:
                connection.connect(str(self.config.socket))
                return connection
            except OSError:
                assert time.monotonic() < end, "the API does not listen"
                time.sleep(0.01)

    def http(self) -> http.client.HTTPConnection:
        connection = http.client.HTTPConnection("localhost")
        connection.sock = self.socket()
        return connection

    def call(self, path: str, document: Any = None, *, method: str | None = None) -> tuple[int, Any]:
        """One request on a connection of its own: the status and the JSON of the answer."""
        with contextlib.closing(self.http()) as connection:
            body = None if document is None else json.dumps(document)
            connection.request(method or ("GET" if body is None else "POST"), path, body)
            response = connection.getresponse()
            return response.status, json.loads(response.read())

    def infer(self, x: list[int], **fields: Any) -> tuple[int, Any]:
        tensor = {"name": "x", "datatype": "UINT8", "shape": [1, 4], "data": x}
        return self.call("/v2/models/sorter/infer", {"inputs": [tensor], **fields})

    def room_taken(self) -> int:
        """How many requests for inferences are in the house."""
        assert self.service is not None
        return self.config.queue + 1 - self.service.room._value

    def answers(self) -> bool:
        status, answer = self.infer([1, 2, 3, 4])
        return status == 200 and "outputs" in answer


@pytest.fixture
def api_of(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Api]]:
    monkeypatch.setattr(listeners, "POLL_S", 0.02)  # a stop is noticed sooner
    with contextlib.ExitStack() as stack:

        def make(served: Served | None, **settings: Any) -> Api:
            config = ServingConfig(**{"socket": tmp_path / "api", **settings})
            api = Api(config, served)
            inner = stack.enter_context(contextlib.ExitStack())
            api.service = inner.enter_context(listening(config, lambda: api.served, api.exporter))
            api.stop = inner.close
            api.socket().close()
            return api

        yield make


@pytest.fixture
def api(served_of: ServedMaker, api_of: Callable[..., Api]) -> Api:
    return api_of(served_of())
