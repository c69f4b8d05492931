"""Edgewright: take a PyTorch model to a fleet of edge devices as verified INT8, and keep it healthy there.

    import edgewright as ew

    report = ew.convert("model:net", calibration="photos/", profile="raspberry-pi-5", output="registry/")
    model = ew.load("oci:registry:net:1.0.0", profile="raspberry-pi-5", format="onnx")
    scores = model.run(image)

    model = ew.load("net")  # on a device: whatever version of it the agent serves, from call to call

Everything is imported when it is first used, so that `import edgewright` costs next to nothing.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from edgewright.version import __version__

if TYPE_CHECKING:
    from edgewright.artifact.manifest import ArtifactManifest
    from edgewright.errors import EdgewrightError
    from edgewright.latency_benchmark import Benchmark, benchmark
    from edgewright.runtime.following import FollowingModel, load
    from edgewright.runtime.model import Model
    from edgewright_converters.fine_tuning import distillation_loss, fine_tune, quantisation_aware
    from edgewright_converters.pipeline import convert
    from edgewright_profiles import load_profile as profile

__all__ = [
    "ArtifactManifest",
    "Benchmark",
    "EdgewrightError",
    "FollowingModel",
    "Model",
    "__version__",
    "benchmark",
    "convert",
    "distillation_loss",
    "fine_tune",
    "load",
    "profile",
    "quantisation_aware",
]

_LAZY = {
    "ArtifactManifest": ("edgewright.artifact.manifest", "ArtifactManifest"),
    "Benchmark": ("edgewright.latency_benchmark", "Benchmark"),
    "EdgewrightError": ("edgewright.errors", "EdgewrightError"),
    "FollowingModel": ("edgewright.runtime.following", "FollowingModel"),
    "Model": ("edgewright.runtime.model", "Model"),
    "benchmark": ("edgewright.latency_benchmark", "benchmark"),
    "convert": ("edgewright_converters.pipeline", "convert"),
    "distillation_loss": ("edgewright_converters.fine_tuning", "distillation_loss"),
    "fine_tune": ("edgewright_converters.fine_tuning", "fine_tune"),
    "load": ("edgewright.runtime.following", "load"),
    "profile": ("edgewright_profiles", "load_profile"),
    "quantisation_aware": ("edgewright_converters.fine_tuning", "quantisation_aware"),
}


def __getattr__(name: str) -> Any:
    try:
        module, attribute = _LAZY[name]
    except KeyError:
        raise AttributeError(f"module 'edgewright' has no attribute '{name}'") from None
    value = getattr(importlib.import_module(module), attribute)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
