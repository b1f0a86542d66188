"""The business logic: replace it with your own."""
