"""A crash, for code that runs in a test's own process."""


class Killed(BaseException):
    """Ends a worker where it is, as a crash does: no handler of exceptions catches it, and nothing more is written."""
