"""From float graphs to one model for every setting: the quantisation is decided once, then the precision of each.

The decision comes from the ladder or, without calibration data, from batch norm. A setting takes static INT8, or
what is nearer or faster where that loses (`precision_choice`).
"""

from __future__ import annotations

import platform
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Literal

from numpy.typing import NDArray

from edgewright.artifact.manifest import ModelFormat, Precision
from edgewright.runtime.quantised_io import raw_input
from edgewright_converters import data_free
from edgewright_converters.accuracy_gate import GateLimits
from edgewright_converters.alternatives import alternatives
from edgewright_converters.ascent import Fit
from edgewright_converters.calibration import SampleSet
from edgewright_converters.comparison import classification_output
from edgewright_converters.conversion_data import ConversionData
from edgewright_converters.export import ExportedGraph
from edgewright_converters.fine_tuning.rung import FineTune, Tuner
from edgewright_converters.fine_tuning.training import TrainingLimits
from edgewright_converters.graphs import FloatGraphs
from edgewright_converters.held_out import Part
from edgewright_converters.ladder import Climb, climb
from edgewright_converters.layer_cost import layer_costs
from edgewright_converters.operators import executed_operators, int8_mac_share
from edgewright_converters.precision_choice import LEAST_SPEED, Choice, choose
from edgewright_converters.quantise import QuantisedModel, quantise_as
from edgewright_converters.quantise.decision import (
    Decision,
    TfliteTarget,
    as_onnx,
    as_tflite,
    own_ranges,
    with_own_ranges,
)
from edgewright_converters.quantise.tflite_static import quantise_tflite
from edgewright_converters.rungs import CALIBRATION_SAMPLES, FINE_TUNING, TRAINING_SECONDS, Effort
from edgewright_converters.steps import Steps
from edgewright_converters.targets import Setting
from edgewright_converters.trial import Goal, Trial, Tryout
from edgewright_profiles import HardwareProfile, load_delegate

Settings = Mapping[tuple[str, ModelFormat], Setting]
"""By the profile's name and the format."""


@dataclass(frozen=True)
class Models:
    """What was chosen for each setting, and the climb that led there."""

    choices: Mapping[Setting, Choice]
    climbing: Climb | None
    """None: no static INT8 was asked for, or the model has no ONNX form to decide on."""

    @property
    def trained(self) -> bool:
        """Whether static INT8 has been fine-tuned."""
        return self.climbing is not None and self.climbing.decision.trained

    @property
    def warnings(self) -> tuple[str, ...]:
        """What the user should know of the choice."""
        found: tuple[str, ...] = ()
        climbing = self.climbing
        static = any(choice.model.precision == "int8" for choice in self.choices.values())
        if static and climbing is not None and climbing.costs is not None and climbing.decision.in_float:
            left, how = len(climbing.decision.in_float), climbing.costs.how
            layers = "1 layer is" if left == 1 else f"{left} layers are"
            goal = "as few as meet the goal" if climbing.met else "which does not meet the goal either"
            found = (f"{layers} left in float, {goal}, chosen by their time ({how})",)
        found += climbing.notes if climbing is not None else ()
        return found + tuple(f"{s.format}: {c.reason}" for s, c in self.choices.items() if c.reason)


def make_models(
    data: ConversionData,
    graphs: FloatGraphs,
    profiles: Sequence[HardwareProfile],
    chosen: Settings,
    limits: GateLimits,
    effort: Effort,
    precision: Precision | Literal["auto"],
    steps: Steps,
    fine_tune: FineTune = "auto",
) -> Models:
    """Decide, and quantise for every setting in `chosen`. Raises the error family."""
    split = data.parts
    judging = [part.judged for part in split] or [data.samples]
    tryout = Tryout.on(data.model.run, judging, "calibration" if data.unseen is None else "generated")
    goal = Goal(limits.max_drop, limits.min_sqnr_db)
    climbing = None
    if data.unseen is not None and precision in ("auto", "int8"):
        attempt = partial(_tried, tryout, graphs, min(chosen.values()))
        climbing = data_free.decide(
            graphs.graph, data.model, data.unseen, attempt, lambda r: steps.next(r.name, r.what)
        )
        goal = data_free.GOAL
    elif precision in ("auto", "int8"):
        tuner = _tuner(data, graphs, sorted(set(chosen.values())), effort, fine_tune, steps)
        climbing = _climbed(tryout, graphs, data.samples, split, profiles, chosen, goal, effort, steps, tuner)
    steps.next("quantise", "quantising")
    choices = {
        setting: _chosen(
            setting,
            [p for p in profiles if chosen.get((p.name, setting.format)) == setting],
            tryout,
            graphs,
            climbing,
            data.samples,
            goal,
            precision,
        )
        for setting in sorted(set(chosen.values()))
    }
    return Models(choices, climbing)


