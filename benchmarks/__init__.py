"""What Edgewright is measured with: each sub-package is one benchmark, run as `python -m benchmarks.NAME`."""
