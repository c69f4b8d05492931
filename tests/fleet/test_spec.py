"""The specification: whatever is in the file, the answer is a specification or one line."""

from __future__ import annotations

import itertools
import tempfile
from pathlib import Path

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from edgewright.contract import from_json, schema_text, to_json
from edgewright.errors import ConfigError, RolloutError
from edgewright.twin import ReleaseReference
from edgewright_fleet.devices import DeviceView
from edgewright_fleet.rollout.limits import Gates
from edgewright_fleet.rollout.spec import Growth, RolloutSpec, load_spec
from edgewright_fleet.rollout.waves import choose, plan_waves
from edgewright_fleet.schemas import FOLDER, SCHEMAS

GOOD = {"name": "night-1", "fleet": "kiosks", "release": "net:1.1.0", "registry": "registry"}
OLD = ReleaseReference(name="net", version="1.0.0", digest="sha256:" + "0" * 64)
NEW = ReleaseReference(name="net", version="1.1.0", digest="sha256:" + "1" * 64)
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
    assert "waves" in refused(waves={"first": 1, "growth": 1})
    assert "time_zone: is no time zone" in refused(time_zone="Mars/Olympus")
    assert "from and to are the same" in refused(maintenance=[{"from": "22:00", "to": "22:00"}])
    assert "maintenance.0.from" in refused(maintenance=[{"from": "25:00", "to": "04:00"}])
    assert "maintenance.0.days" in refused(maintenance=[{"days": ["monday"], "from": "1:00", "to": "04:00"}])
    assert "devices_per_minute" in refused(devices_per_minute=0)


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


def chosen(**changes: object) -> list[str]:
    devices = {
        "a": DeviceView("a", "pi", online=True, running=OLD, labels={"site": "lab", "cluster": "berlin"}),
        "b": DeviceView("b", "pi", online=True, running=NEW, labels={"site": "lab"}),
        "c": DeviceView("c", "jetson", online=True, labels={"site": "shop"}),
        "d": DeviceView("d"),  # it left no report
    }
    return list(choose(RolloutSpec.model_validate(GOOD | changes), devices))


def test_selection_by_name_profile_label_cluster_and_current_version() -> None:
    assert chosen() == ["a", "b", "c"]
    assert chosen(devices=["b", "c"]) == ["b", "c"]
    assert chosen(except_devices=["b"]) == ["a", "c"]
    assert chosen(profile="pi") == ["a", "b"]
    assert chosen(labels={"site": "lab"}) == ["a", "b"]
    assert chosen(labels={"site": "lab", "cluster": "berlin"}) == ["a"]
    assert chosen(running=["net:1.0.0"]) == ["a"]
    for changes in ({"devices": ["x"]}, {"except_devices": ["x"]}):
        with pytest.raises(RolloutError, match="'x' is not known"):
            chosen(**changes)
    for changes in ({"profile": "none"}, {"labels": {"site": "moon"}}, {"running": ["net:9"]}):
        with pytest.raises(RolloutError, match="no device"):
            chosen(**changes)


@given(
    st.dictionaries(st.sampled_from("pqrs"), st.integers(1, 60), min_size=1),
    st.lists(st.integers(1, 40), max_size=4),
)
def test_each_wave_holds_every_profile_that_is_left_and_otherwise_their_shares(
    profiles: dict[str, int], sizes: list[int]
) -> None:
    spec = RolloutSpec.model_validate(GOOD | {"waves": [*sizes, "rest"]})
    kinds = {f"{profile}{i}": profile for profile, many in profiles.items() for i in range(many)}
    left = dict(profiles)
    for wave in plan_waves(spec, list(kinds.items())):
        total = sum(left.values())
        took = {profile: sum(kinds[name] == profile for name in wave) for profile in left}
        if len(wave) >= len([n for n in left.values() if n]):
            assert all(took[profile] for profile, n in left.items() if n)
        for profile, n in left.items():
            assert abs(took[profile] - len(wave) * n / total) <= len(left)
        left = {profile: n - took[profile] for profile, n in left.items()}
    assert not any(left.values())


@given(
    st.integers(1, 5000), st.integers(1, 50), st.floats(1.1, 10), st.one_of(st.none(), st.integers(1, 500))
)
def test_waves_grow_until_every_device_is_in_one(
    devices: int, first: int, growth: float, largest: int | None
) -> None:
    sizes = list(Growth(first=first, growth=growth, largest=largest).sizes(devices))
    assert sum(sizes) == devices
    assert sizes[0] == min(first, devices, largest or devices)
    assert sizes[:-1] == sorted(sizes[:-1])
    assert largest is None or max(sizes) <= largest
    for before, after in itertools.pairwise(sizes):
        assert after <= growth * (before + 1)


def test_doubling_waves_of_a_thousand_devices_are_ten() -> None:
    spec = load(yaml.safe_dump(GOOD | {"waves": {"first": 1, "growth": 2}}))
    waves = plan_waves(spec, [(f"d{i}", "pi") for i in range(1000)])
    assert [len(wave) for wave in waves] == [1, 2, 4, 8, 16, 32, 64, 128, 256, 489]


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
