"""A rollout: its specification, its engine, its gates, its durable record, and the loop that joins them."""
