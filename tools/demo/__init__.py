"""The story, played on a local cloud in the terminal, each line checked against what really happened."""
