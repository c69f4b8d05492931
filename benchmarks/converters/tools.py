"""The tools that are measured: which script each is, in which environment, in which variants, on which runtime."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from benchmarks.converters.models import BenchmarkModel

PEERS = Path(__file__).parent / "peers"
OURS = "edgewright"
Runtime = Literal["onnx", "tflite", "openvino"]
SUFFIX: dict[Runtime, str] = {"onnx": ".onnx", "tflite": ".tflite", "openvino": ".xml"}


@dataclass(frozen=True)
class Variant:
    """One setting of a tool and the runtime that its artifact is for."""

    tool: str
    name: str
    runtime: Runtime
    script: str = ""
    environment: str = ""
    only: Literal["any", "transformers", "labelled"] = "any"

    @property
    def key(self) -> str:
        return f"{self.tool} {self.name}"

    def suits(self, model: BenchmarkModel) -> bool:
        """Dynamic ranges are what the peers' documentation advises for transformers alone."""
        if self.only == "transformers":
            return model.transformer
        return self.only == "any" or model.data == "fashion-mnist"


VARIANTS = (
    Variant(OURS, "onnx", "onnx"),
    Variant(OURS, "tflite", "tflite"),
    Variant("onnxruntime", "minmax", "onnx", "onnxruntime_quantise", "onnxruntime"),
    Variant("onnxruntime", "percentile", "onnx", "onnxruntime_quantise", "onnxruntime"),
    Variant("onnxruntime", "entropy", "onnx", "onnxruntime_quantise", "onnxruntime"),
    Variant("onnxruntime", "dynamic", "onnx", "onnxruntime_quantise", "onnxruntime", "transformers"),
    Variant("nncf", "onnx", "onnx", "nncf_quantise", "nncf"),
    Variant("nncf", "openvino", "openvino", "nncf_quantise", "nncf"),
    Variant("nncf", "accuracy", "openvino", "nncf_quantise", "nncf", "labelled"),
    Variant("olive", "minmax", "onnx", "olive_quantise", "olive"),
    Variant("olive", "percentile", "onnx", "olive_quantise", "olive"),
    Variant("ai-edge-quantizer", "static", "tflite", "ai_edge_quantise", "ai-edge-quantizer"),
    Variant(
        "ai-edge-quantizer", "dynamic", "tflite", "ai_edge_quantise", "ai-edge-quantizer", "transformers"
    ),
)
TOOLS = tuple(dict.fromkeys(variant.tool for variant in VARIANTS))
