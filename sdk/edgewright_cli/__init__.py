"""The `edgewright` command: one module a command group, imported when it is called; no logic of its own."""
