"""The door between HTTP and the record's life: a decorator for routes."""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, nullcontext
from functools import cached_property, update_wrapper
from http import HTTPStatus
from types import SimpleNamespace
from typing import Any, Concatenate, NamedTuple, ParamSpec, TypeVar, cast, get_type_hints
from uuid import uuid4

from aws_lambda_powertools.event_handler import ApiGatewayResolver, Response
from aws_lambda_powertools.event_handler.api_gateway import BaseRouter
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, ServiceError
from aws_lambda_powertools.utilities.data_classes import APIGatewayProxyEvent
from aws_lambda_powertools.utilities.typing import LambdaContext

from idempotency.body import Body
from idempotency.errors import NotStorable, Problem, Retry, as_problem
from idempotency.event import as_rest, check, door_of, principal, readable
from idempotency.lifecycle import Lifecycle, Reply
from idempotency.operation import Attempt, Invocation, Operation
from idempotency.policy import Policy
from idempotency.prefer import Preferences
from idempotency.progress import status
from idempotency.record import Record
from idempotency.request import Request, StoredEvent, header_values, matched_path, parse_key
from idempotency.response import Verdict
from idempotency.telemetry import Outcome, Telemetry

B = TypeVar("B", bound=Body | bytes)
P = ParamSpec("P")
Result = Response[Any] | Mapping[str, Any] | list[Any] | tuple[Mapping[str, Any], int]
"""What a route may return; like Powertools, JSON alone is a 200."""
Route = Callable[P, Response[Any]]

_RECORD_ID = r"[0-9a-f]{64}:[0-9]{1,4}"


class DeclarationError(TypeError):
    """A route is declared wrongly; the message says what it must look like."""


class Declaration(NamedTuple):
    """What a route is declared with: its choices, what its body is read as (a `Body`, or ``bytes``), its function."""

    choice: Policy | Callable[[], Policy]
    body: type[Any]
    business: Callable[..., Any]

    @property
    def policy(self) -> Policy:
        """The route's choices, as the configuration has them."""
        return self.choice if isinstance(self.choice, Policy) else self.choice()


class Resumed(StoredEvent):
    """The event by which recovery sends a stored request through its route.

    Args:
        record: the record as recovery found it.

    Attributes:
        record_id: the record's id.
        reached: whether a route took the event up.
        outcome: how the attempt ended; None while it has not, or if there was nothing to do any more.
    """

    def __init__(self, record: Record) -> None:
        super().__init__(Request.unpack(record.request or b""))
        self.record_id = record.id
        self.reached = False
        self.outcome: Outcome | None = None


