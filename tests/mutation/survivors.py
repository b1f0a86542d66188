"""Mutants that no test can tell from the original, each with its reason."""

SURVIVORS: dict[str, str] = {}
