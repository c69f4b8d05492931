"""Samples in a store, as devices would have sent them, and a file of labels."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from edgewright.artifact.layout import digest_of
from edgewright.artifact.manifest import Quantisation, TensorSpec
from edgewright.field_sample import FieldSample, StoredTensor, key_of, pack, packed_tensors
from edgewright.object_store.folder import FolderStore
from edgewright.privacy import PrivacyPolicy, redacted
from edgewright_fleet.retraining.field_data.data_set import SplitRule

NOW = datetime(2026, 11, 20, 12, tzinfo=timezone.utc)
RULE = SplitRule(held_out_share=0.4, recent_since=NOW - timedelta(days=7))
SPEC = TensorSpec(
    name="x",
    runtime_name="x",
    shape=(1, 4, 6, 3),
    dtype="uint8",
    quantisation=Quantisation(scale=0.5, zero_point=4),
    permutation=(0, 2, 3, 1),
)
CLASSES = ("scratched", "dented", "fine")


def put(
    root: Path,
    number: int,
    *,
    policy: PrivacyPolicy = PrivacyPolicy(store="input"),  # noqa: B008 - it is frozen
    spec: TensorSpec = SPEC,
    raw: NDArray[Any] | None = None,
    days_ago: float = 1.0,
    **changes: object,
) -> str:
    """A sample in the store below `root`, as a device would have sent it; its digest. `raw`: what it was given."""
    if raw is None:
        raw = np.random.default_rng(number).integers(0, 255, spec.shape).astype(spec.dtype)
    (stored,) = redacted(policy, [raw], [spec])
    payload = packed_tensors([stored])
    sample = FieldSample(
        **{
            "fleet": "kiosks",
            "device": f"line-{number % 3}",
            "labels": {"site": "lab"},
            "profile": "raspberry-pi-5",
            "model": "net",
            "version": "1.0.0",
            "release": f"sha256:{'1' * 64}",
            "artifact": f"sha256:{'2' * 64}",
            "captured": NOW - timedelta(days=days_ago, seconds=number),
            "reason": ("uniform", "low-confidence")[number % 2],
            "inclusion_probability": (0.01, 0.5)[number % 2],
            "classes": 3,
            "policy": policy,
            "tensors": (StoredTensor(spec=spec, shape=stored.shape),),
            "payload_digest": digest_of(payload),
            **changes,
        }
    )
    data = pack(sample, payload)
    digest = digest_of(data)
    file = root.parent / "one.sample"
    file.write_bytes(data)
    FolderStore(root).put(key_of(sample, digest), file)
    return digest


def labels(folder: Path, rows: list[str], name: str = "labels.csv") -> Path:
    path = folder / name
    path.write_text("\n".join(["digest,label,labeller", *rows]) + "\n")
    return path
