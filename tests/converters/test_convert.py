from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from numpy.typing import NDArray

import edgewright as ew
from edgewright.artifact.golden import prove
from edgewright.artifact.layout import Layout
from edgewright.artifact.release import open_all
from edgewright.errors import (
    ConversionError,
    DataError,
    EdgewrightError,
    ProfileError,
    StorageError,
    TrustError,
)
from edgewright.trust.repository import create
from edgewright.trust.verify import verify_registry
from edgewright_converters.pipeline import convert

RNG = np.random.default_rng(0)
IMAGES: NDArray[Any] = RNG.standard_normal((24, 2, 12, 12)).astype(np.float32)
PROFILES = ["raspberry-pi-5", "signed"]


def signed_profile(folder: Path) -> Path:
    """A Raspberry Pi 5 with signed activations in ONNX Runtime too, which no profile of ours asks of a CPU."""
    text = (resources.files("edgewright_profiles") / "data" / "raspberry-pi-5.toml").read_text()
    path = folder / "signed.toml"
    path.write_text(text.replace('"raspberry-pi-5"', '"signed"', 1).replace('"uint8"', '"int8"'))
    return path


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """The small model for two profiles that differ in their activations, in both formats."""
    labels = RNG.integers(0, 4, len(IMAGES))
    output = tmp_path_factory.mktemp("out") / "registry"
    return convert(
        "toy_models:small",
        calibration={"x": IMAGES},
        evaluation={"x": IMAGES, "y": labels},
        profile=["raspberry-pi-5", signed_profile(output.parent)],
        precision="int8",
        output=output,
    )


@pytest.mark.slow
def test_every_artifact_proves_itself_and_is_smaller_and_close(converted: Any) -> None:
    artifacts = open_all(str(converted.output))
    assert {(a.manifest.profile, a.manifest.format) for a in artifacts} == {
        (p, f) for p in PROFILES for f in ("onnx", "tflite")
    }
    for artifact in artifacts:
        manifest = artifact.manifest
        model = ew.load(
            f"oci:{converted.output}:small:1.0.0", profile=manifest.profile, format=manifest.format
        )
        assert prove(artifact.golden(), manifest.golden, model.run_raw).worst_lsb == 0
        assert all(spec.dtype in ("int8", "uint8") for spec in manifest.inputs)
        # ONNX Runtime gives the scores as the sums that they are.
        assert {spec.dtype for spec in manifest.outputs} == {
            "float32" if manifest.format == "onnx" else "int8"
        }
        assert manifest.float_operators == ()
        assert manifest.accuracy.sqnr_db["output"] > 15
        assert manifest.gate is not None and manifest.gate.int8_mac_share == 1.0
        assert manifest.accuracy.change is not None and manifest.accuracy.float_accuracy is not None
        assert {f.how for f in manifest.latencies} == {"measured on host", "predicted"}
        reference = manifest.drift_reference
        assert reference is not None and reference.sketch.samples == manifest.accuracy.samples
        assert len(reference.sketch.classes) == manifest.outputs[0].shape[-1]
        # 8×2×9 + 8×9 MACs a pixel, and the head.
        assert manifest.macs == 12 * 12 * (8 * 2 * 9 + 8 * 9) + 8 * 4


@pytest.mark.slow
def test_both_formats_take_the_same_array_and_agree(converted: Any) -> None:
    reference = f"oci:{converted.output}:small:1.0.0"
    onnx = ew.load(reference, profile="raspberry-pi-5", format="onnx").run(IMAGES[:1])["output"]
    tflite = ew.load(reference, profile="raspberry-pi-5", format="tflite").run(IMAGES[:1])["output"]
    assert np.abs(onnx - tflite).max() < 0.1 * np.abs(onnx).max()


@pytest.mark.slow
def test_profile_decides_the_activations(converted: Any) -> None:
    found = {m.profile: m.inputs[0].dtype for m in converted.artifacts if m.format == "onnx"}
    assert found == {"raspberry-pi-5": "uint8", "signed": "int8"}


