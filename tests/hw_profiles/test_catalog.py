"""Finding a profile by name or path, and the one line that a user gets when it is not there or broken."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from importlib import resources
from pathlib import Path

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

import edgewright_profiles
from edgewright_profiles import ProfileError, load_profile, profile_names
from edgewright_profiles.catalog import parse_profile

PI_5 = (resources.files("edgewright_profiles") / "data" / "raspberry-pi-5.toml").read_text(encoding="utf-8")


def refusal(name_or_path: str | Path) -> str:
    with pytest.raises(ProfileError) as caught:
        load_profile(name_or_path)
    message = str(caught.value)
    assert len(message.splitlines()) == 1
    return message


def test_seven_targets_are_described() -> None:
    assert profile_names() == (
        "android-flagship",
        "coral-dev-board",
        "jetson-orin-nano",
        "jetson-orin-nano-tensorrt",
        "raspberry-pi-4",
        "raspberry-pi-5",
        "x86-64-gateway",
    )


def test_misspelt_name_gets_the_nearest_one() -> None:
    assert refusal("rasberry-pi5") == (
        "no hardware profile 'rasberry-pi5'; did you mean 'raspberry-pi-5'? 'edgewright profile list' shows all"
    )


def test_name_near_to_none_gets_no_suggestion() -> None:
    assert refusal("zzz") == "no hardware profile 'zzz'; 'edgewright profile list' shows all"


@pytest.mark.parametrize("convert", [str, Path])
def test_profile_of_ones_own_is_read_from_its_path(tmp_path: Path, convert: type) -> None:
    file = tmp_path / "mine.toml"
    file.write_text(PI_5.replace('name = "raspberry-pi-5"', 'name = "mine"'), encoding="utf-8")
    assert load_profile(convert(file)).name == "mine"


def test_file_that_is_not_there_is_said_to_be_missing(tmp_path: Path) -> None:
    file = tmp_path / "absent.toml"
    assert refusal(file) == f"{file}: cannot be read (No such file or directory)"


@pytest.mark.parametrize("name", ["a\0b.toml", "x" * 5000 + ".toml"])
def test_path_that_no_file_can_have_is_refused(name: str) -> None:
    assert "cannot be read" in refusal(name)


def test_folder_and_binary_file_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "folder.toml"
    folder.mkdir()
    assert "cannot be read (Is a directory)" in refusal(folder)
    binary = tmp_path / "binary.toml"
    binary.write_bytes(b"\xff\xfe\x00")
    assert "cannot be read" in refusal(binary)


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("schema = 1", "schema = ", "is not TOML (Invalid value (at line 1, column 10))"),
        ('isa = "aarch64"', 'isa = "mips"', "soc.isa: Input should be 'aarch64', 'armv7l' or 'x86_64'"),
        ("count = 4", 'count = "4"', "cores.0.count: Input should be a valid integer"),
        ("count = 4", "count = 4\ncounted = 4", "cores.0.counted: no such key"),
        ('source = ["vcgencmd"]', 'source = ["x"]', "power_sensors.0: source 'x' is not in [sources]"),
    ],
)
def test_broken_file_is_refused_with_file_and_key(tmp_path: Path, old: str, new: str, said: str) -> None:
    file = tmp_path / "mine.toml"
    assert old in PI_5
    file.write_text(PI_5.replace(old, new, 1), encoding="utf-8")
    assert refusal(file) == f"{file}: {said}"


# No deadline: a loaded machine is slow, not wrong.
@settings(deadline=None)
@given(st.text())
@example("a = " + "[" * 100_000)
@example("a = " + "9" * 10_000)
@example("a = 2026-13-45")
@example("schema = 1\n'\u2028' = 1")
def test_arbitrary_text_raises_nothing_but_a_profile_error_of_one_line(text: str) -> None:
    with pytest.raises(ProfileError) as caught:
        parse_profile(text, "mine.toml")
    assert len(str(caught.value).splitlines()) == 1


@settings(deadline=None)
@given(st.integers(0, len(PI_5)), st.integers(0, 80), st.text(max_size=20))
def test_damaged_profile_is_read_or_refused_in_one_line(start: int, length: int, insert: str) -> None:
    try:
        profile = parse_profile(PI_5[:start] + insert + PI_5[start + length :], "mine.toml")
    except ProfileError as error:
        assert len(str(error).splitlines()) == 1
    else:
        assert profile.fact_groups()


def test_profiles_load_from_a_package_that_is_not_a_folder_of_files(tmp_path: Path) -> None:
    package = Path(edgewright_profiles.__file__).parent
    archive = tmp_path / "packed.zip"
    with zipfile.ZipFile(archive, "w") as packed:
        for file in (*package.rglob("*.py"), *package.rglob("*.toml")):
            packed.write(file, file.relative_to(package.parent))
    program = (
        f"import sys; sys.path.insert(0, {str(archive)!r})\n"
        "import edgewright_profiles as p\n"
        f"assert p.__file__.startswith({str(archive)!r}), p.__file__\n"
        "print(*(p.load_profile(name).name for name in p.profile_names()))"
    )
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=False)
    assert run.stdout.split() == list(profile_names()), run.stderr


def test_import_brings_in_nothing_heavier_than_pydantic() -> None:
    program = "import edgewright_profiles, sys; print(*sorted({m.partition('.')[0] for m in sys.modules}))"
    run = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "pydantic" in loaded
    assert not loaded & {"edgewright", "numpy", "torch", "onnx", "onnxruntime", "click", "rich", "yaml"}
