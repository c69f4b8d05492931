"""The specification: whatever is in the file, the answer is a specification or one line."""

from __future__ import annotations

import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.contract import from_json, schema_text, to_json
from edgewright.errors import ConfigError, RolloutError
from edgewright_fleet.rollout.spec import Gates, RolloutSpec, load_spec, plan_waves
from edgewright_fleet.schemas import FOLDER, SCHEMAS

GOOD = {"name": "night-1", "fleet": "kiosks", "release": "net:1.1.0", "registry": "registry"}
keys = st.sampled_from([*RolloutSpec.model_fields, "schema", "wave", "gate"])
scalars = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=8),
    st.dates(),
    st.binary(max_size=4),
)
values = st.recursive(
    scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(keys, inner, max_size=3)
)


def load(text: str | bytes) -> RolloutSpec:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "spec.yaml"
        path.write_bytes(text if isinstance(text, bytes) else text.encode("utf-8", "surrogatepass"))
        return load_spec(path)


def refused(**changes: object) -> str:
    with pytest.raises(ConfigError) as caught:
        load(yaml.safe_dump(GOOD | changes))
    assert "\n" not in str(caught.value)
    return str(caught.value)


@settings(deadline=None)
@given(st.one_of(st.text(), st.binary(), values.map(yaml.safe_dump)))
def test_arbitrary_file_is_refused_in_one_line(text: str | bytes) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "\n" not in str(caught.value)


@settings(deadline=None)
@given(st.dictionaries(keys, values))
def test_arbitrary_values_give_a_specification_or_one_line(changes: dict[str, object]) -> None:
    try:
        load(yaml.safe_dump(GOOD | changes))
    except ConfigError as error:
        assert "\n" not in str(error)


@pytest.mark.parametrize(
    "text",
    [
        '!!int ""',
        "!!timestamp x",
        "!!bool x",
        "!!float x",
        "!!python/name:os.system",
        "&a [*a]",
        "{name: &b {fleet: *b}}",
        "[" * 5000,
        "2021-13-45",
        "? {}\n: 1",
        "- - : : :\n\t",
        "registry: \"\\0\"\nname: a\nfleet: f\nrelease: 'a:1'",
    ],
)
def test_hostile_yaml_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(ConfigError) as caught:
        load(text)
    assert "\n" not in str(caught.value)


def test_defaults_are_careful() -> None:
    spec = load(yaml.safe_dump(GOOD))
    assert spec.waves == (1, "10%", "rest")
    assert (spec.on_failure, spec.devices) == ("revert", "all")
    assert [spec.room(n) for n in (1, 5, 10, 19, 1000)] == [1, 1, 1, 1, 100]


def test_relative_registry_is_relative_to_the_file(tmp_path: Path) -> None:
    (tmp_path / "spec.yaml").write_text(yaml.safe_dump(GOOD))
    assert load_spec(tmp_path / "spec.yaml").registry == (tmp_path / "registry").resolve()


def test_missing_file_and_folder_are_named(tmp_path: Path) -> None:
    for path in (tmp_path / "none.yaml", tmp_path):
        with pytest.raises(ConfigError, match=str(path)):
            load_spec(path)


def test_mistakes_are_named() -> None:
    assert "max_unavailible: no such key" in refused(max_unavailible=0.5)
    assert "gates.max_p50_ration: no such key" in refused(gates={"max_p50_ration": 2})
    assert "max_unavailable" in refused(max_unavailable=1.0)
    assert "only the last, must be 'rest'" in refused(waves=[1, 5])
    assert "only the last, must be 'rest'" in refused(waves=["rest", "rest"])
    assert "waves" in refused(waves=[True, "rest"])
    assert "waves" in refused(waves=["0%", "rest"])
    assert "release" in refused(release="net")
    assert "timeout_s must be greater than window_s" in refused(gates={"window_s": 60, "timeout_s": 60})
    assert "max_p99_ratio" in refused(gates={"max_p99_ratio": float("nan")})
    assert "max_p99_ratio" in refused(gates={"max_p99_ratio": float("inf")})
    assert "devices" in refused(devices=[])


@given(
    st.dictionaries(st.from_regex(r"[a-z][0-9]{1,3}", fullmatch=True), st.sampled_from("pqr"), min_size=1),
    st.sampled_from([("rest",), (1, "rest"), (1, "10%", "rest"), ("50%", "100%"), (3, 3, 3, "rest")]),
    st.data(),
)
def test_waves_hold_every_device_once_and_those_offline_last(
    devices: dict[str, str], waves: tuple[int | str, ...], data: st.DataObject
) -> None:
    spec = RolloutSpec.model_validate(GOOD | {"waves": waves})
    offline = data.draw(st.sets(st.sampled_from(sorted(devices))))
    planned = plan_waves(spec, list(devices.items()), offline)
    order = [device for wave in planned for device in wave]
    assert sorted(order) == sorted(devices)
    assert all(planned)
    assert [d in offline for d in order] == sorted(d in offline for d in order)


def test_early_wave_holds_every_profile() -> None:
    spec = RolloutSpec.model_validate(GOOD | {"waves": (2, "rest")})
    planned = plan_waves(spec, [("a1", "pi"), ("a2", "pi"), ("a3", "pi"), ("z1", "jetson")])
    assert set(planned[0]) == {"a1", "z1"}


def test_selection_by_name_and_profile() -> None:
    devices = [("a", "pi"), ("b", "pi"), ("c", "jetson")]
    by_name = RolloutSpec.model_validate(GOOD | {"devices": ["b", "c"], "waves": ["rest"]})
    assert plan_waves(by_name, devices) == (("b", "c"),)
    by_profile = RolloutSpec.model_validate(GOOD | {"profile": "pi", "waves": ["rest"]})
    assert plan_waves(by_profile, devices) == (("a", "b"),)
    with pytest.raises(RolloutError, match="'x' is not known"):
        plan_waves(RolloutSpec.model_validate(GOOD | {"devices": ["x"]}), devices)
    with pytest.raises(RolloutError, match="no device"):
        plan_waves(RolloutSpec.model_validate(GOOD | {"profile": "none"}), devices)


@given(
    st.builds(Gates, max_p50_ratio=st.floats(0.1, 9), window_s=st.floats(0, 10), timeout_s=st.floats(11, 99))
)
def test_specification_survives_json(gates: Gates) -> None:
    spec = RolloutSpec.model_validate(GOOD | {"gates": gates})
    assert from_json(RolloutSpec, to_json(spec), where="") == spec


@pytest.mark.parametrize("name", SCHEMAS)
def test_schema_file_is_up_to_date(name: str) -> None:
    text = (FOLDER / f"{name}.schema.json").read_text(encoding="utf-8")
    assert text == schema_text(SCHEMAS[name]), "run python -m edgewright_fleet.schemas"


def test_example_in_the_readme_is_a_specification() -> None:
    readme = Path(__file__).parents[2] / "fleet" / "README.md"
    example = readme.read_text().split("```yaml\n")[1].split("```")[0]
    assert load(example).release
