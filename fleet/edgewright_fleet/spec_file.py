"""A specification in YAML, read from a file: one line for whatever is wrong with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel

from edgewright.contract import from_mapping
from edgewright.errors import ConfigError

SpecT = TypeVar("SpecT", bound=BaseModel)


def read_spec(model: type[SpecT], path: Path, defaults: dict[str, Any] | None = None) -> SpecT:
    """The specification of kind `model` in the file at `path`. Raises `ConfigError`.

    A key of `defaults` that the file lacks has its value there.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError("does not exist", where=str(path)) from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"cannot be read ({error})", where=str(path)) from None
    document = _parse(text, str(path))
    if defaults and isinstance(document, dict):
        document = {**defaults, **document}
    return from_mapping(model, document, where=str(path))


def _parse(text: str, where: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.MarkedYAMLError as error:
        line = f"line {error.problem_mark.line + 1}: " if error.problem_mark else ""
        raise ConfigError(f"{line}{error.problem or 'is not YAML'}", where=where) from None
    except (yaml.YAMLError, RecursionError) as error:
        raise ConfigError(f"is not YAML ({error})", where=where) from None
    # PyYAML's constructors let these through for a tagged scalar that does not hold, such as `!!int ""`.
    except (ValueError, LookupError, AttributeError, TypeError, OverflowError) as error:
        raise ConfigError(f"holds a value that YAML does not know ({error})", where=where) from None
