"""How a crash looks to code that runs in a test's own process."""


class Killed(BaseException):
    """Ends a worker where it stands, as a crash does: no handler of exceptions gets to run, nothing more is written."""
