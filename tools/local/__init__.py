"""The cloud on this machine, and what the functions rely on there."""
