"""Runs a recipe of ai-edge-quantizer that needs no calibration on a float TFLite graph."""

from __future__ import annotations

from typing import Any

from edgewright.errors import ConversionError
from edgewright_converters.silence import silenced


def quantise_by_recipe(data: bytes, recipe: list[dict[str, Any]]) -> bytes:
    """The quantised file. Raises `ConversionError`."""
    from ai_edge_quantizer.quantizer import Quantizer

    try:
        with silenced():
            result = Quantizer(data, recipe).quantize(enable_progress_report=False)
    except (ValueError, RuntimeError, KeyError) as error:
        raise ConversionError(f"the TFLite graph cannot be quantised ({error})") from None
    return bytes(result.quantized_model)
