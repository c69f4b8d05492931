from __future__ import annotations

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
import toy_data
import toy_models
from onnx import TensorProto, helper

import edgewright as ew
from edgewright.errors import EdgewrightError
from edgewright_converters.pipeline import convert
from edgewright_converters.source import load_source
from edgewright_converters.source_check import check_takes

RNG = np.random.default_rng(0)
IMAGES = toy_data.images()


def floats(*shape: int) -> Any:
    return RNG.standard_normal((12, *shape)).astype(np.float32)


def exported(path: Path, *, dynamic: bool) -> Path:
    """The small model as `.pt2`."""
    batch = {"image": {0: torch.export.Dim("batch", min=1, max=64)}} if dynamic else None
    example = torch.from_numpy(IMAGES[: 2 if dynamic else 1])
    program = torch.export.export(toy_models.small().eval(), (example,), dynamic_shapes=batch)
    torch.export.save(program, path)
    return path


def scripted(path: Path) -> Path:
    torch.jit.save(torch.jit.script(toy_models.small()), path)
    return path


def traced(path: Path) -> Path:
    torch.jit.save(torch.jit.trace(toy_models.small().eval(), torch.from_numpy(IMAGES[:1])), path)
    return path


def dynamic_onnx(path: Path, *, external: bool = False) -> Path:
    """Two inputs and two outputs with a symbolic batch, the weights in a file beside it or not."""
    program = torch.onnx.export(
        toy_models.two_inputs().eval(),
        (torch.zeros(2, 6), torch.zeros(2, 3)),
        dynamic_shapes={"left": {0: torch.export.Dim("batch")}, "right": {0: torch.export.Dim("batch")}},
        input_names=["left", "right"],
        output_names=["joined", "half"],
        verbose=False,
        dynamo=True,
    )
    assert program is not None
    onnx.save_model(
        program.model_proto,
        str(path),
        save_as_external_data=external,
        location="weights.bin",
        size_threshold=0,
    )
    return path


@pytest.mark.parametrize("kind", ["static pt2", "dynamic pt2", "script", "trace"])
def test_saved_program_computes_what_the_module_does(tmp_path: Path, kind: str) -> None:
    path = tmp_path / f"net.{'pt2' if 'pt2' in kind else 'pt'}"
    if "pt2" in kind:
        exported(path, dynamic=kind.startswith("dynamic"))
    else:
        (scripted if kind == "script" else traced)(path)
    model = load_source(path)
    assert model.input_names == ("image",)
    expected = load_source(toy_models.small()).run({"image": IMAGES[:1]})["output"]
    np.testing.assert_allclose(model.run({"image": IMAGES[:1]})["output"], expected, atol=1e-5)


@pytest.mark.slow
@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
@pytest.mark.parametrize("kind", ["dynamic pt2", "script", "trace"])
def test_saved_program_becomes_an_artifact_of_batch_one(tmp_path: Path, kind: str, model_format: Any) -> None:
    path = tmp_path / f"net.{'pt2' if 'pt2' in kind else 'pt'}"
    exported(path, dynamic=True) if "pt2" in kind else (scripted if kind == "script" else traced)(path)
    report = convert(
        path,
        calibration={"image": IMAGES},
        profile="raspberry-pi-5",
        format=model_format,
        output=tmp_path / "out",
    )
    (artifact,) = report.artifacts
    assert artifact.inputs[0].source_shape == (1, 2, 12, 12)
    assert artifact.inputs[0].name == "image"
    assert artifact.accuracy.sqnr_db["output"] > 15


