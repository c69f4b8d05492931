"""`convert`: the whole conversion, `export → optimise → decide → quantise → verify → gate → package`.

Work is shared where profiles share it: the quantisation is decided once, and a file is made once for every
distinct setting, however many profiles ask for it.
"""

from __future__ import annotations

import contextlib
import math
import re
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Literal

import torch
from pydantic import TypeAdapter, ValidationError

from edgewright.artifact.layout import Layout
from edgewright.artifact.manifest import ArtifactManifest, DataKind, ModelFormat, Name, Precision, Verdict
from edgewright.durable_file import check_writable
from edgewright.errors import ConversionError, DataError
from edgewright_converters.accuracy_gate import GateLimits
from edgewright_converters.ascent import Attempt
from edgewright_converters.batches import Data
from edgewright_converters.comparison import classification_output
from edgewright_converters.conversion_data import read_data
from edgewright_converters.evidence import Evidence, gather
from edgewright_converters.fine_tuning.rung import FineTune
from edgewright_converters.gate import gate, integer_share, worst
from edgewright_converters.graphs import float_graphs, with_own_ranges
from edgewright_converters.large_blocks import reuse_large_blocks
from edgewright_converters.models import make_models
from edgewright_converters.package import Packable, check_output, package
from edgewright_converters.prediction import predicted_latencies, work_of
from edgewright_converters.rungs import DATA_FREE, Effort, climbed
from edgewright_converters.source import load_source
from edgewright_converters.steps import VERIFY_S, VERIFY_SAMPLE_S, OnStep, Steps
from edgewright_converters.targets import Setting, formats, settings
from edgewright_converters.verify import VerifiedModel, verify
from edgewright_profiles import HardwareProfile, load_profile
from edgewright_profiles.cost import OperatorWork

if TYPE_CHECKING:
    from edgewright.trust.repository import Signing


@dataclass(frozen=True)
class ConversionReport:
    """What a conversion made; each manifest holds the figures of its artifact and the gate's report on it."""

    name: str
    version: str
    output: Path | None
    """None, as the digest: the gate failed, and nothing was written."""
    release_digest: str | None
    artifacts: tuple[ArtifactManifest, ...]
    seconds: float
    warnings: tuple[str, ...] = ()
    attempts: tuple[Attempt, ...] = ()
    """The rungs that were climbed, in order, and what each bought."""
    evidence: Evidence | None = None
    """Every activation and its error; gathered only where a report was asked for."""

    @property
    def verdict(self) -> Verdict:
        """The worst of the artifacts' verdicts."""
        return worst([manifest.gate.verdict for manifest in self.artifacts if manifest.gate])

    @property
    def reference(self) -> str | None:
        """What `edgewright.load` and the rollout take; None where nothing was written."""
        return f"oci:{self.output}:{self.name}:{self.version}" if self.output else None


