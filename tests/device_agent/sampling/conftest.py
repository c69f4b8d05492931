from __future__ import annotations

from ceph_gateway import gateway

__all__ = ["gateway"]
