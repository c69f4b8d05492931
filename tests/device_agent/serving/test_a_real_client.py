"""What a real client asks for."""

from __future__ import annotations

import contextlib
import socket
from typing import Any

import numpy as np
import pytest
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException

from device_agent.serving.exchanges import INFER, X, scores, until
from edgewright.artifact.manifest import Quantisation, TensorSpec


@pytest.fixture
def client(served_of: Any, api_of: Any) -> Any:
    with contextlib.closing(socket.socket()) as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    api = api_of(served_of(), port=port)
    client = triton.InferenceServerClient(f"127.0.0.1:{port}")
    until(lambda: _listens(port))
    client.api = api
    yield client
    client.close()


def _listens(port: int) -> bool:
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), 1):
        return True
    return False


def test_tritonclient_finds_the_model(client: Any) -> None:
    assert client.is_server_live() and client.is_server_ready()
    assert client.is_model_ready("sorter") and client.is_model_ready("sorter", "1.0.0")
    assert not client.is_model_ready("sorter", "2.0.0") and not client.is_model_ready("other")
    assert client.get_server_metadata()["name"] == "edgewright-agent"
    metadata = client.get_model_metadata("sorter")
    assert metadata["inputs"] == [{"name": "x", "datatype": "UINT8", "shape": [1, 4]}]
    assert metadata["outputs"] == [{"name": "scores", "datatype": "INT32", "shape": [1, 3]}]
    assert client.get_model_config("sorter", "1.0.0")["input"][0]["data_type"] == "TYPE_UINT8"
    assert client.get_model_repository_index() == [
        {"name": "sorter", "version": "1.0.0", "state": "READY", "reason": ""}
    ]


@pytest.mark.parametrize("binary_in", [True, False])
@pytest.mark.parametrize("binary_out", [True, False, None])
def test_tritonclient_infers(client: Any, binary_in: bool, binary_out: bool | None) -> None:
    x = triton.InferInput("x", [1, 4], "UINT8")
    x.set_data_from_numpy(X, binary_data=binary_in)
    wanted = None if binary_out is None else [triton.InferRequestedOutput("scores", binary_data=binary_out)]
    result = client.infer("sorter", [x], outputs=wanted, request_id="7")
    assert np.array_equal(result.as_numpy("scores"), scores(client.api.served))
    answer = result.get_response()
    assert (answer["id"], answer["model_name"], answer["model_version"]) == ("7", "sorter", "1.0.0")


def test_tritonclient_reads_statistics(client: Any) -> None:
    x = triton.InferInput("x", [1, 4], "UINT8")
    x.set_data_from_numpy(X)
    for _ in range(3):
        client.infer("sorter", [x], model_version="1.0.0")
    until(lambda: client.api.served.spent.inferences == 3)
    (stats,) = client.get_inference_statistics("sorter")["model_stats"]
    assert (stats["name"], stats["version"], stats["inference_count"]) == ("sorter", "1.0.0", 3)
    parts = stats["inference_stats"]
    assert parts["fail"]["count"] == 0
    spent = [parts[part]["ns"] for part in ("queue", "compute_input", "compute_infer", "compute_output")]
    assert all(ns > 0 for ns in spent)
    assert abs(sum(spent) - parts["success"]["ns"]) < 5


def test_tritonclient_is_told_what_is_wrong(client: Any) -> None:
    x = triton.InferInput("x", [4], "UINT8")
    x.set_data_from_numpy(X[0])
    with pytest.raises(
        InferenceServerException, match=r"raw input 'x' is uint8\[4\]; it takes uint8\[1, 4\]"
    ):
        client.infer("sorter", [x])
    with pytest.raises(InferenceServerException, match=r"the device serves sorter:1\.0\.0, not 'other'"):
        client.infer("other", [x])
    text = triton.InferInput("x", [1], "BYTES")
    text.set_data_from_numpy(np.array([b"cat"], object))
    with pytest.raises(InferenceServerException, match="has the datatype 'BYTES'; known are BOOL, UINT8"):
        client.infer("sorter", [text])


def test_tritonclient_reads_why_its_request_was_too_large(client: Any) -> None:
    x = triton.InferInput("x", [20 << 20], "UINT8")
    x.set_data_from_numpy(np.zeros(20 << 20, np.uint8))
    with pytest.raises(InferenceServerException, match=r"has 2097\d+ bytes; at most 16777216 are taken"):
        client.infer("sorter", [x])
    assert client.is_server_live()


QUANTISED = {
    "inputs": (
        TensorSpec(
            name="x",
            runtime_name="x",
            shape=(1, 4),
            dtype="uint8",
            quantisation=Quantisation(scale=0.5, zero_point=10),
            permutation=(1, 0),
        ),
    ),
    "outputs": (
        TensorSpec(
            name="scores",
            runtime_name="scores",
            shape=(1, 3),
            dtype="int32",
            quantisation=Quantisation(scale=0.25, zero_point=0),
        ),
    ),
}


def test_a_client_sends_floats_and_gets_floats_where_it_says_so(served_of: Any, api_of: Any) -> None:
    served = served_of(**QUANTISED)
    api = api_of(served)
    shown = api.call("/v2/models/sorter")[1]["inputs"][0]
    assert shown["parameters"] == {"scale": 0.5, "zero_point": 10, "source_shape": [4, 1]}
    assert (shown["datatype"], shown["shape"]) == ("UINT8", [1, 4])

    real = {"name": "x", "datatype": "FP32", "shape": [4, 1], "data": [0.0, 0.5, -1.0, 2.0]}
    status, answer = api.call(INFER, {"inputs": [real], "parameters": {"raw": False}})
    expected = scores(served, np.array([[10, 11, 8, 14]], np.uint8)) * 0.25
    assert status == 200
    assert answer["outputs"] == [
        {"name": "scores", "datatype": "FP32", "shape": [1, 3], "data": expected[0].tolist()}
    ]

    status, answer = api.infer([10, 11, 8, 14])
    assert answer["outputs"][0]["data"] == (expected * 4).astype(int)[0].tolist()
    assert answer["outputs"][0]["datatype"] == "INT32"

    status, answer = api.call(INFER, {"inputs": [real]})
    assert status == 400
    assert "raw input 'x' is float32[4, 1]; it takes uint8[1, 4]" in answer["error"]


def test_tritonclient_sends_floats_and_gets_floats(client: Any, served_of: Any) -> None:
    client.api.served = served = served_of("2.0.0", **QUANTISED)
    x = triton.InferInput("x", [4, 1], "FP32")
    x.set_data_from_numpy(np.array([[0.0], [0.5], [-1.0], [2.0]], np.float32))
    got = client.infer("sorter", [x], parameters={"raw": False}).as_numpy("scores")
    assert got.dtype == np.float32
    assert np.array_equal(got, scores(served, np.array([[10, 11, 8, 14]], np.uint8)) * np.float32(0.25))


def test_a_device_without_a_model_is_alive_and_not_ready(api_of: Any) -> None:
    api = api_of(None)
    assert api.call("/v2/health/live") == (200, {"live": True})
    assert api.call("/v2/health/ready") == (400, {"ready": False})
    assert api.infer([1, 2, 3, 4]) == (404, {"error": "the device serves no model yet"})
    assert api.call("/v2/models/stats") == (200, {"model_stats": []})
    assert api.call("/v2/repository/index", {}) == (200, [])
