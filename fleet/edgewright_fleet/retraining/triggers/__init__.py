"""Triggers: what says that a retraining is worth its cost, as evidence, and the document that says so."""