@pytest.mark.slow
@pytest.mark.parametrize("model_format", ["onnx", "tflite"])
@pytest.mark.parametrize(
    ("model", "data", "outputs"),
    [
        (toy_models.Waveform, {"x": floats(3, 40)}, {"output"}),
        (toy_models.Tokens, {"ids": RNG.integers(0, 50, (12, 7))}, {"output"}),
        (toy_models.Tokens, {"ids": RNG.integers(0, 50, (12, 7)), "mask": floats(7)}, {"output"}),
        (toy_models.Recurrent, {"frame": floats(4), "state": floats(6)}, {"scores", "next_state"}),
        (toy_models.HeatMaps, {"image": floats(2, 12, 12), "gain": floats(4)}, {"output_0", "output_1"}),
        (toy_models.WritesInput, {"x": floats(4)}, {"output"}),
    ],
    ids=["waveform", "tokens", "tokens and mask", "recurrent", "heat maps", "writes its input"],
)
def test_models_of_every_shape_convert(
    tmp_path: Path, model: type[torch.nn.Module], data: dict[str, Any], outputs: set[str], model_format: Any
) -> None:
    torch.manual_seed(0)
    net = model()
    given = {name: array.copy() for name, array in data.items()}
    report = convert(
        net, calibration=data, profile="raspberry-pi-5", format=model_format, output=tmp_path / "out"
    )
    (artifact,) = report.artifacts
    assert {spec.name for spec in artifact.outputs} == outputs
    loaded = ew.load(str(tmp_path / "out"), format=model_format)
    sample = {name: array[:1] for name, array in data.items()}
    names = [spec.name for spec in artifact.inputs]
    result = loaded.run({name: sample["x" if "x" in sample else name] for name in names})
    assert set(result) == outputs
    assert min(artifact.accuracy.sqnr_db.values()) > 15
    for name, array in data.items():
        np.testing.assert_array_equal(array, given[name])


@pytest.mark.slow
@pytest.mark.parametrize("external", [False, True])
def test_onnx_file_of_symbolic_batch_and_several_tensors_converts(tmp_path: Path, external: bool) -> None:
    path = dynamic_onnx(tmp_path / "net.onnx", external=external)
    data = {"left": floats(6), "right": floats(3)}
    report = convert(path, calibration=data, profile="raspberry-pi-5", output=tmp_path / "out")
    (artifact,) = report.artifacts
    assert {spec.name: spec.shape for spec in artifact.inputs} == {"left": (1, 6), "right": (1, 3)}
    assert {spec.name: spec.shape for spec in artifact.outputs} == {"joined": (1, 8), "half": (1, 8)}
    # The artifact is one file, whatever the source was.
    ew.load(str(tmp_path / "out")).run({name: array[:1] for name, array in data.items()})


def test_keyword_only_and_optional_inputs_are_told_apart() -> None:
    tokens = load_source(toy_models.tokens())
    assert (tokens.input_names, tokens.optional_names) == (("ids",), ("mask", "scale"))
    sample = {"ids": RNG.integers(0, 50, (1, 7)), "mask": np.zeros((1, 7), np.float32)}
    masked = tokens.taking(("ids", "mask")).run(sample)["output"]
    assert not np.allclose(masked, tokens.run(sample)["output"])
    maps = load_source(toy_models.heat_maps())
    assert maps.input_names == ("image", "gain")
    maps.run({"image": IMAGES[:1], "gain": np.ones((1, 4), np.float32)})


def saved_weights(path: Path) -> None:
    torch.save(toy_models.small().state_dict(), path)


def pickled_module(path: Path) -> None:
    torch.save(toy_models.small(), path)


def nothing(path: Path) -> None:
    path.write_bytes(b"")


def torn(path: Path) -> None:
    path.write_bytes(b"PK\x03\x04 torn")


def script_without_its_code(path: Path) -> None:
    scripted(path)
    with zipfile.ZipFile(path) as whole:
        kept = {name: whole.read(name) for name in whole.namelist() if "/code/" not in name}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in kept.items():
            archive.writestr(name, content)


def onnx_of_no_such_operator(path: Path) -> None:
    values = [helper.make_tensor_value_info(n, TensorProto.FLOAT, [1, 4]) for n in ("x", "y")]
    graph = helper.make_graph([helper.make_node("NoSuchThing", ["x"], ["y"])], "g", values[:1], values[1:])
    onnx.save(helper.make_model(graph), path)


