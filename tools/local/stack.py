"""The local stack: the real template.yaml, built and deployed by sam to the cloud on this machine.

python -m tools.local.stack up [--port N]      leaves it running until `down`, or brings it up to date
python -m tools.local.stack down
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from tools import contract, tokens
from tools.errors import ToolError, run
from tools.local import cloud as local_cloud
from tools.local import deployed, gateway_server, neighbours, template
from tools.local.aws import REGION, local_client
from tools.local.cloud import Cloud
from tools.local.guard import guarding
from tools.local.processes import free_port, port_number
from tools.local.release import BUILT, release
from tools.local.samconfig import SAMCONFIG, deploy_parameters
from tools.progress import console, task
from tools.setup import ENVIRONMENTS, LOCAL, ROOT

HOME = LOCAL / "run"
PORT = 8000
_DESCRIPTION = LOCAL / "stack.json"
_SETTINGS = deploy_parameters("local")


@dataclass(frozen=True)
class Stack:
    """Where everything in the stack is.

    Args:
        api_url: the API's base URL, stage included.
        token: a bearer token of one principal.
        other_token: a bearer token of another.
        aws_endpoint_url: where SDKs find the cloud.
        region: the AWS region.
        idempotency_table: name of the table of records.
        resources_table: name of the table of business rows.
        tokens_table: name of the table of tokens.
        function_name: the API's function.
        recovery_function_name: the sweep: the function that finds what was abandoned.
        worker_function_name: the function that carries operations on.
        recovery_queue_url: the queue in front of it.
        cloud_pid: the cloud's process.
    """

    api_url: str
    token: str
    other_token: str
    aws_endpoint_url: str
    region: str
    idempotency_table: str
    resources_table: str
    tokens_table: str
    function_name: str
    recovery_function_name: str
    worker_function_name: str
    recovery_queue_url: str
    # example campaigns
    myfunnel_url: str  # where MyFunnelAPI is, or its stand-in
    dns_zone_id: str  # the hosted zone of the campaigns' domains
    # end of example
    cloud_pid: int

    def client(self, service: str) -> Any:
        """A client of a service of the local cloud."""
        return local_client(service, self.aws_endpoint_url, self.region)


def load() -> Stack:
    """The stack that `make up` left running.

    Raises:
        ToolError: if there is none.
    """
    _find()
    return Stack(**json.loads(_DESCRIPTION.read_text()))


def _find() -> Cloud:
    cloud = local_cloud.find(HOME)
    if cloud is None or not _DESCRIPTION.exists():
        raise ToolError("the local stack is not up: run `make up`")
    return cloud


def build() -> Path:
    """Build the artifact and the template with sam.

    Returns:
        The directory of both.

    Raises:
        ToolError: if sam fails.
    """
    _sam(["build"], None)
    return BUILT


def deploy(cloud: Cloud, built: Path, parameters: Mapping[str, str]) -> None:
    """Deploy what was built to a local cloud.

    Args:
        cloud: the cloud.
        built: the directory of the artifact and the template.
        parameters: template parameters, besides those of the environment `local`.

    Raises:
        ToolError: if sam fails.
    """
    adapted = template.load(built / "template.yaml")
    template.adapt(adapted)
    overrides = [*_SETTINGS["parameter_overrides"], *(f"{name}={value}" for name, value in parameters.items())]
    # MiniStack transforms a template with the defaults of its parameters, whatever their values are.
    adapted["Parameters"]["Release"]["Default"] = release(built, overrides)
    path = built / "local.yaml"
    template.dump(adapted, path)
    command = ["deploy", "--config-env", "local", "--config-file", str(SAMCONFIG), "--template-file", str(path)]
    _sam([*command, "--parameter-overrides", *overrides], cloud.environment)


@contextmanager
def running(
    home: Path,
    *,
    port: int = 0,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    variant: Callable[[Path], Path] = lambda built: built,
    cloud_port: int = 0,
) -> Iterator[Stack]:
    """A freshly built and deployed stack, on a cloud of its own, for the length of a `with` block.

    Args:
        home: directory of the cloud's files.
        port: where the API listens; 0 for a free port.
        parameters: template parameters, besides those of the environment `local`.
        environment: variables for the cloud, which its functions inherit.
        variant: turns what was built into what is deployed instead.
        cloud_port: where the cloud listens; 0 for a free port.
    """
    with guarding(__spec__.name, home):
        yield _start(home, port, parameters or {}, environment, variant, cloud_port)


def _start(
    home: Path,
    port: int = 0,
    parameters: Mapping[str, str] | None = None,
    environment: Mapping[str, str] | None = None,
    variant: Callable[[Path], Path] = lambda built: built,
    cloud_port: int = 0,
) -> Stack:
    with task("start the local cloud"):
        stop(home)
        port = free_port(port)
        cloud = local_cloud.start(home, port=cloud_port, environment=environment)
        given = {**(parameters or {})}
        given = {**neighbours.set_up(cloud, home), **given}  # example campaigns
    with task("build (sam build)"):
        built = variant(build())
    with task("deploy template.yaml (sam deploy)"):
        deploy(cloud, built, given)
        url = gateway_server.start(home, cloud.endpoint_url, _SETTINGS["stack_name"], port)
    return _describe(cloud, url)


def stop(home: Path) -> bool:
    """Stop the stack that was started there, with everything that belongs to it, and remove its files.

    Returns:
        Whether one was running.
    """
    gateway_server.stop(home)
    neighbours.tear_down(home)  # example campaigns
    return local_cloud.stop(home)


def _describe(cloud: Cloud, url: str) -> Stack:
    found = deployed.find(local_client("cloudformation", cloud.endpoint_url), _SETTINGS["stack_name"])
    outputs, dynamodb = found.outputs, local_client("dynamodb", cloud.endpoint_url)
    return Stack(
        api_url=f"{url}/{outputs['ApiUrl'].rpartition('/')[2]}",
        token=tokens.issue(dynamodb, outputs["TokensTable"], "alice"),
        other_token=tokens.issue(dynamodb, outputs["TokensTable"], "bob"),
        aws_endpoint_url=cloud.endpoint_url,
        region=REGION,
        idempotency_table=outputs["IdempotencyTable"],
        resources_table=outputs["ResourcesTable"],
        tokens_table=outputs["TokensTable"],
        function_name=outputs["FunctionName"],
        recovery_function_name=outputs["RecoveryFunctionName"],
        worker_function_name=outputs["WorkerFunctionName"],
        recovery_queue_url=outputs["RecoveryQueueUrl"],
        # example campaigns
        myfunnel_url=found.references["MyFunnelApiUrl"],
        dns_zone_id=found.references["DnsZoneId"],
        # end of example
        cloud_pid=cloud.pid,
    )


def _sam(arguments: Sequence[str], environment: Mapping[str, str] | None) -> None:
    command = [str(ENVIRONMENTS["sam"] / "bin" / "sam"), *arguments]
    finished = subprocess.run(
        command,
        cwd=ROOT,
        env={**(environment or os.environ), "SAM_CLI_TELEMETRY": "0"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        check=False,
    )
    if finished.returncode:
        console.print(finished.stdout, style="dim", markup=False)
        raise ToolError(f"sam {arguments[0]} failed (exit {finished.returncode}); its output is above")


def up(port: int = 0) -> Stack:
    """Start the local stack and leave it running; one that runs already is brought up to date, with its data.

    Args:
        port: where the API listens; 0 for where it does already, or else for `PORT` if that is free.

    Raises:
        ToolError: if src/ cannot be imported, the port is taken, or the stack cannot be deployed; one that is running
            stays as it is.
    """
    contract.bodies()  # a module that cannot be imported is told now, not by the first request
    running = local_cloud.find(HOME)
    if running and _DESCRIPTION.exists():
        stack = _update(running, load(), port)
    else:
        try:
            stack = _start(HOME, port or _port_if_free(PORT))
        except BaseException:
            stop(HOME)
            raise
    _DESCRIPTION.write_text(json.dumps(asdict(stack), indent=2) + "\n")
    return stack


def _update(cloud: Cloud, stack: Stack, port: int) -> Stack:
    """Deploy what there is now to a running stack. Its token and its data stay, and its URL unless a port is given."""
    before = urlsplit(stack.api_url).port or 0
    port = free_port(port) if port not in {0, before} else before
    with task("build (sam build)"):
        built = build()
    with task("deploy template.yaml (sam deploy)"):
        kept: dict[str, str] = {}
        # example campaigns
        found = deployed.find(local_client("cloudformation", cloud.endpoint_url), _SETTINGS["stack_name"])
        kept = {name: found.references[name] for name in neighbours.PARAMETERS}
        # end of example
        deploy(cloud, built, kept)
        gateway_server.stop(HOME)
        url = gateway_server.start(HOME, cloud.endpoint_url, _SETTINGS["stack_name"], port)
    return replace(stack, api_url=f"{url}{urlsplit(stack.api_url).path}")


def _port_if_free(port: int) -> int:
    with suppress(ToolError):
        return free_port(port)
    return 0


def down() -> None:
    """Stop the local stack."""
    stopped = stop(HOME)
    _DESCRIPTION.unlink(missing_ok=True)
    console.print("stopped" if stopped else "nothing was running")


def greet(stack: Stack) -> None:
    """Say where a stack is, and show a request that works as it stands."""
    console.print(f"[green]up[/]: {stack.api_url}   `make down` stops it; more is in .local/{_DESCRIPTION.name}")
    print(example(stack), flush=True)


def example(stack: Stack) -> str:
    """A request as a line for the shell."""
    lines = [
        f"curl -i {stack.api_url}/v1/servers/provision",
        f"-H 'Authorization: Bearer {stack.token}'",
        "-H 'Idempotency-Key: 8e03978e-40d5' -H 'Content-Type: application/json'",
        """-d '{"region": "eu-west", "size": "large"}'""",
    ]
    return " \\\n  ".join(lines)


def environment() -> Mapping[str, str]:
    """Variables for a command whose AWS tools are to use the local cloud, and no other.

    Raises:
        ToolError: if the local stack is not up.
    """
    return _find().environment


def main() -> None:
    parser = argparse.ArgumentParser(description="Start, stop and use the local stack.")
    actions = parser.add_subparsers(dest="action", required=True)
    starting = actions.add_parser("up", help="start the stack and leave it running, or bring it up to date")
    starting.add_argument(
        "--port", type=port_number, default=0, help=f"where the API listens (default: {PORT} if free)"
    )
    actions.add_parser("down", help="stop it")
    arguments = parser.parse_args()
    match arguments.action:
        case "up":
            greet(up(arguments.port))
        case "down":
            down()


if __name__ == "__main__":
    run(main)
