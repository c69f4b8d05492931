"""Retraining: from drift in the field to a proved release."""
