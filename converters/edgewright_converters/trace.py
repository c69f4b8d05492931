"""The program that torch.export makes of the float model, from which every target starts.

What cannot be traced is refused with its line, and so is a trace that is not the model.
"""

from __future__ import annotations

import traceback
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from numpy.typing import NDArray

from edgewright.errors import ConversionError
from edgewright_converters.entry_point import one_line
from edgewright_converters.repeatability import difference
from edgewright_converters.silence import silenced
from edgewright_converters.source import SourceModel, output_names, tensors
from edgewright_converters.stack import user_line

Array = NDArray[Any]


def exported_program(
    model: SourceModel, samples: Sequence[Mapping[str, Array]]
) -> tuple[SourceModel, torch.export.ExportedProgram]:
    """The program, and the model without TorchScript, which only this step understands.

    It is traced on the first sample; what that bakes into it shows on the others. Raises `ConversionError`.
    """
    model = _without_script(model, samples[0])
    program = _program(model, samples[0])
    _check_equal(model, program, samples)
    return model, program


def _without_script(model: SourceModel, sample: Mapping[str, Array]) -> SourceModel:
    """A TorchScript program as the graph module that torch.export takes; other models as they are."""
    if not isinstance(model.module, torch.jit.ScriptModule):
        return model
    try:
        with silenced():
            from torch._export.converter import TS2EPConverter

            converter = TS2EPConverter(model.module, tensors(sample, model.input_names))
            return replace(model, module=converter.convert().module())
    except Exception as error:
        raise ConversionError(
            f"is TorchScript that torch.export cannot take over ({one_line(error)})",
            where=model.label,
            remedy="give the Python model as module:function, or save it with torch.export.save as .pt2",
        ) from error


def _program(model: SourceModel, sample: Mapping[str, Array]) -> torch.export.ExportedProgram:
    assert model.module is not None
    try:
        with silenced():
            return torch.export.export(model.module, tensors(sample, model.input_names))
    except Exception as error:
        line = user_line("".join(traceback.format_exception(error)))
        place = f" ({line})" if line else ""
        if "data-dependent" in str(error):
            problem = f"its control flow depends on the data{place}"
            raise ConversionError(
                problem,
                where=model.label,
                remedy="write the branch with torch.where, or take it out of forward()",
            ) from None
        raise ConversionError(
            f"torch.export does not take it{place}: {one_line(error)}",
            where=model.label,
            remedy="compute it with torch operators on the inputs alone",
        ) from error


def _check_equal(
    model: SourceModel, program: torch.export.ExportedProgram, samples: Sequence[Mapping[str, Array]]
) -> None:
    module = program.module()
    for index, sample in enumerate(samples):
        with torch.inference_mode():
            result = output_names(module(*tensors(sample, model.input_names)))
        differs = difference(model.run(sample), {name: value.numpy() for name, value in result.items()})
        if differs:
            raise ConversionError(
                f"torch.export does not reproduce it: {differs} for sample {index}",
                where=model.label,
                remedy="look for Python values, caches or branches in forward() that depend on the input",
            )
