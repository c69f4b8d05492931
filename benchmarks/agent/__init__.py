"""The device agent, and an application beside it, measured against the bare runtime."""
