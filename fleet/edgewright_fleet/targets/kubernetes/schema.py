"""A pydantic model as a structural schema, the part of OpenAPI 3.0 that a custom resource may use.

The API server then refuses what has the wrong type or is out of bounds before anything is stored. Unknown
fields are kept (`x-kubernetes-preserve-unknown-fields`), not pruned: a misspelt key that is dropped without a
word would leave a default in force, while a kept one makes the controller refuse the rollout. What such a
schema cannot say, a union of a word and a list or a tuple of fixed places, is left open here and checked by
the model in the controller.
"""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from pydantic import BaseModel

Json = dict[str, Any]
OPEN: Json = {"x-kubernetes-preserve-unknown-fields": True}
_KEPT = ("description", "enum", "maxItems", "maxLength", "maximum", "minItems", "minLength", "minimum")


def structural(model: type[BaseModel], *, without: Collection[str] = ()) -> Json:
    """The structural schema of `model`, with its fields `without` left out."""
    document = model.model_json_schema(by_alias=True)
    properties = {name: value for name, value in document["properties"].items() if name not in without}
    required = [name for name in document.get("required", ()) if name not in without]
    return _node(document | {"properties": properties, "required": required}, document.get("$defs", {}))


def _node(schema: Json, definitions: Json) -> Json:
    schema = _resolved(schema, definitions)
    kept: Json = {key: schema[key] for key in _KEPT if key in schema}
    if "const" in schema:
        kept["enum"] = [schema["const"]]
    # Go's regular expressions (RE2) know no look-around.
    if "pattern" in schema and "(?" not in schema["pattern"]:
        kept["pattern"] = schema["pattern"]
    for ours, bound in (("exclusiveMinimum", "minimum"), ("exclusiveMaximum", "maximum")):
        if ours in schema:  # OpenAPI 3.0 has it as a flag beside the bound
            kept |= {bound: schema[ours], ours: True}
    said = {"description": kept["description"]} if "description" in kept else {}
    if "anyOf" in schema:
        choices = [_resolved(choice, definitions) for choice in schema["anyOf"]]
        real = [choice for choice in choices if choice.get("type") != "null"]
        if len(real) == 1:
            return _node(real[0], definitions) | said | {"nullable": True}
        if {choice.get("type") for choice in real} == {"integer", "string"}:
            return {"x-kubernetes-int-or-string": True, **said}
        return {**OPEN, **said}
    kind = schema.get("type")
    if kind == "array":
        items = schema.get("items")
        return {
            **kept,
            "type": kind,
            "items": _node(items, definitions) if isinstance(items, dict) else dict(OPEN),
        }
    if kind == "object":
        return {**kept, "type": kind, **_fields(schema, definitions)}
    if kind in ("string", "integer", "number", "boolean"):
        return {**kept, "type": kind}
    return {**OPEN, **said}


def _fields(schema: Json, definitions: Json) -> Json:
    values = schema.get("additionalProperties")
    if isinstance(values, dict):
        return {"additionalProperties": _node(values, definitions)}
    if "properties" not in schema:
        return dict(OPEN)
    fields: Json = {"properties": {n: _node(v, definitions) for n, v in schema["properties"].items()}, **OPEN}
    return fields | ({"required": schema["required"]} if schema.get("required") else {})


def _resolved(schema: Json, definitions: Json) -> Json:
    while "$ref" in schema:
        beside = {key: value for key, value in schema.items() if key != "$ref"}
        schema = definitions[schema["$ref"].rsplit("/", 1)[1]] | beside
    if len(schema.get("allOf", ())) == 1:
        return _resolved(schema["allOf"][0] | {k: v for k, v in schema.items() if k != "allOf"}, definitions)
    return schema
