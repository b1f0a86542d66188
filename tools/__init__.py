"""Commands for developers and operators: the local cloud, the demo, tokens. Nothing here is deployed."""
