"""Deploy what `sam build` built, as samconfig.toml says, with the release that it is.

    python -m tools.ops.deploy ENV

SAM names a version by what stands in the template, where a parameter is only a name. So a changed parameter would never
reach the functions; the parameter ``Release``, which SAM does look at, takes it there.
"""

from __future__ import annotations

import argparse
import os
import subprocess
from pathlib import Path

from tools.errors import ToolError, run
from tools.local.release import BUILT, release
from tools.local.samconfig import SAMCONFIG, deploy_parameters
from tools.setup import ENVIRONMENTS, ROOT


def command(environment: str, built: Path = BUILT) -> list[str]:
    """The command that deploys.

    Args:
        environment: its name in samconfig.toml.
        built: what `sam build` built.

    Raises:
        ToolError: if there is no such environment, or nothing was built.
    """
    overrides = deploy_parameters(environment)["parameter_overrides"]
    if not (built / "template.yaml").exists():
        raise ToolError("nothing was built: run sam build first, or make deploy")
    sam = [str(ENVIRONMENTS["sam"] / "bin" / "sam"), "deploy", "--config-file", str(SAMCONFIG)]
    # Nobody is there to confirm a change in a workflow.
    unattended = ["--no-confirm-changeset"] if os.environ.get("CI") else []
    # What is said on the command line takes the place of what samconfig.toml says, so all of it is said.
    return [
        *sam,
        "--config-env",
        environment,
        *unattended,
        "--parameter-overrides",
        *overrides,
        f"Release={release(built, overrides)}",
    ]


def main() -> int:
    parser = argparse.ArgumentParser(description="Deploy what was built.")
    parser.add_argument("environment", help="environment in samconfig.toml")
    return subprocess.run(command(parser.parse_args().environment), cwd=ROOT, check=False).returncode


if __name__ == "__main__":
    run(main)
