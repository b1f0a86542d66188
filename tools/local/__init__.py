"""The cloud on this machine, and the services that the functions rely on there."""
