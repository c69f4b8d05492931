"""Retraining measured: real ranks under torchrun's agent, killed and timed."""
