"""From a trigger to a release candidate: data, training, conversion, comparison, and the way to a rollout."""
