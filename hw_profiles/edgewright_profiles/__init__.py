"""What a device is: data files with a source for every fact, host detection, and a cost model."""

from edgewright_profiles.catalog import load_profile, parse_profile, profile_names
from edgewright_profiles.cost import Kind, OperatorWork, PredictedLatency, predict_latency
from edgewright_profiles.delegate import Delegate, load_delegate
from edgewright_profiles.detect import DetectedHost, detect
from edgewright_profiles.errors import EdgewrightError, ProfileError
from edgewright_profiles.profile import (
    Accelerator,
    HardwareProfile,
    ModelFormat,
    Precision,
    RuntimeSettings,
    json_schema,
)

__all__ = [
    "Accelerator",
    "Delegate",
    "DetectedHost",
    "EdgewrightError",
    "HardwareProfile",
    "Kind",
    "ModelFormat",
    "OperatorWork",
    "Precision",
    "PredictedLatency",
    "ProfileError",
    "RuntimeSettings",
    "detect",
    "json_schema",
    "load_delegate",
    "load_profile",
    "parse_profile",
    "predict_latency",
    "profile_names",
]
