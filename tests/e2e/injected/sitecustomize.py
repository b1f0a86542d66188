"""Python imports a module of this name before anything else: the local cloud has its directory on PYTHONPATH."""

import os
from importlib import import_module

# So do the cloud itself and the authorizer, but they run no operations.
if "IDEMPOTENCY_TABLE" in os.environ:
    for name in os.environ["INJECTED"].split():
        import_module(name).inject()
