"""Training runs in a Kubernetes cluster, one pod a node."""
