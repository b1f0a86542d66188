"""The tests are tested."""
