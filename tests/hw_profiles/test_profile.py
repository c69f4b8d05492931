"""The schema of a profile: what it refuses, that it round-trips, that its JSON Schema is up to date."""

from __future__ import annotations

import json
from importlib import resources
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from edgewright_profiles import HardwareProfile, ProfileError, json_schema, load_profile, profile_names
from edgewright_profiles.catalog import parse_profile
from edgewright_profiles.profile import (
    Accelerator,
    Budgets,
    CoreCluster,
    Delegation,
    FactGroup,
    Memory,
    NoPowerSensor,
    NumericFormats,
    PowerSensor,
    Precision,
    RuntimeSettings,
    Soc,
    Source,
)

TEXT = st.text(min_size=1, max_size=8)
COUNT = st.integers(1, 2**62)
POSITIVE = st.floats(min_value=1e-300, max_value=1e300)
# A loaded machine is slow, not wrong.
UNHURRIED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
IDS = st.lists(st.sampled_from("abcdef"), min_size=1, max_size=3).map(tuple)


def groups(kind: type[FactGroup], **fields: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.builds(kind, source=IDS, **fields)


def several(strategy: st.SearchStrategy[Any], at_least: int = 0) -> st.SearchStrategy[tuple[Any, ...]]:
    return st.lists(strategy, min_size=at_least, max_size=3).map(tuple)


@st.composite
def profiles(draw: st.DrawFn) -> HardwareProfile:
    sensors = draw(several(groups(PowerSensor, covers=TEXT)))
    facts: dict[str, Any] = {
        "soc": draw(groups(Soc, vendor=TEXT, name=TEXT, features=several(TEXT))),
        "cores": draw(
            several(
                groups(
                    CoreCluster,
                    name=TEXT,
                    count=COUNT,
                    max_clock_hz=POSITIVE,
                    int8_macs_per_cycle=POSITIVE,
                    float16_macs_per_cycle=POSITIVE,
                    float32_macs_per_cycle=POSITIVE,
                ),
                at_least=1,
            )
        ),
        "memory": draw(groups(Memory, bytes=COUNT, bandwidth_bytes_per_s=POSITIVE)),
        "accelerators": draw(
            several(
                groups(
                    Accelerator,
                    name=TEXT,
                    numeric_formats=several(TEXT),
                    delegate=st.none()
                    | st.builds(Delegation, least_mac_share=st.none() | st.floats(1e-9, 1.0)),
                    int8_macs_per_s=st.none() | POSITIVE,
                    float16_macs_per_s=st.none() | POSITIVE,
                    float32_macs_per_s=st.none() | POSITIVE,
                )
            )
        ),
        "runtimes": draw(several(groups(RuntimeSettings, provider=TEXT, threads=COUNT), at_least=1)),
        "numeric_formats": draw(
            groups(NumericFormats, fast=several(st.sampled_from(["int8", "float16", "float32"]), at_least=1))
        ),
        "power_sensors": sensors,
        "no_power_sensor": None if sensors else draw(groups(NoPowerSensor, note=TEXT)),
        "budgets": draw(
            groups(
                Budgets,
                artifact_bytes=st.none() | COUNT,
                peak_memory_bytes=st.none() | COUNT,
                latency_p99_s=st.none() | POSITIVE,
                power_w=st.none() | POSITIVE,
            )
        ),
    }
    flat = [item for value in facts.values() for item in (value if isinstance(value, tuple) else (value,))]
    used = sorted({name for group in flat if group is not None for name in group.source})
    source = st.builds(
        Source, title=TEXT, document=TEXT, consulted=st.none() | st.dates(), note=st.none() | TEXT
    )
    return HardwareProfile(
        schema_version=1,
        name=draw(st.from_regex(r"[a-z0-9][a-z0-9-]{0,8}", fullmatch=True)),
        title=draw(TEXT),
        sources={name: draw(source) for name in used},
        **facts,
    )


@UNHURRIED
@given(profiles())
def test_profile_survives_the_way_to_a_dict_and_back(profile: HardwareProfile) -> None:
    assert HardwareProfile.model_validate(profile.model_dump()) == profile


@UNHURRIED
@given(profiles())
def test_profile_survives_the_way_to_json_and_back(profile: HardwareProfile) -> None:
    assert HardwareProfile.model_validate_json(profile.model_dump_json(exclude_none=True)) == profile


def document(name: str = "raspberry-pi-5") -> dict[str, Any]:
    """A built-in profile as TOML would give it, to be spoilt by a test."""
    return load_profile(name).model_dump(exclude_none=True)


def problem_of(spoilt: dict[str, Any]) -> str:
    with pytest.raises(ValueError) as caught:
        HardwareProfile.model_validate(spoilt)
    return str(caught.value)


@pytest.mark.parametrize("key", sorted(load_profile("raspberry-pi-5").fact_groups()))
@pytest.mark.parametrize("fault", ["missing", "empty", "unknown"])
def test_fact_group_without_a_source_that_exists_is_refused(key: str, fault: str) -> None:
    spoilt = document()
    group: Any = spoilt
    for part in key.split("."):
        group = list(group)[int(part)] if part.isdigit() else group[part]
    if fault == "missing":
        del group["source"]
    else:
        group["source"] = () if fault == "empty" else ("hearsay",)
    said = f"{key}: source 'hearsay' is not in [sources]" if fault == "unknown" else f"{key}.source"
    assert said in problem_of(spoilt)


def test_every_field_of_a_profile_that_states_facts_is_a_group_with_sources() -> None:
    keys = {key.partition(".")[0] for name in profile_names() for key in load_profile(name).fact_groups()}
    assert keys == set(HardwareProfile.model_fields) - {"schema_version", "name", "title", "sources"}


def test_source_that_backs_no_fact_is_refused() -> None:
    spoilt = document()
    spoilt["sources"]["spare"] = {"title": "t", "document": "d"}
    assert "sources.spare: backs no fact" in problem_of(spoilt)


def test_profile_without_power_sensors_must_say_why() -> None:
    spoilt = document("raspberry-pi-4")
    del spoilt["no_power_sensor"]
    del spoilt["sources"]["vcgencmd"], spoilt["sources"]["pi4-power"]
    assert "no_power_sensor" in problem_of(spoilt)


@pytest.mark.parametrize(("key", "value"), [("idle_w", None), ("loaded_w", None), ("loaded_w", 1.0)])
def test_power_to_estimate_with_is_a_pair(key: str, value: float | None) -> None:
    spoilt = document("raspberry-pi-4")
    del spoilt["no_power_sensor"][key]
    if value is not None:
        spoilt["no_power_sensor"][key] = value
    assert "give both idle_w and loaded_w" in problem_of(spoilt)


@pytest.mark.parametrize(
    ("group", "key", "value"),
    [
        ("memory", "bytes", "8"),
        ("memory", "bytes", 8.0),
        ("memory", "bytes", True),
        ("memory", "bytes", 0),
        ("memory", "bandwidth_bytes_per_s", float("nan")),
        ("memory", "colour", "red"),
        ("soc", "isa", "riscv64"),
        ("soc", "features", "fp asimd"),
    ],
)
def test_value_of_another_type_or_range_and_unknown_key_are_refused(
    group: str, key: str, value: object
) -> None:
    spoilt = document()
    spoilt[group][key] = value
    assert f"{group}.{key}" in problem_of(spoilt)


def test_another_schema_version_is_refused() -> None:
    assert "schema" in problem_of({**document(), "schema": 2})


def test_profile_cannot_be_changed() -> None:
    with pytest.raises(ValueError, match="frozen"):
        load_profile("raspberry-pi-5").name = "other"  # type: ignore[misc]


def test_runtime_of_a_format_is_the_first_that_lists_it() -> None:
    runtime = load_profile("android-flagship").runtime_for("onnx")
    assert (runtime.name, runtime.activation_dtype) == ("onnxruntime", "uint8")


def test_format_that_the_device_does_not_run_is_refused_with_those_that_it_does() -> None:
    spoilt = document()
    spoilt["runtimes"] = [runtime for runtime in spoilt["runtimes"] if runtime["format"] == "tflite"]
    with pytest.raises(ProfileError, match="raspberry-pi-5 runs no onnx model; it runs tflite"):
        HardwareProfile.model_validate(spoilt).runtime_for("onnx")


def test_checked_in_json_schema_is_up_to_date() -> None:
    file = resources.files("edgewright_profiles") / "schema" / "hardware-profile.schema.json"
    assert file.read_text(encoding="utf-8") == json.dumps(json_schema(), indent=2, sort_keys=True) + "\n"


@pytest.mark.parametrize("name", profile_names())
def test_built_in_profile_is_consistent(name: str) -> None:
    profile = load_profile(name)
    assert profile.name == name
    for runtime in profile.runtimes:
        assert runtime.threads <= sum(cluster.count for cluster in profile.cores)
        assert (runtime.name == "litert") == (runtime.format == "tflite")
    # Fastest first is what `peak_macs_per_s` builds on.
    speeds = [cluster.max_clock_hz * cluster.int8_macs_per_cycle for cluster in profile.cores]
    assert speeds == sorted(speeds, reverse=True)
    others: tuple[Precision, ...] = ("int8", "float16")
    for precision in others:
        faster = profile.peak_macs_per_s(precision, 1) > profile.peak_macs_per_s("float32", 1)
        assert (precision in profile.numeric_formats.fast) == faster
    computing = {profile.accelerator_for(model_format) for model_format in profile.formats}
    assert {a for a in profile.accelerators if a.used} == computing - {None}


@pytest.mark.parametrize("name", profile_names())
def test_budgets_are_named_as_decisions_of_ours(name: str) -> None:
    profile = load_profile(name)
    assert any("Decision of this project" in profile.sources[s].title for s in profile.budgets.source)


def test_threads_beyond_the_cores_add_nothing_to_the_peak() -> None:
    profile = load_profile("android-flagship")
    everything = profile.peak_macs_per_s("int8", 8)
    assert everything == pytest.approx(128 * 3.3e9 + 64 * (3 * 3.2e9 + 2 * 3.0e9) + 2 * 32 * 2.3e9)
    assert profile.peak_macs_per_s("int8", 100) == everything


def test_parser_names_the_file_and_the_key() -> None:
    with pytest.raises(ProfileError, match=r"^mine\.toml: soc: Field required$|^mine\.toml: schema: Field"):
        parse_profile("title = 'x'", "mine.toml")
