"""The functions in Docker, as `sam local` runs them, against DynamoDB Local.

    python -m tools.local.sam_local [EVENT …]      invokes events/EVENT.json in turn (default: all), on the same tables
    python -m tools.local.sam_local --serve        prepares everything, shows the command to type, and waits for Ctrl-C

Needs Docker, and Java 17 with npm for DynamoDB Local.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import shlex
import shutil
import signal
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from tools import tokens
from tools.errors import ToolError, run
from tools.local import dynamodb_local, stack, template
from tools.local.aws import KEY, REGION, local_client
from tools.local.processes import HOST, free_port, wait_until_listening
from tools.local.tables import create_table
from tools.progress import console, task
from tools.setup import ENVIRONMENTS, LOCAL, ROOT

EVENTS = ROOT / "events"
# The name by which a container knows its host.
_HOST_IN_DOCKER = "host.docker.internal"
_TABLES = ("IdempotencyTable", "ResourcesTable", "TokensTable")
_START_TIMEOUT_SECONDS = 90


@dataclass(frozen=True)
class SamLocal:
    """`sam local`, ready to use.

    Args:
        template: the built template, with the endpoint of DynamoDB Local in it.
        dynamodb_url: where DynamoDB Local is; its tables have their logical ids as names.
        parameters: template parameters.
    """

    template: Path
    dynamodb_url: str
    parameters: Sequence[str]

    def command(self, event: Path) -> list[str]:
        """The command that invokes a function with an event."""
        function = "AuthorizerFunction" if "methodArn" in json.loads(event.read_text()) else "ApiFunction"
        return self._command("invoke", function, "--event", os.path.relpath(event, ROOT))

    def invoke(self, event: Path) -> Any:
        """Invoke a function with an event, and return what it returns.

        Raises:
            ToolError: if sam or the function fails.
        """
        finished = subprocess.run(
            self.command(event), cwd=ROOT, env=_environment(), capture_output=True, text=True, check=False
        )
        try:
            reply = json.loads(finished.stdout.strip().splitlines()[-1])
        except (ValueError, IndexError):
            reply = {"errorMessage": "no answer"}
        if finished.returncode or "errorMessage" in reply:
            console.print(finished.stderr, style="dim", markup=False)
            raise ToolError(f"sam local invoke failed for {event.name} (exit {finished.returncode}): {reply}")
        return reply

    @contextmanager
    def serving(self, log: Path) -> Iterator[str]:
        """Serve the API for the length of a `with` block, at the URL that it gives; the functions stay warm.

        Args:
            log: the file that sam's output is written to.

        Raises:
            ToolError: if it does not start.
        """
        port = free_port()
        command = self._command("start-api", "--port", str(port), "--warm-containers", "EAGER")
        with log.open("wb") as output:
            process = subprocess.Popen(
                command,
                cwd=ROOT,
                env=_environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                start_new_session=True,
            )
        try:
            wait_until_listening(process, port, "sam local start-api", seconds=_START_TIMEOUT_SECONDS, log=log)
            yield f"http://{HOST}:{port}"
        finally:
            process.terminate()  # what was begun in the background ignores an interrupt
            process.wait()

    def _command(self, action: str, *arguments: str) -> list[str]:
        architecture = "arm64" if platform.machine() in {"arm64", "aarch64"} else "x86_64"
        return [
            *(str(ENVIRONMENTS["sam"] / "bin" / "sam"), "local", action, *arguments),
            *("--template", os.path.relpath(self.template, ROOT), "--skip-pull-image"),
            *("--add-host", f"{_HOST_IN_DOCKER}:host-gateway"),
            *("--parameter-overrides", f"Architecture={architecture}", *self.parameters),
        ]


@contextmanager
def ready(
    *, parameters: Sequence[str] = (), variant: Callable[[Path], Path] = lambda built: built
) -> Iterator[SamLocal]:
    """DynamoDB Local with the tables and the token of the events, for the length of a `with` block.

    Args:
        parameters: template parameters, as ``Name=value``.
        variant: turns what was built into what is run instead.

    Raises:
        ToolError: if Docker does not answer, or DynamoDB Local cannot be started.
    """
    _require_docker()
    with dynamodb_local.running() as server, TemporaryDirectory(prefix="sam-local-", dir=LOCAL) as home:
        dynamodb = local_client("dynamodb", server.endpoint_url)
        for name in _TABLES:
            # sam local gives functions the logical id of a table as its name.
            create_table(dynamodb, name, name)
        authorizer_event = json.loads((EVENTS / "authorizer.json").read_text())
        tokens.put(dynamodb, "TokensTable", authorizer_event["authorizationToken"].split()[1], "alice")
        # A copy, which the next build does not take away from under the functions.
        built = shutil.copytree(variant(stack.build()), Path(home) / "build")
        adapted = template.load(built / "template.yaml")
        _adapt(adapted, server.port)
        path = built / "docker.yaml"
        template.dump(adapted, path)
        yield SamLocal(path, server.endpoint_url, parameters)


def _adapt(built: dict[str, Any], port: int) -> None:
    # sam local passes on only those variables that a template declares, and does not know aliases.
    variables = built["Globals"]["Function"]["Environment"]["Variables"]
    variables["AWS_ENDPOINT_URL_DYNAMODB"] = f"http://{_HOST_IN_DOCKER}:{port}"
    authorizers = built["Resources"]["Api"]["Properties"]["Auth"]["Authorizers"]
    authorizers["BearerToken"]["FunctionArn"] = {"Fn::GetAtt": ["AuthorizerFunction", "Arn"]}


def _environment() -> dict[str, str]:
    """Variables for sam: DynamoDB Local keeps the tables of each access key and region apart."""
    return {
        **os.environ,
        "AWS_ACCESS_KEY_ID": KEY,
        "AWS_SECRET_ACCESS_KEY": KEY,
        "AWS_DEFAULT_REGION": REGION,
        "SAM_CLI_TELEMETRY": "0",
    }


def _require_docker() -> None:
    try:
        answer = subprocess.run(["docker", "info"], capture_output=True, check=False)
    except FileNotFoundError:
        raise ToolError("docker is not on PATH: sam local runs the functions in Docker") from None
    if answer.returncode:
        raise ToolError("no Docker engine answers (is it running? is DOCKER_HOST set?)")


def _play(local: SamLocal, names: Sequence[str]) -> None:
    for name in names:
        with task(name):
            reply = local.invoke(EVENTS / f"{name}.json")
        print(json.dumps(reply), flush=True)


def _serve(local: SamLocal) -> None:
    settings = {name: value for name, value in _environment().items() if os.environ.get(name) != value}
    console.print("ready; in another terminal, for example:", style="green")
    for name in ("provision", "provision-retry"):
        variables = (f"{name}={value}" for name, value in settings.items())
        print(" ".join([*variables, shlex.join(local.command(EVENTS / f"{name}.json"))]), flush=True)
    console.print("Ctrl-C ends it", style="dim")
    signal.pause()


def main() -> None:
    known = sorted(path.stem for path in EVENTS.glob("*.json"))
    parser = argparse.ArgumentParser(description="Invoke the functions in Docker with sam local.")
    parser.add_argument("events", nargs="*", metavar="EVENT", help=", ".join(known))
    parser.add_argument("--serve", action="store_true", help="prepare, show the command, and wait")
    arguments = parser.parse_args()
    if unknown := set(arguments.events) - set(known):
        raise ToolError(f"there is no event {', '.join(sorted(unknown))} (there are: {', '.join(known)})")
    with ready() as local:
        if arguments.serve:
            _serve(local)
        else:
            _play(local, arguments.events or known)


if __name__ == "__main__":
    run(main)