@pytest.mark.slow
def test_signed_activations_are_not_judged_by_the_time_of_kernels_that_x86_does_not_have(
    tmp_path: Path,
) -> None:
    report = convert(
        "toy_models:small",
        calibration={"x": IMAGES},
        profile=signed_profile(tmp_path),
        format="onnx",
        output=tmp_path / "out",
    )
    assert report.artifacts[0].precision == "int8" and report.artifacts[0].inputs[0].dtype == "int8"


@pytest.mark.slow
def test_several_inputs_and_outputs_keep_their_names(tmp_path: Path) -> None:
    left = RNG.standard_normal((16, 6)).astype(np.float32)
    right = RNG.standard_normal((16, 3)).astype(np.float32)
    convert(
        "toy_models:two_inputs",
        calibration={"left": left, "right": right},
        profile="raspberry-pi-5",
        output=tmp_path / "out",
    )
    for model_format in ("onnx", "tflite"):
        model = ew.load(str(tmp_path / "out"), format=model_format)  # type: ignore[arg-type]
        result = model.run({"right": right[:1], "left": left[:1]})
        assert np.allclose(result["output_0"] * 0.5, result["output_1"], atol=0.05)


@pytest.mark.slow
def test_exported_program_and_onnx_file_convert_too(tmp_path: Path) -> None:
    import toy_models

    program = torch.export.export(toy_models.small().eval(), (torch.from_numpy(IMAGES[:1]),))
    torch.export.save(program, tmp_path / "net.pt2")
    report = convert(
        tmp_path / "net.pt2",
        calibration={"x": IMAGES},
        profile="raspberry-pi-5",
        format="onnx",
        precision="int8",
        output=tmp_path / "a",
    )
    assert report.artifacts[0].accuracy.sqnr_db["output"] > 15
    exported = torch.onnx.export(program, (), dynamo=True, verbose=False, external_data=False)
    assert exported is not None
    proto = exported.model_proto
    for node in proto.graph.node:
        node.name = ""  # as other tools may leave them
    onnx.save(proto, str(tmp_path / "net.onnx"))
    settings = {"calibration": {"x": IMAGES}, "profile": "raspberry-pi-5", "precision": "int8"}
    again = convert(tmp_path / "net.onnx", output=tmp_path / "b", **settings)  # type: ignore[arg-type]
    assert [m.format for m in again.artifacts] == ["onnx"]
    assert again.artifacts[0].gate is not None and again.artifacts[0].gate.int8_mac_share == 1.0
    both = convert(
        tmp_path / "net.onnx",
        format=["onnx", "tflite"],
        output=tmp_path / "c",
        **settings,  # type: ignore[arg-type]
    )
    assert [m.format for m in both.artifacts] == ["onnx", "tflite"]
    for manifest in both.artifacts:
        assert manifest.gate is not None and manifest.gate.int8_mac_share == 1.0
        assert manifest.accuracy.sqnr_db[manifest.outputs[0].name] > 15
        assert manifest.float_operators == () and manifest.inputs[0].source_shape == (1, 2, 12, 12)


@pytest.mark.slow
def test_precision_that_is_faster_than_int8_is_taken_and_said(tmp_path: Path) -> None:
    # So little work that crossing between float and integers costs more than integers save.
    slow_in_int8 = {"calibration": {"x": IMAGES}, "profile": "x86-64-gateway", "format": "onnx"}
    report = convert("toy_models:small", output=tmp_path / "out", **slow_in_int8)  # type: ignore[arg-type]
    (artifact,) = report.artifacts
    if artifact.precision == "int8":
        assert artifact.gate is not None and not any("is taken" in warning for warning in report.warnings)
    else:
        assert f"{artifact.precision} is taken" in report.warnings[0]
    forced = convert("toy_models:small", output=tmp_path / "forced", precision="int8", **slow_in_int8)  # type: ignore[arg-type]
    assert forced.artifacts[0].precision == "int8"


