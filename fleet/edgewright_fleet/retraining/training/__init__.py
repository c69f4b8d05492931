"""What runs on every rank of a training job: the context, its checkpoints, the worker, and the launcher."""
