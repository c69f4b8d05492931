"""The hub: receives a fleet's telemetry and twin, keeps recent windows, and shows them."""