def onnx_without_its_data(path: Path) -> None:
    dynamic_onnx(path, external=True)
    (path.parent / "weights.bin").unlink()


@pytest.mark.parametrize(
    ("name", "make", "problem"),
    [
        ("w.pt", saved_weights, "w.pt: holds weights and no model; give module:function"),
        ("w.pth", pickled_module, "holds weights and no model"),
        ("w.safetensors", nothing, "holds weights and no model"),
        ("net.pt", torn, "is torn, or holds no model"),
        ("net.pt", script_without_its_code, "is not a TorchScript program that can be loaded"),
        ("net.pt2", nothing, "is not an exported program"),
        ("net.pt2", torn, "is not an exported program"),
        ("net.onnx", nothing, "net.onnx: is not a model that ONNX Runtime can load"),
        ("net.onnx", torn, "net.onnx: is not a model that ONNX Runtime can load"),
        ("net.onnx", onnx_of_no_such_operator, "NoSuchThing"),
        ("net.onnx", onnx_without_its_data, "External data path does not exist"),
        ("net.h5", nothing, "is not a model that Edgewright reads; give module:function"),
        ("absent.pt", None, "absent.pt: does not exist"),
    ],
)
def test_file_that_is_no_model_is_one_line_with_the_remedy(
    tmp_path: Path, name: str, make: Any, problem: str
) -> None:
    if make is not None:
        make(tmp_path / name)
    with pytest.raises(EdgewrightError) as caught:
        load_source(tmp_path / name)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("toy_models:fails", "toy_models:fails: calling it fails (RuntimeError: no such checkpoint)"),
        ("toy_models:nn", "is module, not a function"),
        ("toy_models:no_model", "returns int, not an nn.Module"),
        ("toy_models:Absent", "module 'toy_models' has no 'Absent'"),
        ("no_such_module:net", "there is no Python module 'no_such_module'"),
        ("not a model", "does not exist"),
    ],
)
def test_function_that_gives_no_model_is_one_line(source: str, problem: str) -> None:
    with pytest.raises(EdgewrightError) as caught:
        load_source(source)
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)


class Payload:
    """Pickled, it would write a file as soon as it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> Any:
        return Path.write_text, (self.path, "ran")


@pytest.mark.parametrize("member", ["sample inputs", "opaque_obj_0"])
def test_exported_program_with_code_in_it_does_not_run_it(tmp_path: Path, member: str) -> None:
    exported(tmp_path / "net.pt2", dynamic=False)
    payload = io.BytesIO()
    torch.save((Payload(tmp_path / "ran"),), payload)
    replaced = False
    with (
        zipfile.ZipFile(tmp_path / "net.pt2") as before,
        zipfile.ZipFile(tmp_path / "bad.pt2", "w") as after,
    ):
        for name in before.namelist():
            hit = "sample_inputs" in name and member == "sample inputs"
            after.writestr(name, payload.getvalue() if hit else before.read(name))
            replaced |= hit
        if not replaced:
            after.writestr(f"bad/data/constants/{member}", payload.getvalue())
    assert replaced == (member == "sample inputs")
    with pytest.raises(EdgewrightError, match=r"is not an exported program|holds pickled objects") as caught:
        load_source(tmp_path / "bad.pt2")
    assert not (tmp_path / "ran").exists()
    assert "\n" not in str(caught.value)


def test_program_saved_for_another_batch_is_refused_in_one_line(tmp_path: Path) -> None:
    program = torch.export.export(toy_models.small().eval(), (torch.from_numpy(IMAGES[:8]),))
    torch.export.save(program, tmp_path / "net.pt2")
    with pytest.raises(EdgewrightError, match=r"does not take image float32\[1, 2, 12, 12\]") as caught:
        check_takes(load_source(tmp_path / "net.pt2"), {"image": IMAGES[:1]})
    assert "\n" not in str(caught.value)