class Idempotent:
    """Makes routes run once for each Idempotency-Key; also answers every error of the application as a problem.

        idempotent = Idempotent(app, telemetry, lambda: Lifecycle.from_environment(dynamodb, telemetry, sqs))

        @app.post("/v1/servers/provision")
        @idempotent(Policy(recoverable=True))
        def provision_server(server: ServerRequest, operation: Operation) -> Completion: ...

    The annotation of the first parameter says what the JSON body is read as: a `Body`, or `bytes` for a route that
    reads its own; what is JSON comes written in one way, since all spellings of it are one request. Path parameters
    follow the operation. Whatever is wrong with a request is found before its key is
    claimed, so that no mistake uses a key up.

    Args:
        app: the resolver of the routes. The exception handlers that it gets for other classes than `Exception`, or
            later for that one, decide how their exceptions are answered.
        telemetry: where unexpected errors are logged.
        make_lifecycle: makes the lifecycle; called at `start` or at the first request, not at import.

    Attributes:
        declared: each decorated route, and what it was declared with.
    """

    def __init__(self, app: ApiGatewayResolver, telemetry: Telemetry, make_lifecycle: Callable[[], Lifecycle]) -> None:
        try:
            self._door = door_of(app)
        except TypeError as error:
            raise DeclarationError(str(error)) from None
        self._app = app
        self._telemetry = telemetry
        self._make_lifecycle = make_lifecycle
        self.declared: dict[Callable[..., Any], Declaration] = {}
        app.exception_handler([Exception, NotFoundError])(self._show_problem)

    @cached_property
    def lifecycle(self) -> Lifecycle:
        """The lifecycle of every route's keys.

        Raises:
            SettingsError: if the stack's settings contradict each other, or a route's policy.
            DeclarationError: if a route takes an operation, and was not decorated.
        """
        self.check_routes()
        lifecycle = self._make_lifecycle()
        for declaration in self.declared.values():
            lifecycle.settings.check(declaration.policy)
        return lifecycle

    def start(self) -> None:
        """Make what the first request needs, and refuse what contradicts itself: for the function's own start.

        Raises:
            SettingsError, DeclarationError: see `lifecycle`.
        """
        _ = self.lifecycle

    def check_routes(self) -> None:
        """See that every route that takes an operation is decorated.

        Raises:
            DeclarationError: if one is not, or the decorators are in the wrong order.
        """
        for route in (*self._app._static_routes, *self._app._dynamic_routes):
            annotated = {each.annotation for each in inspect.signature(route.func).parameters.values()}
            if annotated & {Operation, "Operation"}:  # the decorator leaves only the path's parameters
                raise DeclarationError(
                    f"{route.func.__name__} takes an operation: write @idempotent(…) directly above it, and below "
                    f"the resolver's decorator of {route.method} {route.path}"
                )

    def prime(self) -> None:
        """Make what the first request to each route needs: before a snapshot, after which nothing may take long."""
        for declaration in self.declared.values():
            if issubclass(declaration.body, Body):
                declaration.body.prime()

    def __call__(
        self, policy: Policy | Callable[[], Policy]
    ) -> Callable[[Callable[Concatenate[B, Operation, P], Result]], Route[P]]:
        """Decorate a route, under the resolver's own decorator.

        Args:
            policy: the route's choices; or, if they depend on configuration, a function that makes them.

        Raises:
            DeclarationError: if the function does not look like ``(body, operation, **path_parameters)``.
        """

        def decorate(business: Callable[Concatenate[B, Operation, P], Result]) -> Route[P]:
            declaration = Declaration(policy, _body_class(business), business)

            def route(*args: P.args, **path: P.kwargs) -> Response[Any]:
                return self._answer(
                    declaration.policy,
                    declaration.body,
                    lambda body, operation: business(body, operation, *args, **path),
                )

            _name_after(business, route)
            self.declared[route] = declaration
            return route

        return decorate

    def resume(self, id_: str, context: LambdaContext) -> Outcome | None:
        """Carry an abandoned operation on, through its own route and under that route's policy: for recovery.

        What keeps this version from running it (a route that is gone, a request that it cannot read) is written into
        the record as the reason why it is released, or parked in the end.

        Args:
            id_: the record's id.
            context: the context of recovery's own invocation.

        Returns:
            How the attempt ended; None if there is nothing to do any more.
        """
        self._telemetry.begin()
        record = self.lifecycle.store.get(id_)
        if record is None or record.request is None:
            return None
        self.lifecycle.wait_until_due(record)
        try:
            event = Resumed(record)
        except Exception as error:  # noqa: BLE001 - written by another version, in a form that this one may not know
            return self.lifecycle.give_back(id_, f"This version cannot read the stored request: {error!r}")
        reply = self._app.resolve(readable(event, self._door), context)
        if not event.reached:
            request = f"{event['httpMethod']} {event['path']}"
            return self.lifecycle.give_back(
                id_, f"This version has no idempotent route for {request}: HTTP {reply['statusCode']}"
            )
        return event.outcome

    def sweep(self, context: LambdaContext) -> int:
        """Send each operation that is due to the queue: for recovery's schedule.

        Args:
            context: the context of the invocation; what it has no time for, the next one finds.

        Returns:
            How many operations it sent.
        """
        return self.lifecycle.sweep(self.lifecycle.clock.now() + context.get_remaining_time_in_millis())

    def work(self, event: Mapping[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
        """Carry on the operations that messages of the queue name: for recovery's worker, see `resume`.

        Args:
            event: the event of an SQS event source.
            context: the context of the invocation.

        Returns:
            The messages that the queue keeps for later (`ReportBatchItemFailures`).
        """
        failed = []
        for message in event["Records"]:
            try:
                outcome = self.resume(message["body"], context)
            except Exception as error:  # noqa: BLE001 - DynamoDB, or a record that this version cannot read
                self._telemetry.error(error)
                failed.append({"itemIdentifier": message["messageId"]})
            else:
                self._telemetry.recovered(message["body"], outcome)
        return {"batchItemFailures": failed}

    def status(self, id_: str) -> Response[Any]:
        """Show the client of the current request how far one of its operations has come: 1 read.

        For the application's own ``GET /v1/operations/{id}``, where a 202 leads.

        Args:
            id_: the record's id, as the client sent it.

        Raises:
            NotFoundError: if there is none, or it is another's: which of the two, nobody is told.
        """
        who, now = principal(self._app.current_event), self.lifecycle.clock.now()
        record = self.lifecycle.store.get(id_) if re.fullmatch(_RECORD_ID, id_) else None
        if record is None or record.expired(now) or not who or record.principal != who:
            raise NotFoundError(f"There is no operation {id_}.")
        return status(record, now).response()

    def resolve(self, event: dict[str, Any], context: LambdaContext) -> dict[str, Any]:
        """Answer an event; one of a REST API by the route that the gateway matched, whatever its path looks like.

        Raises:
            DeclarationError: if the event is not of the kind that the resolver is for.
        """
        try:
            check(event, self._door)
        except TypeError as error:
            raise DeclarationError(str(error)) from None
        return self._app.resolve({**event, "path": matched_path(event)} if "resource" in event else event, context)

    def _answer(self, policy: Policy, body_class: type[Any], run: Callable[[Any, Operation], Result]) -> Response[Any]:
        event = as_rest(self._app.current_event, self._app.context["_route"].path)
        stored = event.raw_event if isinstance(event.raw_event, Resumed) else None
        request = stored.request if stored else Request.from_event(event)
        if not stored and not request.principal and not policy.anonymous:
            raise Problem("unauthorized", "The gateway has authenticated nobody.")
        deadline = self.lifecycle.clock.now() + self._app.lambda_context.get_remaining_time_in_millis()

        def invocation(read: Callable[[], Any]) -> Invocation:
            def execute(attempt: Attempt) -> Verdict:
                with self._seen_as_stored(request) if policy.recoverable else nullcontext():
                    result = run(read(), attempt)
                return Verdict.of(_as_response(result), policy, self._app._serializer)

            return Invocation(request, policy, deadline, execute, self._show, self._app._serializer, held=not stored)

        if stored:
            self._resume(stored, invocation(lambda: _read_again(body_class, request, policy)))
            return Response(HTTPStatus.NO_CONTENT)  # for nobody: recovery looks at the event
        preferences = Preferences.of(header_values(event, "prefer"))
        try:
            key = self._key(event, policy)
            if remembered := self.lifecycle.remembered(request, key):
                return _render(remembered, policy, preferences)
            body = _read_body(body_class, request, policy)
            request = request.normal
        except Problem as problem:
            reply = self._completed_before(event, request, problem)
        else:
            reply = self._begin(invocation(lambda: body), key, preferences)
        return _render(reply, policy, preferences)

    def _begin(self, invocation: Invocation, key: str, preferences: Preferences) -> Reply:
        policy = invocation.policy
        if policy.responds_async(asked=preferences.respond_async):
            return self.lifecycle.accept(invocation, key, preferences.wait or 0)
        return self.lifecycle.run(
            invocation, key, policy.wait_by_default if preferences.wait is None else preferences.wait
        )

    def _resume(self, event: Resumed, invocation: Invocation) -> None:
        event.reached = True
        record = self.lifecycle.resume(event.record_id, invocation.policy, invocation.deadline)
        if record is not None:
            event.outcome = self.lifecycle.perform(record, invocation).outcome

    @contextmanager
    def _seen_as_stored(self, request: Request) -> Iterator[None]:
        """Show business logic only what recovery will have of the request, in the client's own attempt already."""
        whole, BaseRouter.current_event = (
            BaseRouter.current_event,
            self._app._to_proxy_event(readable(StoredEvent(request), self._door)),
        )
        try:
            yield
        finally:
            BaseRouter.current_event = whole

    def _completed_before(self, event: APIGatewayProxyEvent, request: Request, problem: Problem) -> Reply:
        """Look a request up that this version of the code refuses: an earlier one may have accepted it."""
        try:
            key = parse_key(header_values(event, "idempotency-key"))
        except Problem:  # what is no key, no version has accepted
            raise problem from None
        reply = self.lifecycle.look_up(request, key) if key else None
        if reply is None:
            raise problem
        return reply

    def _key(self, event: APIGatewayProxyEvent, policy: Policy) -> str:
        key_format = policy.key_format or self.lifecycle.settings.key_format
        key = parse_key(header_values(event, "idempotency-key"), key_format)
        if key is None and policy.key_required:
            raise Problem("key-missing", "Send an Idempotency-Key of your own with each new request; a UUID, say.")
        # Without a key, the operation still has its steps and its recovery; only no retry ever finds it.
        return key or str(uuid4())

    def _show(self, error: Exception) -> Response[Any]:
        """Answer an exception as the application's own handlers do."""
        handler = self._app.exception_handler_manager.lookup_exception_handler(type(error)) or self._show_problem
        try:
            response = handler(error)
        except ServiceError as other:  # Powertools answers with that one instead
            return self._show_problem(other)
        except Exception as mistake:  # noqa: BLE001 - it must not leave the key claimed
            self._telemetry.error(mistake)
            return self._show_problem(error)
        if isinstance(response, Response) and isinstance(response.status_code, int):
            return response
        self._telemetry.error(
            DeclarationError(f"the handler of {type(error).__name__} must return a Response, not {response!r}")
        )
        return self._show_problem(error)

    def _show_problem(self, error: Exception) -> Response[str]:
        problem = as_problem(error)
        if problem.slug == "internal-error" or isinstance(error, NotStorable):
            self._telemetry.error(error)
        return problem.response()


def _body_class(business: Callable[..., Any]) -> type[Any]:
    """What the first parameter is annotated with, if the function looks as it must."""
    name = getattr(business, "__qualname__", repr(business))
    parameters = list(inspect.signature(business).parameters.values())[:2]
    # Only these two: other annotations may name what is imported for type checkers alone.
    annotated = SimpleNamespace(__annotations__={each.name: each.annotation for each in parameters})
    hints = list(get_type_hints(annotated, getattr(business, "__globals__", None)).values())
    if len(hints) < 2 or hints[1] is not Operation:
        raise DeclarationError(f"{name} must take a body and an operation first: (body: …, operation: Operation, …)")
    body_class = hints[0]
    if body_class is not bytes and not (isinstance(body_class, type) and issubclass(body_class, Body)):
        raise DeclarationError(f"the body of {name} must be a subclass of Body, or bytes, not {body_class!r}")
    return cast("type[Any]", body_class)


def _name_after(business: Callable[..., Any], route: Callable[P, Response[Any]]) -> None:
    """Give a route its function's name and its path parameters, but not its body and operation: Powertools looks."""
    update_wrapper(route, business)
    del route.__wrapped__  # type: ignore[attr-defined]  # set by update_wrapper
    signature = inspect.signature(business)
    route.__signature__ = signature.replace(parameters=list(signature.parameters.values())[2:])  # type: ignore[attr-defined]


def _read_body(body_class: type[Any], request: Request, policy: Policy) -> Any:
    if len(request.body) > policy.max_body:
        raise Problem("body-too-large", f"A body has at most {policy.max_body} bytes here.")
    if body_class is bytes:
        return request.normal.body
    if not request.is_json:
        raise Problem("unsupported-media-type", "Send Content-Type: application/json.")
    return body_class.read(request.json)


def _read_again(body_class: type[Any], request: Request, policy: Policy) -> Any:
    """Read a stored body, which an earlier version of this code has found good."""
    try:
        return _read_body(body_class, request, policy)
    except Problem as problem:
        raise Retry(f"This version refuses the stored request: {problem.detail} {problem.extensions or ''}") from None


def _as_response(result: Result) -> Response[Any]:
    match result:
        case Response():
            return result
        case None:
            raise DeclarationError("the route returned nothing; return a Completion, a Response or JSON")
        case (body, int(status)) if isinstance(result, tuple):
            return Response(status, "application/json", body)
    return Response(HTTPStatus.OK, "application/json", result)


def _render(reply: Reply, policy: Policy, preferences: Preferences) -> Response[Any]:
    response = reply.response.response()
    if reply.unkept:
        # Only the first answer carries what is not kept, such as cookies.
        own = {name.lower() for name in response.headers} | policy.keep_headers
        response.headers |= {name: value for name, value in reply.unkept.headers.items() if name.lower() not in own}
        response.cookies = reply.unkept.cookies
    if reply.replayed:
        response.headers["Idempotent-Replayed"] = "true"
    if applied := preferences.applied(waited=reply.waited > 0, responded_async=reply.outcome is Outcome.ACCEPTED):
        response.headers["Preference-Applied"] = applied
    return response
