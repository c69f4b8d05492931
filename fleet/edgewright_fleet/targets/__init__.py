"""Where a rollout is carried out: one module a kind of target."""
