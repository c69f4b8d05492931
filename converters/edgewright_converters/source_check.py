"""Whether the float model takes a sample and makes finite numbers of it: the first thing that is run of it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, get_args

import numpy as np
import torch
from numpy.typing import NDArray

from edgewright.artifact.manifest import Dtype
from edgewright.errors import ConversionError, DataError, EdgewrightError
from edgewright_converters.entry_point import one_line
from edgewright_converters.source import SourceModel

Array = NDArray[Any]


def check_takes(model: SourceModel, sample: Mapping[str, Array], which: str = "first") -> dict[str, Array]:
    """Run one sample through the float model and return its outputs.

    Raises `DataError` where the model does not take it, `ConversionError` where the outputs are no finite numbers.
    """
    shown = ", ".join(f"{name} {array.dtype}{list(array.shape)}" for name, array in sample.items())
    try:
        outputs = model.run(sample)
    except EdgewrightError:
        raise
    except (Exception, SystemExit) as error:
        raise DataError(
            f"the model does not take {shown} ({one_line(error)})",
            where=model.label,
            remedy=_as_trained(model, sample),
        ) from error
    for kind, arrays in (("input", sample), ("output", outputs)):
        for name, array in arrays.items():
            if not name.isprintable() or not name:
                raise ConversionError(
                    f"the name of an {kind} is {name!r}", where=model.label, remedy="use letters and digits"
                )
            if not array.size or array.dtype.name not in get_args(Dtype):
                raise ConversionError(
                    f"its {kind} '{name}' is {array.dtype}{list(array.shape)}, which no target holds",
                    where=model.label,
                    remedy=f"make that one or more values of {', '.join(get_args(Dtype)[:-1])} or bool",
                )
    half = next((name for name, array in sample.items() if array.dtype == np.float16), None)
    if half is not None and model.onnx_path is not None:
        remedy = "export it in float32, and give such data: --precision chooses what it becomes"
        raise ConversionError(f"its input '{half}' is float16", where=model.label, remedy=remedy)
    parameters = dict(model.module.named_parameters()) if model.module is not None else {}
    narrow = next(
        (n for n, p in parameters.items() if p.is_floating_point() and p.dtype != torch.float32), None
    )
    if narrow is not None:
        raise ConversionError(
            f"its weight '{narrow}' is {str(parameters[narrow].dtype).removeprefix('torch.')}",
            where=model.label,
            remedy="return model.float(), and give such data: --precision chooses what it becomes",
        )
    for name, array in outputs.items():
        if np.issubdtype(array.dtype, np.floating) and not np.isfinite(array).all():
            raise ConversionError(
                f"its output '{name}' is not finite for the {which} sample",
                where=model.label,
                remedy="look for NaN in its weights, and for data unlike that it was trained on",
            )
    return outputs


def _as_trained(model: SourceModel, sample: Mapping[str, Array]) -> str:
    """What the usual mistakes are, where the sample looks like one."""
    arrays = sample.values()
    weights = model.module.state_dict().values() if model.module is not None else ()
    elsewhere = {str(weight.device) for weight in weights if torch.is_tensor(weight)} - {"cpu"}
    if elsewhere:
        return (
            f"its weights are on {', '.join(sorted(elsewhere))}: load them, and return the model on the CPU"
        )
    if any(w.dtype in (torch.float64, torch.float16, torch.bfloat16) for w in weights if torch.is_tensor(w)):
        return "its weights are not float32: return model.float()"
    if any(form.shape[:1] > (1,) for form in model.input_forms.values()):
        return "export it with a batch of one or of any size"
    if any(array.dtype == np.uint8 for array in arrays):
        return "give the numbers that it was trained on as float32, or images with a preprocessing.json"
    if any(a.ndim == 4 and a.shape[3] in (1, 3, 4) and a.shape[1] not in (1, 3, 4) for a in arrays):
        return "if its images are channels first, give them so: x.transpose(0, 3, 1, 2)"
    if any(a.dtype != np.float32 for a in arrays if a.dtype.kind == "f"):
        return "convert the data with .astype('float32')"
    return "give data of the shape and dtype that it was trained on, its first axis the samples"
