"""The built-in profiles, and reading a profile from a file of one's own."""

from __future__ import annotations

import difflib
import sys
from importlib import resources
from pathlib import Path

from pydantic import ValidationError

from edgewright_profiles.errors import ProfileError
from edgewright_profiles.profile import HardwareProfile

if sys.version_info >= (3, 11):
    from importlib.resources.abc import Traversable

    import tomllib
else:  # the standard library has them from 3.11 on
    from importlib.abc import Traversable

    import tomli as tomllib


def profile_names() -> tuple[str, ...]:
    """The names of the built-in profiles, sorted."""
    files = (resources.files("edgewright_profiles") / "data").iterdir()
    return tuple(sorted(f.name.removesuffix(".toml") for f in files if f.name.endswith(".toml")))


def load_profile(name: str | Path) -> HardwareProfile:
    """A built-in profile by its name, or one from a `.toml` file.

    Raises `ProfileError`: with the nearest name where there is no such profile, with file and key where one
    does not hold.
    """
    text = str(name)
    if text in profile_names():
        return _read(resources.files("edgewright_profiles") / "data" / f"{text}.toml", text)
    path = Path(name)
    if path.suffix == ".toml" and path.is_file():
        return _read(path, text)
    nearest = difflib.get_close_matches(text, profile_names(), n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    raise ProfileError(f"no hardware profile '{text}'", remedy=f"{hint}'edgewright profile list' shows all")


def parse_profile(text: str, where: str) -> HardwareProfile:
    """Read a profile from TOML text. Raises `ProfileError`."""
    try:
        return HardwareProfile.model_validate(tomllib.loads(text))
    except tomllib.TOMLDecodeError as error:
        raise ProfileError(f"is not TOML ({error})", where=where) from None
    except ValidationError as error:
        detail = error.errors(include_url=False)[0]
        place = ".".join(str(part) for part in detail["loc"])
        message = "no such key" if detail["type"] == "extra_forbidden" else detail["msg"]
        problem = message.removeprefix("Value error, ")
        raise ProfileError(f"{place}: {problem}" if place else problem, where=where) from None


def _read(file: Traversable, where: str) -> HardwareProfile:
    try:
        text = file.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ProfileError(f"cannot be read ({error})", where=where) from None
    return parse_profile(text, where)
