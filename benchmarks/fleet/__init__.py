"""What rollouts are measured with; each module is one command."""
