"""What every contract shares: frozen pydantic models, canonical JSON, one-line errors, a schema file.

A contract is data that crosses from one part of Edgewright to another, or to another machine. The
models themselves live with their owner; here is only how one is written, read and published.
"""

from __future__ import annotations

import json
from typing import Any, TypeVar

from pydantic import BaseModel, ConfigDict, ValidationError

from edgewright.errors import ConfigError, EdgewrightError, first_violation

CONTRACT = ConfigDict(
    frozen=True,
    extra="forbid",
    validate_by_name=True,
    validate_by_alias=True,
    serialize_by_alias=True,
    allow_inf_nan=False,
    # `model_` names (model_bytes, model_digest) are ours, not pydantic's.
    protected_namespaces=(),
    # Values are new for ever (rollouts, digests); pydantic would keep the newest 16,384 of them in memory.
    cache_strings="keys",
)
"""The pydantic configuration of every contract: an unknown key is an error, a value never changes."""

ModelT = TypeVar("ModelT", bound=BaseModel)


def to_json(contract: BaseModel) -> bytes:
    """Canonical JSON: UTF-8, sorted keys, no white space, no nulls: equal contracts have equal digests."""
    document = contract.model_dump(mode="json", by_alias=True, exclude_none=True)
    return json.dumps(document, sort_keys=True, separators=(",", ":"), ensure_ascii=False).encode()


def from_json(
    model: type[ModelT], data: bytes, *, where: str, error: type[EdgewrightError] = ConfigError
) -> ModelT:
    """Read a contract from JSON that came from outside; raises `error` with one line on any violation."""
    try:
        return model.model_validate_json(data)
    except ValidationError as violation:
        place, problem = first_violation(violation)
        raise error(f"{place + ': ' if place else ''}{problem}", where=where) from None


def from_mapping(
    model: type[ModelT], data: Any, *, where: str, error: type[EdgewrightError] = ConfigError
) -> ModelT:
    """Read a contract from parsed TOML or YAML; raises `error` with one line on any violation."""
    try:
        return model.model_validate(data)
    except ValidationError as violation:
        place, problem = first_violation(violation)
        raise error(f"{place + ': ' if place else ''}{problem}", where=where) from None


def schema_text(model: type[BaseModel]) -> str:
    """The JSON Schema of a contract as its checked-in file holds it."""
    return json.dumps(model.model_json_schema(by_alias=True), indent=2, sort_keys=True) + "\n"