def convert(
    source: str | Path | torch.nn.Module,
    *,
    calibration: Data | None = None,
    profile: str | Path | Sequence[str | Path],
    output: str | Path,
    weights: str | Path | None = None,
    evaluation: Data | None = None,
    training_data: Data | None = None,
    fine_tune: FineTune = "auto",
    input_shapes: Mapping[str, Sequence[int]] | None = None,
    input_range: tuple[float, float] | None = None,
    format: ModelFormat | Sequence[ModelFormat] | None = None,  # noqa: A002 - the word of the command
    name: str | None = None,
    version: str = "1.0.0",
    max_drop: float = 1.0,
    min_sqnr: float | None = None,
    effort: Effort = "standard",
    precision: Precision | Literal["auto"] = "auto",
    keep_failed: bool = False,
    sign: str | Path | Sequence[str | Path] = (),
    passphrase_file: str | Path | None = None,
    report: str | Path | None = None,
    on_step: OnStep | None = None,
) -> ConversionReport:
    """Convert a model to INT8 artifacts, one per profile and format, verified as their runtime executes them.

    `source` is an `nn.Module`, `module:function`, a `.pt2`, a TorchScript `.pt` or an `.onnx` file; `weights` a
    state dict for a model that code builds. Data is a path, `module:function`, arrays by input name (`x` where
    there is one input, `y` the labels), a loader or a function that yields batches. Without `evaluation` the
    figures are from the calibration data, and say so.

    Without `calibration` static INT8 follows from batch-norm statistics (see `data_free`), and accuracy is not
    measured unless there is `evaluation`; `input_shapes` by input name are then needed for an `nn.Module`, and
    `input_range`, the least and greatest value of its float inputs, helps.

    `training_data` is what INT8 is fine-tuned on where the ladder of repairs misses its goal: by `fine_tune`
    "auto", or "always" or "never". The float model teaches; labels, where there are some, do too. It must not
    hold evaluation samples.

    The report's `verdict` is the gate's: accuracy may drop by `max_drop` points, each output's SQNR must reach
    `min_sqnr` decibels where given, and the profile's budgets hold. `effort` bounds how far the ladder of repairs
    is climbed for it. `precision` is INT8 unless that turns out slower than float or too far from it. After a
    `fail` nothing is written unless `keep_failed`. What is written is signed where `sign` names key files, or
    folders of them, that 'edgewright trust init' made for `output`. `report` is where an HTML page with the
    pictures goes, whatever the verdict. Raises `EdgewrightError` of the kind that fits, with nothing written.
    """
    limits = GateLimits(max_drop, min_sqnr)
    if not (0 <= max_drop <= 100 and (min_sqnr is None or math.isfinite(min_sqnr))):
        raise ConversionError(
            f"max_drop is {max_drop:g} points and min_sqnr {min_sqnr} dB",
            remedy="give a drop from 0 to 100, and a finite number of decibels",
        )
    taught = _fine_tunes(fine_tune, training_data, calibration, precision)
    for word, text in (("version", version), *([("name", name)] if name else [])):
        _check_word(word, text)
    check_output(Path(output))
    for written in (
        Path(tempfile.gettempdir()) / "edgewright",
        *([Path(report)] if report is not None else []),
    ):
        check_writable(written)
    signing = _signing(Path(output), sign, passphrase_file)
    reuse_large_blocks()
    started = time.perf_counter()
    profiles = [load_profile(p) for p in ([profile] if isinstance(profile, str | Path) else profile)]
    model = load_source(source, weights)
    wanted = formats(model, profiles, format)
    name = name or re.sub(r"[^A-Za-z0-9._-]+", "-", model.name)[:128].strip("-._") or "model"
    chosen = settings(profiles, wanted)
    ladder = climbed(effort, training=taught) if calibration is not None else DATA_FREE
    look = () if report is None else ("look",)
    steps = Steps(
        on_step, ("read", "export", *(rung.name for rung in ladder), "quantise", "verify", *look, "package")
    )

    steps.next("read", "reading the data")
    data = read_data(
        model, calibration, evaluation, input_shapes, input_range, training_data if taught else None
    )
    model, judged = data.model, data.judged
    steps.expect("verify", VERIFY_S + VERIFY_SAMPLE_S * judged.count)

    steps.next("export", f"exporting to {' and '.join(wanted)}")
    with _about(model.label):
        graphs = with_own_ranges(float_graphs(model, data.examples, data.outputs, wanted), data.samples)
        models = make_models(data, graphs, profiles, chosen, limits, effort, precision, steps, fine_tune)

    quantised = {setting: choice.model for setting, choice in models.choices.items()}
    steps.next("verify", f"verifying against float on {judged.count} samples")
    pairs = [(one, graphs.exported[one.format]) for one in quantised.values()]
    verified = dict(zip(quantised, verify(pairs, judged, model.run, data.kind), strict=True))

    evidence = None
    if report is not None:
        steps.next("look", "looking at every layer for the report")
        decided_on: DataKind = "calibration" if data.unseen is None else "generated"
        choices = list(models.choices.values())
        evidence = gather(models.climbing, graphs, choices, data.samples, decided_on)
    steps.next("package", "packaging")
    work = work_of(graphs.exported["onnx"]) if "onnx" in graphs.exported else None
    elapsed = time.perf_counter() - started
    packables = _judged(profiles, chosen, verified, work, limits, elapsed)
    verdict = worst([packable.gate.verdict for packable in packables])
    kept = Path(output) if verdict != "fail" or keep_failed else None
    before = _named(kept, f"{name}:{version}")
    release, manifests = package(
        packables,
        output=kept,
        name=name,
        release_version=version,
        source=model.label,
        calibration=data.samples if data.unseen is None else None,
        training=data.training.samples if data.training is not None and models.trained else None,
        described=data.samples if data.unseen is None else judged,
        classification=classification_output(data.outputs),
    )
    if signing is not None and release is not None:
        signing.sign(f"{name}:{version}")
    elapsed = time.perf_counter() - started
    digest = release.digest if release else None
    attempts = models.climbing.attempts if models.climbing else ()
    warnings = data.warnings + models.warnings
    if before not in (None, digest):
        warnings += (f"'{name}:{version}' named a release already ({before}); now it names this one",)
    result = ConversionReport(
        name, version, kept, digest, tuple(manifests), elapsed, warnings, attempts, evidence
    )
    if report is not None:
        from edgewright_converters.report import write_page

        write_page(result, Path(report))
    return result


