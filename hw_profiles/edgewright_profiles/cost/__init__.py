"""Predicting what a model costs on a profile; a prediction is never to be shown as measured."""

from edgewright_profiles.cost.roofline import Kind, OperatorWork, PredictedLatency, predict_latency

__all__ = ["Kind", "OperatorWork", "PredictedLatency", "predict_latency"]
