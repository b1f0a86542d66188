"""Python imports a module of this name before anything else: the local cloud has its directory on PYTHONPATH."""

import os
from importlib import import_module

# So do the cloud itself and the authorizer, but they run no operations.
if "IDEMPOTENCY_TABLE" in os.environ:
    import_module("injector").watch()
    if "CLOCK_SKEW_SECONDS" in os.environ:
        import_module("skew").shift(float(os.environ["CLOCK_SKEW_SECONDS"]))