def _named(registry: Path | None, reference: str) -> str | None:
    """The digest of the release that has a name already."""
    if registry is None or not (registry / "index.json").exists():
        return None
    found = Layout.open(registry).names().get(reference)
    return found.digest if found else None


def _check_word(word: str, text: str) -> None:
    try:
        TypeAdapter(Name).validate_python(text)
    except ValidationError:
        remedy = "use up to 128 of A to Z, a to z, 0 to 9, dot, dash and underscore, the first no sign"
        raise ConversionError(f"'{text}' cannot be the {word} of a release", remedy=remedy) from None


@contextlib.contextmanager
def _about(where: str) -> Iterator[None]:
    """Errors that name no place are about the model."""
    try:
        yield
    except (ConversionError, DataError) as error:
        if error.where:
            raise
        raise type(error)(error.problem, where=where, remedy=error.remedy) from error


def _signing(
    registry: Path, keys: str | Path | Sequence[str | Path], passphrase_file: str | Path | None
) -> Signing | None:
    """What signs the release, if it is to be; that its keys do is known before the conversion begins."""
    places = [keys] if isinstance(keys, str | Path) else keys
    if not places:
        return None
    from edgewright.trust.repository import Signing

    signing = Signing.open(
        registry, [Path(place) for place in places], Path(passphrase_file) if passphrase_file else None
    )
    signing.check()
    return signing


def _fine_tunes(fine_tune: FineTune, training: Data | None, calibration: Data | None, precision: str) -> bool:
    """Whether there may be fine-tuning. Raises `ConversionError` where it is asked for and cannot be."""
    static = precision in ("auto", "int8")
    if fine_tune == "always" and not static:
        raise ConversionError(
            f"fine-tuning is for static INT8 alone, not for {precision}", remedy="leave one of both out"
        )
    if fine_tune == "never" or not static or (training is None and fine_tune == "auto"):
        return False
    if training is None or calibration is None:
        lacking = "training data" if training is None else "calibration data"
        raise ConversionError(f"fine-tuning takes {lacking} too", remedy="give it, or do not fine-tune")
    return True


def _judged(
    profiles: Sequence[HardwareProfile],
    chosen: Mapping[tuple[str, ModelFormat], Setting],
    verified: Mapping[Setting, VerifiedModel],
    work: Sequence[OperatorWork] | None,
    limits: GateLimits,
    conversion_s: float,
) -> list[Packable]:
    by_name = {profile.name: profile for profile in profiles}
    packables = []
    for (name, model_format), setting in chosen.items():
        profile, one = by_name[name], verified[setting]
        share = integer_share(one, profile)
        predicted = predicted_latencies(profile, model_format, one.model.precision, work, share)
        report = gate(one, profile, limits, work=work, predicted=predicted, conversion_s=conversion_s)
        macs = None if work is None else sum(operator.macs for operator in work)
        packables.append(Packable(name, one, report, predicted, macs))
    return packables
