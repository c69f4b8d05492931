from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from conftest import tiny_golden, tiny_manifest, tiny_onnx
from edgewright.artifact.manifest import ArtifactManifest, Classification
from edgewright.contract import from_json, to_json
from edgewright.prediction import Prediction, predict, top_class


def manifest(labels: tuple[str, ...] | None = None, *, output: str | None = "y") -> ArtifactManifest:
    classification = Classification(output=output) if output else None
    changes = {"labels": labels, "postprocessing": classification}
    return tiny_manifest(tiny_onnx(), tiny_golden()).model_copy(update=changes)


def test_a_classifier_names_its_class() -> None:
    outputs = {"y": np.array([[0.1, 0.7, 0.2]], np.float32)}
    said = predict("line-3", manifest(("cat", "dog")), outputs, 0.0)
    assert (said.top, said.label, said.model, said.version) == (1, "dog", "tiny", "1.0.0")
    assert said.confidence is not None
    assert abs(said.confidence - 0.7) < 1e-6
    assert said.values is None
    assert predict("line-3", manifest(), outputs, 0.0).label is None
    assert predict("line-3", manifest(("cat",)), outputs, 0.0).label is None


def test_logits_become_a_probability() -> None:
    assert top_class(np.array([0.0, np.log(3.0)])) == (1, 0.75)


def test_another_model_says_its_values_unless_they_are_many() -> None:
    said = predict("d", manifest(output=None), {"y": np.array([[1.5, np.nan]], np.float32)}, 0.0)
    assert said.values == {"y": (1.5, None)}
    assert from_json(Prediction, to_json(said), where="test").values == {"y": (1.5, None)}
    assert predict("d", manifest(output=None), {"y": np.zeros(1001)}, 0.0).values is None
    assert predict("d", manifest(output="gone"), {"y": np.zeros(1)}, 0.0).values == {"y": (0.0,)}


scores = hnp.arrays(
    np.float32, hnp.array_shapes(min_dims=1, max_dims=3, max_side=6), elements=st.floats(width=32)
)


@given(scores, st.floats(-1e18, 1e18))
def test_any_scores_and_any_clock_are_a_prediction(scores: Any, captured_s: float) -> None:
    said = predict("d", manifest(), {"y": scores}, captured_s)
    assert from_json(Prediction, to_json(said), where="test") == said
    assert said.confidence is not None
    assert 0 <= said.confidence <= 1
