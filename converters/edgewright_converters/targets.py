"""Which artifacts a conversion makes: one for each profile and format, and what must be quantised for them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from edgewright.artifact.manifest import ModelFormat
from edgewright.errors import ConversionError
from edgewright_converters.quantise.quantised_model import ActivationDtype
from edgewright_converters.source import SourceModel
from edgewright_profiles import HardwareProfile


@dataclass(frozen=True, order=True)
class Setting:
    """What distinguishes one quantised file of a model from another; profiles that agree in it share the file."""

    format: ModelFormat
    activation: ActivationDtype
    symmetric: bool = False


def formats(
    model: SourceModel,
    profiles: Sequence[HardwareProfile],
    asked: ModelFormat | Sequence[ModelFormat] | None,
) -> tuple[ModelFormat, ...]:
    """The formats to make: those asked for, else all that the profiles run; of an ONNX source ONNX alone, as not
    every operator of ONNX is carried over to TFLite."""
    if asked is not None:
        return (asked,) if isinstance(asked, str) else tuple(dict.fromkeys(asked))
    if not profiles:
        raise ConversionError("no hardware profile is named", remedy="'edgewright profile list' shows them")
    available: dict[ModelFormat, None] = {f: None for p in profiles for f in p.formats}
    if model.onnx_path is not None:
        available.pop("tflite", None)
    return tuple(sorted(available))


def settings(
    profiles: Sequence[HardwareProfile], wanted: Sequence[ModelFormat]
) -> Mapping[tuple[str, ModelFormat], Setting]:
    """The setting of each artifact, by profile and format. Raises `ConversionError` where there is none."""
    found: dict[tuple[str, ModelFormat], Setting] = {}
    for profile in profiles:
        for model_format in wanted:
            if model_format in profile.formats:
                runtime = profile.runtime_for(model_format)
                found[profile.name, model_format] = Setting(
                    model_format, runtime.activation_dtype, runtime.activation_symmetric
                )
    if not found:
        names = ", ".join(p.name for p in profiles)
        raise ConversionError(
            f"no profile of {names} takes {' or '.join(wanted)}", remedy="choose another --format"
        )
    return found
