"""Kubernetes and K3s clusters as a target of rollouts."""
