"""What the tests need of the project that no mutant changes: made once, before the processes that try mutants fork."""

from tests import roles

roles.handlers()
