"""Python imports a module with this name before anything else; the local cloud has its directory on PYTHONPATH."""

import os
from importlib import import_module

# The cloud itself and the authorizer import it too, but they run no operations.
if "IDEMPOTENCY_TABLE" in os.environ:
    for name in os.environ["INJECTED"].split():
        import_module(name).inject()
