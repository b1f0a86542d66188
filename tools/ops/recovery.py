"""The sweep of recovery, run on demand."""

from __future__ import annotations

import json
from typing import Any

from tools.errors import ToolError

_ALIAS = "live"


def recover(lambda_client: Any, function_name: str) -> int:
    """Send everything that is due to the workers, without waiting for the schedule.

    Args:
        lambda_client: a client of Lambda.
        function_name: the sweep's function.

    Returns:
        How many operations were sent.

    Raises:
        ToolError: if the function failed.
    """
    reply = lambda_client.invoke(FunctionName=function_name, Qualifier=_ALIAS)
    result: dict[str, Any] = json.loads(reply["Payload"].read())
    if "FunctionError" in reply:
        raise ToolError(f"recovery failed: {result.get('errorMessage', result)}")
    return int(result["sent"])
