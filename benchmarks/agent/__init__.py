"""What the device agent adds to a bare runtime, measured against that runtime in the same run."""
