"""What a device is: data files with a source for every fact.

Host detection and the cost model are in `detect` and `cost`: a device has no use for them, and saves the memory.
"""

from edgewright_profiles.catalog import load_profile, parse_profile, profile_names
from edgewright_profiles.delegate import Delegate, load_delegate
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
    "EdgewrightError",
    "HardwareProfile",
    "ModelFormat",
    "Precision",
    "ProfileError",
    "RuntimeSettings",
    "json_schema",
    "load_delegate",
    "load_profile",
    "parse_profile",
    "profile_names",
]
