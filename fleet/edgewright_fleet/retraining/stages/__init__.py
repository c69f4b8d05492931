"""What each stage of a run does, from its data to the rollout that it is handed to."""
