"""Ask a deployed stack what only a deployment can tell, show what was expected and what was seen, and clean up.

    python -m tools.ops.smoke [--env ENV] [--disturb]

Without --env, on the local stack: what only AWS can decide counts as not seen there.
With --disturb, the API's function is made to crash, and throttled, for some seconds: not for a stack with clients.
`src` must be on PYTHONPATH. Needs the rights of whoever deploys.
"""

from __future__ import annotations

import argparse
import json
import secrets
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from http.client import HTTPConnection, HTTPException, HTTPSConnection
from typing import Any
from urllib.parse import urlsplit
from uuid import uuid4

from rich.console import Console
from rich.table import Table
from rich.text import Text

from idempotency.clock import Clock
from idempotency.record import Record
from idempotency.request import Request, record_id
from idempotency.store import Store
from provisioning.servers import REGIONS
from tools import tokens
from tools.errors import ToolError, run
from tools.local.client import Answer
from tools.ops import environments
from tools.ops.environments import Environment
from tools.ops.recovery import recover

_PATH = "/v1/servers/provision"
_ALIAS = "live"
_WITHIN_SECONDS = 150
_WEEK = 7 * 24 * 3600
_NOT_RUN = "not asked"

Headers = Sequence[tuple[str, str]]


@dataclass
class Smoke:
    """A principal of its own at a deployed stack.

    Args:
        environment: the stack.
    """

    environment: Environment
    principal: str = field(default_factory=lambda: f"smoke-{uuid4()}")
    token: str = ""
    _records: set[str] = field(default_factory=set)
    _servers: list[dict[str, Any]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._dynamodb = self.environment.client("dynamodb")
        self.function = self.environment.outputs["FunctionName"]
        self.functions = self.environment.client("lambda")
        here = self._dynamodb.meta.region_name
        region = next((name for name, region in REGIONS.items() if region == here), next(iter(REGIONS)))
        self.body = json.dumps({"region": region, "size": "small"}).encode()

    @contextmanager
    def admitted(self) -> Iterator[None]:
        """Have a token for the length of a `with` block; then remove it, and all that was made."""
        table = self.environment.outputs["TokensTable"]
        self.token = tokens.issue(self._dynamodb, table, self.principal, days=1)
        try:
            yield
        finally:
            tokens.delete(self._dynamodb, table, self.token)
            self._clean_up()

    def post(self, headers: Headers = (), body: bytes | None = None, *, key: str | None = None) -> Answer:
        """POST a server, or something like it; None for the key: a new one."""
        key = key or self.new_key()
        sent = [("Content-Type", "application/json"), ("Idempotency-Key", key), *headers]
        return self.send("POST", _PATH, sent, self.body if body is None else body)

    def send(
        self, method: str, path: str, headers: Headers, body: bytes = b"", authorization: str | None = ""
    ) -> Answer:
        """Send exactly these header lines, after the token's; with None for the authorization, no token at all."""
        url = urlsplit(self.environment.api_url)
        connection = (HTTPSConnection if url.scheme == "https" else HTTPConnection)(url.netloc, timeout=40)
        connection.putrequest(method, f"{url.path}{path}", skip_accept_encoding=True)
        lines = [] if authorization is None else [("Authorization", authorization or f"Bearer {self.token}")]
        for name, value in [*lines, *headers, ("Content-Length", str(len(body)))]:
            connection.putheader(name, value)
        with suppress(OSError):  # a body that is too large is refused before it was read
            connection.endheaders(body)
        reply = connection.getresponse()
        received: dict[str, list[str]] = {}
        for name, value in reply.getheaders():
            received.setdefault(name.lower(), []).append(value)
        answer = Answer(reply.status, reply.read(), received)
        connection.close()
        if answer.status == 201:
            self._servers.append(answer.json)
        return answer

    def new_key(self) -> str:
        """A key whose record is removed in the end."""
        key = str(uuid4())
        self._records.add(self.record_id(key))
        return key

    def record_id(self, key: str) -> str:
        """The id of a key's record."""
        return record_id(f"id:{self.principal}", "POST", _PATH, key)

    def abandon(self, key: str) -> None:
        """Leave an operation behind as a function does that was killed right after its claim, some time ago."""
        clock = Clock()
        now = clock.now()
        stage = urlsplit(self.environment.api_url).path
        request = Request(f"id:{self.principal}", "POST", _PATH, _PATH, stage, {}, "application/json", self.body)
        record = Record(
            id=self.record_id(key),
            owner=str(uuid4()),
            lease_until=now - 1,
            expires_at=now // 1000 + _WEEK,
            claimed_at=now - 1,
            created_at=now - 1,
            fingerprint=request.fingerprint,
            operation_id=str(uuid4()),
            request=request.normal.pack(),
        )
        Store(self._dynamodb, self.environment.outputs["IdempotencyTable"], clock).claim(record, now)

    def _clean_up(self) -> None:
        outputs = self.environment.outputs
        for id_ in self._records:
            self._dynamodb.delete_item(TableName=outputs["IdempotencyTable"], Key={"id": {"S": id_}})
        for server in self._servers:
            row = {"id": {"S": f"server#{server['id']}"}}
            self._dynamodb.delete_item(TableName=outputs["ResourcesTable"], Key=row)
        if instances := [server["instance_id"] for server in self._servers if "instance_id" in server]:
            self.environment.client("ec2").terminate_instances(InstanceIds=sorted({*instances}))


@dataclass(frozen=True)
class Case:
    """Something that a deployment shows.

    Args:
        name: what is asked.
        expected: what may be seen.
        look: looks.
        only_aws: whether only AWS can decide it.
        disturbs: whether the stack's clients would notice.
    """

    name: str
    expected: Sequence[str]
    look: Callable[[Smoke], str]
    only_aws: bool = False
    disturbs: bool = False


def _described(answer: Answer, *headers: str) -> str:
    """Status, and the problem, the message or the replay; and the values of these headers."""
    body = answer.json if "json" in answer.headers.get("content-type", [""])[0] else {}
    said = body.get("type", "").partition("#")[2] or body.get("message", "")
    parts = [str(answer.status), said, "replayed" * answer.replayed]
    parts += [f"{name}: {', '.join(answer.headers[name])}" for name in headers if name in answer.headers]
    return " ".join(part for part in parts if part)


def _replay(smoke: Smoke) -> str:
    key = smoke.new_key()
    first, again = smoke.post(key=key), smoke.post(key=key)
    return _described(again) if again.body == first.body else "other bytes"


def _lower_case(smoke: Smoke) -> str:
    lines = [("content-type", "application/json"), ("idempotency-key", smoke.new_key())]
    return _described(smoke.send("POST", _PATH, lines, smoke.body))


def _http_2(smoke: Smoke) -> str:
    if not smoke.environment.api_url.startswith("https:") or not shutil.which("curl"):
        return _NOT_RUN
    lines = [f"authorization: Bearer {smoke.token}", "content-type: application/json"]
    lines.append(f"idempotency-key: {smoke.new_key()}")
    options = [option for line in lines for option in ("-H", line)]
    command = [
        "curl",
        "--http2",
        "-sS",
        *options,
        "--data-binary",
        smoke.body.decode(),
        "-w",
        "\n%{http_version} %{http_code}",
    ]
    shown = subprocess.run(
        [*command, f"{smoke.environment.api_url}{_PATH}"], capture_output=True, text=True, check=False
    )
    body, _, seen = shown.stdout.rpartition("\n")
    if seen.endswith(" 201"):
        smoke._servers.append(json.loads(body))
    return seen or shown.stderr.strip()


def _leak(smoke: Smoke) -> str:
    secret = secrets.token_urlsafe(32)
    answer = smoke.send("GET", "/v1/nothing", [], authorization=f"Bearer {secret}")
    return "the token is in the answer" if secret.encode() in answer.body else _described(answer)


def _live(smoke: Smoke) -> str:
    newest = smoke.functions.get_function_configuration(FunctionName=smoke.function)
    live = smoke.functions.get_function_configuration(FunctionName=smoke.function, Qualifier=_ALIAS)
    compared = ("CodeSha256", "Environment", "MemorySize", "Timeout", "Handler", "Runtime")
    differing = [name for name in compared if newest.get(name) != live.get(name)]
    return f"differs: {', '.join(differing)}" if differing else "the same"


def _recovery(smoke: Smoke) -> str:
    key = smoke.new_key()
    smoke.abandon(key)
    deadline = time.monotonic() + _WITHIN_SECONDS
    recover(smoke.functions, smoke.environment.outputs["RecoveryFunctionName"])
    while (record := _record(smoke, key)) != "COMPLETED" and time.monotonic() < deadline:
        time.sleep(1)
    return _described(smoke.post(key=key)) if record == "COMPLETED" else record


def _record(smoke: Smoke, key: str) -> str:
    found = smoke._dynamodb.get_item(
        TableName=smoke.environment.outputs["IdempotencyTable"],
        Key={"id": {"S": smoke.record_id(key)}},
        ConsistentRead=True,
    )
    return str(found["Item"]["status"]["S"]) if "Item" in found else "no record"


def _crash(smoke: Smoke) -> str:
    with _broken_version(smoke):
        return _described(smoke.post(), "retry-after")


def _throttle(smoke: Smoke) -> str:
    if smoke.environment.local:
        return _NOT_RUN  # MiniStack takes a reserved concurrency of 0 for none at all
    before = smoke.functions.get_function_concurrency(FunctionName=smoke.function)
    smoke.functions.put_function_concurrency(FunctionName=smoke.function, ReservedConcurrentExecutions=0)
    try:
        time.sleep(5)
        return _described(smoke.post(), "retry-after")
    finally:
        if (reserved := before.get("ReservedConcurrentExecutions")) is None:
            smoke.functions.delete_function_concurrency(FunctionName=smoke.function)
        else:
            smoke.functions.put_function_concurrency(FunctionName=smoke.function, ReservedConcurrentExecutions=reserved)


@contextmanager
def _broken_version(smoke: Smoke) -> Iterator[None]:
    """Have the alias lead to a version that fails at each request, for the length of a `with` block."""
    functions, name = smoke.functions, smoke.function
    alias = functions.get_alias(FunctionName=name, Name=_ALIAS)["FunctionVersion"]
    handler = functions.get_function_configuration(FunctionName=name)["Handler"]

    def configure(handler: str) -> None:
        functions.update_function_configuration(FunctionName=name, Handler=handler)
        functions.get_waiter("function_updated_v2").wait(FunctionName=name)

    configure("os.abort")  # it starts, but does not take what handlers are given
    try:
        broken = functions.publish_version(FunctionName=name)["Version"]
        functions.get_waiter("published_version_active").wait(FunctionName=name, Qualifier=broken)
        functions.update_alias(FunctionName=name, Name=_ALIAS, FunctionVersion=broken)
        yield
    finally:
        functions.update_alias(FunctionName=name, Name=_ALIAS, FunctionVersion=alias)
        configure(handler)
    functions.delete_function(FunctionName=name, Qualifier=broken)


_UNAVAILABLE = ("502 unavailable retry-after: 1", "503 unavailable retry-after: 1")
_REQUEST_TOO_LONG = "413 Request Too Long"

CASES = (
    Case("a request, and again", ["201 replayed"], _replay),
    Case(
        "two keys in two lines",
        ["400 key-invalid"],
        lambda smoke: _described(smoke.post([("Idempotency-Key", str(uuid4()))])),
    ),
    Case("names of headers in lower case", ["201"], _lower_case, only_aws=True),
    Case("HTTP/2", ["2 201"], _http_2, only_aws=True),
    Case(
        "no key",
        ["400 key-missing"],
        lambda smoke: _described(smoke.send("POST", _PATH, [("Content-Type", "application/json")], smoke.body)),
    ),
    Case("a body against its model", ["400 body-invalid"], lambda smoke: _described(smoke.post(body=b"{}"))),
    Case(
        "7 MB",
        [_REQUEST_TOO_LONG, *_UNAVAILABLE],
        lambda smoke: _described(smoke.post(body=smoke.body + b" " * 7_000_000), "retry-after"),
        only_aws=True,
    ),
    Case(
        "11 MB",
        [_REQUEST_TOO_LONG],
        lambda smoke: _described(smoke.post(body=smoke.body + b" " * 11_000_000)),
        only_aws=True,
    ),
    Case(
        "no token",
        ["401 unauthorized www-authenticate: Bearer"],
        lambda smoke: _described(smoke.send("POST", _PATH, [], smoke.body, authorization=None), "www-authenticate"),
        only_aws=True,
    ),
    Case(
        "a token that nobody was given",
        ["403 forbidden"],
        lambda smoke: _described(smoke.send("GET", "/v1/servers/x", [], authorization=f"Bearer {'x' * 43}")),
    ),
    Case("an unknown path, with a token", ["403 gateway-error", "404 not-found"], _leak, only_aws=True),
    Case("the version that answers, and the newest configuration", ["the same"], _live),
    Case("an operation that was abandoned", ["201 replayed"], _recovery),
    Case("a version that fails at each request", _UNAVAILABLE, _crash, only_aws=True, disturbs=True),
    Case("a function that is throttled", _UNAVAILABLE, _throttle, only_aws=True, disturbs=True),
)


def play(smoke: Smoke, cases: Sequence[Case], *, disturb: bool, show: Callable[[Case, str, str], None]) -> bool:
    """Look at each case.

    Args:
        smoke: the principal.
        cases: the cases.
        disturb: whether to look at what clients would notice, too.
        show: is given each case, what was seen, and what that means.

    Returns:
        Whether everything was seen as expected that was seen at all.
    """
    good = True
    for case in cases:
        seen = _NOT_RUN
        if disturb or not case.disturbs:
            try:
                seen = case.look(smoke)
            except (OSError, HTTPException) as error:
                seen = str(error) or type(error).__name__
        if seen not in {*case.expected, _NOT_RUN}:
            good, verdict = False, "differs"
        elif seen == _NOT_RUN or (case.only_aws and smoke.environment.local):
            verdict = "not seen yet"
        else:
            verdict = "as expected"
        show(case, seen, verdict)
    return good


def main() -> int:
    parser = argparse.ArgumentParser(description="Ask a deployed stack what only a deployment can tell.")
    parser.add_argument("--env", help="environment in samconfig.toml (default: the local stack)")
    parser.add_argument("--disturb", action="store_true", help="make the function crash, and throttle it")
    arguments = parser.parse_args()
    table = Table(box=None, header_style="bold")
    for heading in ("case", "expected", "seen", "verdict"):
        table.add_column(heading, overflow="fold")
    colours = {"differs": "red", "as expected": "green"}

    def show(case: Case, seen: str, verdict: str) -> None:
        colour = colours.get(verdict, "yellow")
        table.add_row(case.name, " or ".join(case.expected), Text(seen), f"[{colour}]{verdict}[/]")

    smoke = Smoke(environments.find(arguments.env))
    if arguments.disturb and arguments.env == "prod":
        raise ToolError("prod has clients, who would notice: leave DISTURB out")
    with smoke.admitted():
        good = play(smoke, CASES, disturb=arguments.disturb, show=show)
    Console(highlight=False).print(table)
    return 0 if good else 1


if __name__ == "__main__":
    run(main)
