"""What runs on a developer's machine: the local cloud, the demo, tokens. Nothing here is deployed."""
