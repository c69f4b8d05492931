"""What the device agent is measured with; each module is one command."""
