"""Rolling releases out to devices: a pure engine, gates that fail closed, and the targets that carry it out."""
