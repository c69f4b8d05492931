"""`SinkError`: a prediction that could not be handed on."""

from __future__ import annotations

from edgewright.errors import EdgewrightError


class SinkError(EdgewrightError):
    """A prediction is lost: the disk is full, or the broker has been away for too long."""
