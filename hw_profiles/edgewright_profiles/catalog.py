"""The built-in profiles, and reading a profile from a file of one's own.

Every way in which a name, a file or its text can be wrong leaves here as a `ProfileError` of one line.
"""

from __future__ import annotations

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


def load_profile(name_or_path: str | Path) -> HardwareProfile:
    """A built-in profile by its name, or one from the `.toml` file at a path.

    Raises `ProfileError`: with the nearest name where there is no such profile, with file and key where one
    does not hold.
    """
    text = str(name_or_path)
    names = profile_names()
    if text in names:
        return _read(resources.files("edgewright_profiles") / "data" / f"{text}.toml", text)
    if text.endswith(".toml"):
        return _read(Path(text), text)
    import difflib  # 0.2 MB of memory that a device with a sound configuration saves

    nearest = difflib.get_close_matches(text, names, n=1, cutoff=0.4)
    hint = f"did you mean '{nearest[0]}'? " if nearest else ""
    raise ProfileError(f"no hardware profile '{text}'", remedy=f"{hint}'edgewright profile list' shows all")


def parse_profile(text: str, where: str) -> HardwareProfile:
    """Read a profile from TOML text; `where` names it in the error. Raises `ProfileError`."""
    try:
        document = tomllib.loads(text)
    # Not every complaint of the parser is a TOMLDecodeError: nesting and very long integers have limits of
    # Python's own.
    except (ValueError, RecursionError) as error:
        raise ProfileError(f"is not TOML ({error})", where=where) from None
    try:
        return HardwareProfile.model_validate(document)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        place = ".".join(str(part) for part in detail["loc"])
        message = "no such key" if detail["type"] == "extra_forbidden" else detail["msg"]
        problem = message.removeprefix("Value error, ")
        raise ProfileError(f"{place}: {problem}" if place else problem, where=where) from None


def _read(file: Traversable, where: str) -> HardwareProfile:
    try:
        text = file.read_text(encoding="utf-8")
    # ValueError: not UTF-8, or a path with a NUL in it.
    except (OSError, ValueError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
        raise ProfileError(f"cannot be read ({reason})", where=where) from None
    return parse_profile(text, where)
