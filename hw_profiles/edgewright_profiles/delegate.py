"""`Delegate`: what brings a model onto an accelerator, and what it takes of a model.

It owns the schema of `delegates/*.toml` and reads them: data with a source for every table, as the profiles
are. What a limit means is written where a graph is held against it, in the converters.
"""

from __future__ import annotations

import sys
from functools import cache
from importlib import resources
from typing import Annotated, Literal

from pydantic import Field, model_validator

from edgewright_profiles.profile import Array, Count, DelegateName, FactGroup, ModelFormat, Source, Text

if sys.version_info >= (3, 11):
    import tomllib
else:  # the standard library has it from 3.11 on
    import tomli as tomllib

Limit = Literal[
    "any-dtype",
    "biased",
    "constant-second-input",
    "constant-weight",
    "equal-dilations",
    "float-input",
    "no-batch-axis",
    "no-fused-activation",
    "one-dimensional",
    "rank-4-at-most",
    "same-grid",
    "spatial-axes",
    "two-inputs-if-constant",
    "unit-strides",
]


class Operators(FactGroup):
    """Operators by the name that the model format gives them, and what each may not be; `[]` sets no limit."""

    limits: dict[str, Array[Limit]]


class Delegate(FactGroup):
    """One delegate or compiler, at one version."""

    schema_version: Literal[1] = Field(alias="schema")
    name: DelegateName
    title: Text
    version: Text
    format: ModelFormat
    activation_dtypes: Array[Literal["int8", "uint8"]] = Field(min_length=1)
    symmetric_activations: bool = Field(description="zero points of activations have to be nought")
    float_runs: bool = Field(description="operators in float run there too, in float16 or float32")
    first_refusal_ends: bool = Field(
        description="what comes after the first operator that is refused stays on the processor too"
    )
    large_dimensions: Count | None = Field(
        default=None, description="innermost dimensions of a tensor that may be larger than one; absent: all"
    )
    opsets: Annotated[tuple[int, int], Field(strict=False)] | None = Field(
        default=None, description="first and last operator set of ONNX"
    )
    operators: Array[Operators] = Field(min_length=1)
    sources: dict[str, Source]

    @model_validator(mode="after")
    def _sources_exist(self) -> Delegate:
        used = {source for group in (self, *self.operators) for source in group.source}
        if used != set(self.sources):
            raise ValueError(f"sources that are missing or back nothing: {sorted(used ^ set(self.sources))}")
        return self

    @property
    def limits(self) -> dict[str, tuple[Limit, ...]]:
        """Every operator that it takes, with its limits."""
        return {name: limits for table in self.operators for name, limits in table.limits.items()}


@cache
def load_delegate(name: DelegateName) -> Delegate:
    """The rules of a delegate."""
    file = resources.files("edgewright_profiles") / "delegates" / f"{name}.toml"
    return Delegate.model_validate(tomllib.loads(file.read_text(encoding="utf-8")))
