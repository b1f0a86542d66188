"""What samconfig.toml says about an environment."""

from __future__ import annotations

import tomllib
from typing import Any

from tools.errors import ToolError
from tools.setup import ROOT

SAMCONFIG = ROOT / "samconfig.toml"


def deploy_parameters(environment: str) -> dict[str, Any]:
    """The parameters that `sam deploy` gets in an environment.

    Raises:
        ToolError: if there is no such environment.
    """
    config = tomllib.loads(SAMCONFIG.read_text())
    try:
        commands = config[environment]
        return {**commands["global"]["parameters"], **commands["deploy"]["parameters"]}
    except (KeyError, TypeError):
        known = ", ".join(name for name in config if name != "version")
        raise ToolError(f"there is no environment {environment} in samconfig.toml (there are: {known})") from None
