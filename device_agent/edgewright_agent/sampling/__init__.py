"""Inputs for training, chosen on the device: opt-in, within budgets, and by a privacy policy. Off, none of it is
imported."""
