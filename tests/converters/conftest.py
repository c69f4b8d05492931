"""Puts this folder on the path, so that `toy_models:FUNCTION` is found as a user's own module would be."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent))
