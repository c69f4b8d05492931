"""What delegates take: the files that are shipped, and that each has a source."""

from __future__ import annotations

from importlib import resources
from typing import get_args

import pytest

from edgewright_profiles import Delegate, load_delegate, load_profile, profile_names
from edgewright_profiles.profile import DelegateName

NAMES: tuple[DelegateName, ...] = get_args(DelegateName)


@pytest.mark.parametrize("name", NAMES)
def test_every_delegate_has_a_file_in_which_all_is_sourced(name: DelegateName) -> None:
    rules = load_delegate(name)
    assert rules.name == name and rules.limits
    operators = [operator for table in rules.operators for operator in table.limits]
    assert len(operators) == len(set(operators))
    assert any(source.consulted for source in rules.sources.values())


def test_no_file_of_a_delegate_is_without_a_name() -> None:
    files = (resources.files("edgewright_profiles") / "delegates").iterdir()
    assert sorted(file.name for file in files) == sorted(f"{name}.toml" for name in NAMES)


def test_source_that_is_missing_is_refused() -> None:
    document = load_delegate("edge-tpu").model_dump(by_alias=True)
    document["sources"].pop("axis")
    with pytest.raises(ValueError, match="axis"):
        Delegate.model_validate(document)


def test_delegate_of_a_profile_runs_a_format_of_it() -> None:
    found = set()
    for name in profile_names():
        profile = load_profile(name)
        for accelerator in profile.accelerators:
            if accelerator.delegate is not None:
                found.add(accelerator.delegate.name)
                assert load_delegate(accelerator.delegate.name).format in profile.formats
    assert found == set(NAMES)


def test_only_the_runtime_that_names_the_accelerator_computes_on_it() -> None:
    tensorrt = load_profile("jetson-orin-nano-tensorrt")
    gpu = tensorrt.accelerator_for("onnx")
    assert gpu is not None and gpu.delegate is not None and gpu.delegate.name == "tensorrt"
    assert tensorrt.runtime_for("onnx").activation_symmetric
    for name in profile_names():
        if name != tensorrt.name:
            profile = load_profile(name)
            assert all(profile.accelerator_for(model_format) is None for model_format in profile.formats)
