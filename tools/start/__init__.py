"""A project of one's own: operations to begin with."""
