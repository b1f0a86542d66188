"""What every proof relies on: the environment and the clock that the project's tests have."""

from tests.conftest import clock

__all__ = ["clock"]