@pytest.mark.slow
def test_recurrent_model_is_not_called_int8_while_it_runs_in_float(tmp_path: Path) -> None:
    frames = RNG.standard_normal((32, 20, 24)).astype(np.float32)
    settings = {"calibration": {"frames": frames}, "profile": "raspberry-pi-5", "format": "onnx"}
    report = convert("toy_models:plain_lstm", output=tmp_path / "out", **settings)  # type: ignore[arg-type]
    (artifact,) = report.artifacts
    assert artifact.gate is not None and artifact.gate.int8_mac_share is not None
    # Which of them is faster is for this host to say; static INT8 is neither.
    assert artifact.gate.int8_mac_share == (1.0 if artifact.precision == "int8-dynamic" else 0.0)
    assert artifact.precision != "int8" and "static INT8 would run 0." in report.warnings[0]


@pytest.mark.slow
def test_recurrent_model_that_grows_in_static_int8_is_said_to(tmp_path: Path) -> None:
    frames = RNG.standard_normal((32, 20, 24)).astype(np.float32)
    settings = {"calibration": {"frames": frames}, "profile": "raspberry-pi-5", "format": "tflite"}
    report = convert("toy_models:plain_lstm", output=tmp_path / "out", **settings)  # type: ignore[arg-type]
    (artifact,) = report.artifacts
    assert artifact.gate is not None and artifact.float_bytes is not None
    assert "more than float's" in report.warnings[0]
    # Which of them is as fast is for this host to say.
    larger = artifact.model_bytes > artifact.float_bytes
    assert larger == (artifact.precision == "int8")
    (size,) = [check for check in artifact.gate.checks if check.name == "size"]
    assert ("LARGER than float" in size.says) == ("TFLite unrolls" in size.says) == larger


