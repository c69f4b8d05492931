"""What a device is: data files with a source for every fact, host detection, and a cost model."""

from edgewright_profiles.catalog import load_profile, parse_profile, profile_names
from edgewright_profiles.cost import Kind, OperatorWork, PredictedLatency, predict_latency
from edgewright_profiles.detect import DetectedHost, detect
from edgewright_profiles.errors import EdgewrightError, ProfileError
from edgewright_profiles.profile import HardwareProfile, ModelFormat, Precision, RuntimeSettings, json_schema

__all__ = [
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
    "load_profile",
    "parse_profile",
    "predict_latency",
    "profile_names",
]
