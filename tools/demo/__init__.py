"""A story, played on a local cloud in the terminal; each of its claims is checked against what really happened."""
