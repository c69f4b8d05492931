"""A model card for people: words for a terminal, Markdown, and a page of its own, all of one content."""
