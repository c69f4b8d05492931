"""What a device is: data files with a source for every fact, host detection, and a cost model."""

from edgewright_profiles.catalog import load_profile, profile_names
from edgewright_profiles.detect import DetectedHost, detect
from edgewright_profiles.errors import EdgewrightError, ProfileError
from edgewright_profiles.profile import HardwareProfile, ModelFormat, RuntimeSettings

__all__ = [
    "DetectedHost",
    "EdgewrightError",
    "HardwareProfile",
    "ModelFormat",
    "ProfileError",
    "RuntimeSettings",
    "detect",
    "load_profile",
    "profile_names",
]