def _climbed(
    tryout: Tryout,
    graphs: FloatGraphs,
    samples: SampleSet,
    split: Sequence[Part],
    profiles: Sequence[HardwareProfile],
    settings: Settings,
    goal: Goal,
    effort: Effort,
    steps: Steps,
    tuner: Tuner | None,
) -> Climb | None:
    """The decision that the ladder comes to; None for a model that has no ONNX form to decide on."""
    graph = graphs.graph
    if graph is None:
        return None
    first = min(settings.values())
    alike = [p for p in profiles if settings.get((p.name, first.format)) == first]

    def fit(part: SampleSet) -> Fit:
        return Fit(
            lambda wanted: (graph.feed(sample.inputs) for sample in part.spread(wanted)),
            min(part.count, CALIBRATION_SAMPLES[effort]),
        )

    return climb(
        graph,
        fit(samples),
        [fit(part.fitted) for part in split],
        partial(_tried, tryout, graphs, first),
        goal,
        effort,
        samples.where,
        lambda rung: steps.next(rung.name, f"{rung.name}: {rung.what}"),
        lambda decision: layer_costs(
            decision.graph, _quantise(decision, graphs.tflite, first), alike, samples.head(1)[0].inputs
        ),
        symmetric=all(setting.symmetric for setting in settings.values()),
        tuner=tuner,
        fast_enough=LEAST_SPEED[_like_this_host(alike)] if _runs_here(alike, first) else 0.0,
    )


def _tuner(
    data: ConversionData,
    graphs: FloatGraphs,
    wanted: Sequence[Setting],
    effort: Effort,
    fine_tune: FineTune,
    steps: Steps,
) -> Tuner | None:
    """What the ladder's last rung trains with; None where there is nothing to train, or on."""
    if data.training is None or graphs.graph is None or fine_tune == "never":
        return None

    def show(done: int, of: int, loss: float, left: float) -> None:
        steps.during(f"{FINE_TUNING.name}: step {done} of {of}, loss {loss:.3g}", left)

    def refreshed(decision: Decision) -> Decision:
        if graphs.tflite is None:
            return decision
        return with_own_ranges(decision, graphs.tflite, (sample.inputs for sample in data.samples))

    return Tuner(
        graphs.graph,
        data.training,
        data.model.run,
        lambda decision: [_quantise(decision, graphs.tflite, setting) for setting in wanted],
        classification_output(data.outputs),
        TrainingLimits(seconds=TRAINING_SECONDS[effort]),
        refreshed,
        fine_tune == "always",
        show,
    )


def _tried(tryout: Tryout, graphs: FloatGraphs, setting: Setting, decisions: Sequence[Decision]) -> Trial:
    candidates = [_quantise(decision, graphs.tflite, setting) for decision in decisions]
    return tryout.run(candidates, graphs.exported[setting.format])


def _chosen(
    setting: Setting,
    profiles: Sequence[HardwareProfile],
    tryout: Tryout,
    graphs: FloatGraphs,
    climbing: Climb | None,
    samples: SampleSet,
    goal: Goal,
    precision: Precision | Literal["auto"],
) -> Choice:
    """The model of a setting: static INT8 or, where that loses, what the alternatives come to."""
    exported = graphs.exported[setting.format]
    if precision != "auto" and precision != "int8":
        return Choice(quantise_as(exported, precision), None, ())
    if climbing is None:
        ranges = own_ranges(exported, (sample.inputs for sample in samples))
        static = quantise_tflite(exported, ranges)
    else:
        whole = replace(climbing.decision, layers_only=False)
        static = _quantise(whole, graphs.tflite, setting)
    if precision == "int8":
        return Choice(static, None, ())
    budgets = [p.budgets.artifact_bytes for p in profiles if p.budgets.artifact_bytes is not None]
    others = {other.precision: None for p in profiles for other in alternatives(exported, p)}
    variants = {}
    if climbing is not None:
        layers_only = replace(climbing.decision, layers_only=True)
        variants["INT8 in convolutions and matrix products alone"] = partial(
            _quantise, layers_only, graphs.tflite, setting
        )
    return choose(
        static,
        variants,
        exported,
        tuple(others),
        lambda candidate: tryout.run([candidate], exported),
        goal,
        same_architecture=_like_this_host(profiles),
        here=_runs_here(profiles, setting),
        budget_bytes=min(budgets, default=None),
        integer_share=_integer_share(static, exported, samples.head(1)[0].inputs),
    )


def _like_this_host(profiles: Sequence[HardwareProfile]) -> bool:
    return all(profile.soc.isa == platform.machine() for profile in profiles)


def _runs_here(profiles: Sequence[HardwareProfile], setting: Setting) -> bool:
    """Whether this host's processor executes what the profiles' would; an accelerator is not here.

    Nor are, on x86, ONNX Runtime's integer kernels for signed activations: a residual CNN has 0.14 times float's
    speed here, and takes a third of float's instructions on a Cortex-A76 (`benchmarks/arm_activations`).
    """
    if setting.format == "onnx" and setting.activation == "int8" and not _like_this_host(profiles):
        return False
    return all(
        profile.accelerator_for(setting.format) is None and not _demanded(profile, setting.format)
        for profile in profiles
    )


def _demanded(profile: HardwareProfile, model_format: ModelFormat) -> bool:
    """Whether the profile asks for a share of the model on an accelerator, whatever its runtime computes on."""
    asked = (a.delegate for a in profile.accelerators if a.delegate and a.delegate.least_mac_share)
    return any(load_delegate(delegate.name).format == model_format for delegate in asked)


def _integer_share(
    model: QuantisedModel, graph: ExportedGraph, sample: Mapping[str, NDArray[Any]]
) -> float | None:
    """What the runtime really computes in integers, as a part of all multiply-accumulates."""
    raw = {spec.name: raw_input(sample[spec.name], spec) for spec in model.inputs}
    return int8_mac_share(executed_operators(model, graph, raw))


def _quantise(decision: Decision, tflite: TfliteTarget | None, setting: Setting) -> QuantisedModel:
    if setting.format == "onnx":
        return as_onnx(decision, setting.activation, symmetric=setting.symmetric)
    assert tflite is not None
    return as_tflite(decision, tflite)