@pytest.mark.parametrize(
    ("source", "data", "profile", "error", "problem"),
    [
        ("nowhere.pt2", {"x": IMAGES}, "raspberry-pi-5", ConversionError, "nowhere.pt2: does not exist"),
        ("toy_models:nothing", {"x": IMAGES}, "raspberry-pi-5", ConversionError, "has no 'nothing'"),
        (
            "toy_models:no_model",
            {"x": IMAGES},
            "raspberry-pi-5",
            ConversionError,
            "returns int, not an nn.Module",
        ),
        ("toy_models:small", {"x": IMAGES}, "raspbery-pi-5", ProfileError, "did you mean 'raspberry-pi-5'"),
        ("toy_models:small", {"x": IMAGES[:, :1]}, "raspberry-pi-5", DataError, "does not take image"),
        ("toy_models:small", {"x": IMAGES.astype("f8")}, "raspberry-pi-5", DataError, "float64"),
        (
            "toy_models:small",
            {"x": IMAGES.astype("u1")},
            "raspberry-pi-5",
            DataError,
            "was trained on as float32",
        ),
        (
            "toy_models:small",
            {"x": RNG.standard_normal((8, 12, 12, 3)).astype("f4")},
            "raspberry-pi-5",
            DataError,
            "x.transpose(0, 3, 1, 2)",
        ),
        ("toy_models:small", {"x": IMAGES * np.nan}, "raspberry-pi-5", DataError, "NaN or infinity"),
        ("toy_models:small", {"z": IMAGES}, "raspberry-pi-5", DataError, "takes image"),
        (
            "toy_models:small",
            {"x": IMAGES, "y": np.full(24, 9)},
            "raspberry-pi-5",
            DataError,
            "label 9 is out of range",
        ),
        (
            "toy_models:small",
            {"x": np.zeros_like(IMAGES)},
            "raspberry-pi-5",
            DataError,
            "is 0 throughout all 24",
        ),
        (
            "toy_models:remembers",
            {"x": IMAGES},
            "raspberry-pi-5",
            ConversionError,
            "hidden state in memory.last",
        ),
        (
            "toy_models:branches",
            {"x": IMAGES},
            "raspberry-pi-5",
            ConversionError,
            "control flow depends on the data",
        ),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(
    tmp_path: Path, source: str, data: Any, profile: str, error: type[EdgewrightError], problem: str
) -> None:
    with pytest.raises(error) as caught:
        convert(source, calibration=data, profile=profile, output=tmp_path / "out")
    assert problem in str(caught.value)
    assert "\n" not in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_channel_that_the_data_leaves_dead_is_reported(tmp_path: Path) -> None:
    dead = IMAGES.copy()
    dead[:, 1] = 0.0
    report = convert("toy_models:small", calibration=dead, profile="raspberry-pi-5", format="onnx",
                     precision="int8", output=tmp_path / "out")  # fmt: skip
    assert ["1 of 2 channels of input 'image'" in warning for warning in report.warnings] == [True]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("source", "model_format", "operator", "other"),
    [
        ("odd", "onnx", "bessel_j0", "tflite does not take it either"),
        ("odd", "tflite", "bessel_j0", "onnx does not take it either"),
        # torch.export names it otherwise than its ONNX exporter does.
        ("inverse_error", "onnx", "erf_inv", "tflite does not take it either"),
        # The converter writes it and the runtime lacks it.
        ("sorts", "tflite", "sort", "or ask for --format onnx, which takes it"),
    ],
)
def test_unsupported_operator_is_named_with_its_place_and_whether_the_other_format_takes_it(
    tmp_path: Path,
    recwarn: pytest.WarningsRecorder,
    source: str,
    model_format: Any,
    operator: str,
    other: str,
) -> None:
    with pytest.raises(ConversionError, match=rf"operator \S*{operator}.*toy_models.py:\d+") as caught:
        convert(
            f"toy_models:{source}", calibration={"x": IMAGES}, profile="raspberry-pi-5", format=model_format,
            output=tmp_path / "out",
        )  # fmt: skip
    assert "\n" not in str(caught.value) and other in str(caught.value)
    assert not (tmp_path / "out").exists()
    assert not [warning for warning in recwarn if "LeafSpec" in str(warning.message)]


@pytest.mark.slow
def test_a_conversion_signs_what_it_writes_and_knows_before_whether_it_can(tmp_path: Path) -> None:
    output, keys = tmp_path / "registry", tmp_path / "keys"
    create(output, keys)

    def run(**how: Any) -> Any:
        return convert("toy_models:small", calibration={"x": IMAGES}, profile="raspberry-pi-5", format="onnx",
                       output=output, sign=keys, **how)  # fmt: skip

    report = run()
    assert verify_registry(output).signers("small:1.0.0", report.release_digest) != ()
    next(keys.glob("targets-*")).unlink()
    began: list[str] = []
    with pytest.raises(TrustError, match="signing targets lacks 1 of 1 keys"):
        run(on_step=lambda *step: began.append(str(step)))
    assert began == []


@pytest.mark.slow
def test_full_disk_is_one_line_and_leaves_nothing(tmp_path: Path) -> None:
    # A file-size limit makes the kernel itself refuse the write, as a full disk does.
    import resource
    import signal

    report = convert("toy_models:small", calibration={"x": IMAGES}, profile="raspberry-pi-5", format="onnx",
                     output=tmp_path / "out")  # fmt: skip
    before = sorted(path for path in report.output.rglob("*") if path.is_file())
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    try:
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, limits[1]))
        layout = Layout.open(report.output)
        with pytest.raises(StorageError) as caught, layout.undone_on_error():
            layout.put(b"small", "application/octet-stream")
            layout.put(b"x" * 5000, "application/octet-stream")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(caught.value)
    assert sorted(path for path in report.output.rglob("*") if path.is_file()) == before


@pytest.mark.slow
def test_release_that_takes_the_name_of_another_says_so(tmp_path: Path) -> None:
    def made(scale: float) -> Any:
        rows = scale * np.random.default_rng(1).standard_normal((16, 32)).astype(np.float32)
        return convert(
            "toy_models:mlp",
            calibration={"x": rows},
            profile="raspberry-pi-5",
            format="onnx",
            precision="int8",
            effort="quick",
            output=tmp_path / "out",
        )

    first, other = made(1.0), made(2.0)
    assert not any("named a release" in line for line in first.warnings)
    assert (
        f"'mlp:1.0.0' named a release already ({first.release_digest}); now it names this one"
        in other.warnings
    )
