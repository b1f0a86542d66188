"""The promises hold for any business code: what it may do between steps, catch, raise, and leave behind."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from datetime import UTC, datetime
from decimal import Decimal
from io import StringIO
from itertools import count
from random import Random
from typing import TYPE_CHECKING, Any, cast

import pytest
from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.event_handler import APIGatewayRestResolver, Response
from aws_lambda_powertools.event_handler.exceptions import NotFoundError, ServiceError

from idempotency import Completion, Operation, Outcome, Rejected, Retry, Row
from idempotency.record import PARKED_UNTIL
from idempotency.telemetry import Telemetry
from tests.clocks import SetClock
from tests.crashes import Killed
from tests.messages import MAX_RECOVERIES
from tests.sample import LONGEST_PAUSE
from tests.unit.route import Route, Run
from tests.unit.service import scan
from tools.local.client import Answer

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

pytestmark = pytest.mark.thorough

LEASE_SECONDS = 30
NO = Rejected("refused", "No.", status=409)


class Declined(Exception):
    """An error of the business logic's own, which knows nothing of HTTP."""


class World:
    """The route, and what its operation has done and undone elsewhere."""

    def __init__(self, dynamodb: DynamoDBClient, clock: SetClock) -> None:
        self.done: list[str] = []
        self.undone: list[str] = []
        self.clock = clock
        self._dynamodb = dynamodb
        self.things: Route

    def route(self, run: Run, **choices: Any) -> Route:
        """Put an operation behind a route."""
        self.things = Route(self._dynamodb, self.clock, run, **choices)
        return self.things

    def do(
        self, name: str, then: BaseException | Iterator[BaseException | None] | None = None, result: Any = None
    ) -> Callable[[str], Any]:
        """What a step calls: it acts; then it raises what it is told to, or that which is next, call by call."""

        def call(_: str) -> Any:
            self.done.append(name)
            error = next(then) if isinstance(then, Iterator) else then
            if error is not None:
                raise error
            return result

        return call

    def undo(self, name: str) -> Callable[[Any], object]:
        """What undoes a step, given its result."""
        return lambda _: self.undone.append(name)

    def undo_without_result(self, name: str) -> Callable[[], object]:
        """What undoes a step, whatever its result was."""
        return lambda: self.undone.append(name)

    def crash(self) -> None:
        """Attempt it, be killed, and let the lease lapse."""
        with pytest.raises(Killed):
            self.things.post()
        self.clock.advance(LEASE_SECONDS + 0.001)

    def attempts(self, number: int) -> Answer:
        """Attempt it this many times, each time after the lease of the one before; returns the last answer."""
        for _ in range(number - 1):
            with suppress(Killed):
                self.things.post()
            self.clock.advance(LEASE_SECONDS + 0.001)
        answer = self.things.post()
        self.clock.advance(LEASE_SECONDS + 0.001)
        return answer

    @property
    def record(self) -> dict[str, Any]:
        """The only record."""
        [record] = scan(self._dynamodb, "IdempotencyTable")
        return record

    @property
    def rows(self) -> list[dict[str, Any]]:
        """The business rows."""
        return scan(self._dynamodb, "ResourcesTable")

    @property
    def doubts(self) -> list[str]:
        """What an operator was told."""
        told = self.things.telemetry.doubts
        return list(told)


@pytest.fixture
def world(dynamodb: DynamoDBClient, clock: SetClock) -> World:
    return World(dynamodb, clock)


def refuse_by_raising() -> Response[Any] | None:
    raise NO


def refuse_with_powertools() -> Response[Any] | None:
    raise NotFoundError("No.")


def refuse_by_returning() -> Response[Any] | None:
    return Completion(409, {})


REFUSALS = [refuse_by_raising, refuse_with_powertools, refuse_by_returning]


class TestRefusedAheadOfAStepThatIsDone:
    """A check that is no step refuses in an attempt after the one in which it let the operation pass."""

    @pytest.fixture(params=["step", "reservation"])
    def begin(self, world: World, request: pytest.FixtureRequest) -> Callable[[Operation], object]:
        """The step that is done before the crash."""
        if request.param == "step":
            return lambda operation: operation.step("page", world.do("page"), undo=world.undo("page"))
        return lambda operation: operation.reserve("page", Row("ResourcesTable", {"id": "page"}))

    @staticmethod
    def checked(
        begin: Callable[[Operation], object], refuse: Callable[[], Response[Any] | None], refused: set[int]
    ) -> Run:
        """An operation that is killed in its first attempt, and that a check refuses in those that are told."""

        def run(operation: Operation) -> Response[Any]:
            if operation.attempt in refused and (response := refuse()):
                return response
            begin(operation)
            if operation.attempt == 1:
                raise Killed
            return Completion(201, {})

        return run

    @pytest.mark.parametrize("refuse", REFUSALS)
    def test_is_not_final_but_released_and_told_and_may_still_succeed(
        self, world: World, begin: Callable[[Operation], object], refuse: Callable[[], Response[Any] | None]
    ) -> None:
        world.route(self.checked(begin, refuse, refused={2}))
        world.crash()

        refused = world.attempts(1)

        assert (refused.status, refused.problem) == (503, "unavailable")
        assert (world.record["status"], "failure" in world.record) == ("RELEASED", False)
        assert "before it reached page" in world.record["last_error"]
        assert "409" in world.record["last_error"] or "No." in world.record["last_error"]
        assert world.doubts == ["step 'page' was begun, and no attempt that failed has reached it since"]

        answer = world.attempts(1)
        assert (answer.status, world.undone) == (201, [])
        assert len(world.done) + len(world.rows) == 1

    @pytest.mark.parametrize("refuse", REFUSALS)
    def test_is_parked_in_the_end(
        self, world: World, begin: Callable[[Operation], object], refuse: Callable[[], Response[Any] | None]
    ) -> None:
        things = world.route(self.checked(begin, refuse, refused={*range(2, 20)}), recoverable=True)
        world.crash()

        outcomes = []
        for _ in range(MAX_RECOVERIES):
            outcomes += things.recover()
            world.clock.advance(LONGEST_PAUSE)

        assert outcomes == [Outcome.RELEASED] * (MAX_RECOVERIES - 1) + [Outcome.PARKED]
        assert (world.record["lease_until"], "failure" in world.record) == (PARKED_UNTIL, False)
        assert "before it reached page" in world.record["last_error"]

    def test_is_final_if_nothing_was_begun(self, world: World) -> None:
        world.route(self.checked(lambda _: None, refuse_by_raising, refused={1}))

        answer = world.attempts(1)

        assert (answer.status, world.doubts) == (409, [])

    def test_is_told_even_if_the_step_was_cut_off(self, world: World) -> None:
        # Given an attempt that was killed in the middle of a step, of which no record tells
        def run(operation: Operation) -> Response[Any]:
            if operation.attempt == 2:
                raise NO
            operation.step("page", world.do("page", then=Killed()), undo=world.undo("page"))
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(2)

        assert answer.status == 409
        assert world.doubts == ["an earlier attempt was cut off, perhaps in a step that this one did not reach"]

    @pytest.mark.parametrize("caused", [True, False], ids=["as its cause", "while handling it"])
    def test_is_none_if_it_is_what_a_refusal_was_turned_into(self, world: World, caused: bool) -> None:
        other = Rejected("other", "Neither.", status=409)

        def run(operation: Operation) -> Response[Any]:
            if operation.attempt == 1:
                raise Killed
            try:
                operation.step("page", world.do("page", then=NO))
            except Rejected as refusal:
                if not caused:
                    raise other  # noqa: B904 - that is the case
                no = refusal
            raise other from no

        world.route(run)
        answer = world.attempts(2)

        assert (answer.problem, world.doubts) == ("other", [])


class TestUndo:
    def test_goes_on_where_an_earlier_attempt_left_off(self, world: World) -> None:
        failures = iter([Retry("not now"), None])

        def undo(_: Any) -> None:
            world.undone.append("page")
            if error := next(failures):
                raise error

        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page"), undo=undo)
            operation.step("route", world.do("route"), undo=world.undo("route"))
            raise NO

        world.route(run)

        assert [world.attempts(1).status for _ in range(2)] == [503, 409]
        assert world.undone == ["route", "page", "page"]

    @pytest.mark.parametrize(
        ("error", "logged"),
        [(ValueError("broken"), ["Cannot undo step 'page': ValueError('broken')"]), (Retry("not now"), [])],
    )
    def test_that_fails_is_logged_unless_it_asks_for_a_retry(
        self, world: World, error: Exception, logged: list[str]
    ) -> None:
        def undo(_: Any) -> None:
            raise error

        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page"), undo=undo)
            raise NO

        things = world.route(run)

        assert world.attempts(1).status == 503
        assert [str(each) for each in things.telemetry.errors] == logged


class TestFallback:
    """A step is refused, and another one is done in its place."""

    @staticmethod
    def run(world: World, primary: Iterator[BaseException | None], dies: str = "") -> Run:
        """An operation with a fallback.

        Args:
            world: the world.
            primary: what the first choice raises, call by call.
            dies: where its first attempt is killed.
        """

        def run(operation: Operation) -> Response[Any]:
            killed = Killed() if operation.attempt == 1 else None
            try:
                operation.step("primary", world.do("primary", then=primary), undo=world.undo("primary"))
                how = "primary"
            except (Rejected, ConnectionError):
                then = killed if dies == "in the fallback" else None
                operation.step("fallback", world.do("fallback", then=then), undo=world.undo("fallback"))
                how = "fallback"
            if killed and dies == "after it":
                raise killed
            return Completion(201, {"how": how})

        return run

    @staticmethod
    def once(error: BaseException) -> Iterator[BaseException | None]:
        """Refuses at first; the second attempt would succeed."""
        return iter([error, None, None, None])

    def test_is_undone_whatever_its_first_choice_would_come_to_by_then(self, world: World) -> None:
        # Given an operation that fails for good after its fallback, whose undoing fails once
        undoing = iter([Retry("later"), None])

        def undo(_: Any) -> None:
            if (error := next(undoing)) is not None:
                raise error
            world.undone.append("fallback")

        primary = self.once(Rejected("full", "No room.", status=409))

        def run(operation: Operation) -> Response[Any]:
            with suppress(Rejected):
                operation.step("primary", world.do("primary", then=primary))
                return Completion(201, {})
            operation.step("fallback", world.do("fallback"), undo=undo)
            operation.step("last", world.do("last", then=NO))
            return Completion(201, {})

        world.route(run)
        first, second = world.attempts(1), world.attempts(1)

        assert (first.status, second.status) == (503, 409)
        assert (world.done, world.undone) == (["primary", "fallback", "last"], ["fallback"])

    @pytest.mark.parametrize("dies", ["in the fallback", "after it"])
    def test_is_taken_again_by_every_attempt(self, world: World, dies: str) -> None:
        refusal = Rejected("full", "No room.", status=409)
        world.route(self.run(world, self.once(refusal), dies))

        answer = world.attempts(2)

        assert (answer.status, answer.json) == (201, {"how": "fallback"})
        assert world.done.count("primary") == 1
        assert world.doubts == []

    def test_is_taken_again_whatever_class_of_refusal_it_is(self, world: World) -> None:
        class Full(Rejected):
            """A refusal of the business logic's own."""

        def run(operation: Operation) -> Response[Any]:
            caught = []
            try:
                operation.step(
                    "primary", world.do("primary", then=Full("full", "é" * 9_999, status=409, free=Decimal(3)))
                )
            except Rejected as refusal:
                caught.append((type(refusal), refusal.slug, refusal.detail, refusal.status, refusal.extensions))
            seen.extend(caught)
            operation.step("fallback", world.do("fallback"))
            if operation.attempt == 1:
                raise Killed
            return Completion(201, {})

        seen: list[Any] = []
        world.route(run)
        world.attempts(2)

        assert len(seen) == 2
        assert seen[0] == seen[1]

    @pytest.mark.parametrize("dies", ["", "in the fallback", "after it"])
    def test_of_what_nobody_knows_never_leaves_both_in_silence(self, world: World, dies: str) -> None:
        # Given a first choice that acts, and whose answer is lost; the code goes on all the same
        world.route(self.run(world, self.once(ConnectionError()), dies))

        answer = world.attempts(2 if dies else 1)

        # Then both have had their effects, and an operator is told of that which does not count
        assert answer.status == 201
        assert {*world.done} == {"primary", "fallback"}
        [doubt] = world.doubts
        other = {"primary": "fallback", "fallback": "primary"}[answer.json["how"]]
        assert doubt == f"step '{other}' may have been done, but is no part of what was completed"

    def test_of_what_was_done_before_it_was_refused_is_told_however_many_attempts_later(self, world: World) -> None:
        # Given a first choice that was cut off after it had acted, and is refused in the next attempt, which dies too
        effects = [Killed(), Rejected("full", "No room.", status=409), None]

        def run(operation: Operation) -> Response[Any]:
            with suppress(Rejected):
                operation.step("primary", world.do("primary", then=effects[operation.attempt - 1]))
            operation.step("fallback", world.do("fallback"))
            if operation.attempt == 2:
                raise Killed
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(3)

        assert answer.status == 201
        assert world.doubts == ["step 'primary' may have been done, but is no part of what was completed"]

    def test_costs_nothing_more_in_an_attempt_in_which_nothing_failed(self, world: World) -> None:
        world.route(self.run(world, iter([None])))

        answer = world.attempts(1)

        assert answer.json == {"how": "primary"}
        assert "refused" not in world.record


class TestPossiblyDone:
    """A step acts, and its answer is lost; the next attempt is refused for good."""

    LOST = (ConnectionError("reset"), Killed(), Retry("later"))

    @staticmethod
    def run(world: World, lost: BaseException, undo: Any) -> Run:
        outcomes: list[BaseException] = [lost, NO]

        def run(operation: Operation) -> Response[Any]:
            operation.step("before", world.do("before"), undo=world.undo("before"))
            operation.step("page", world.do("page", then=outcomes[operation.attempt - 1]), undo=undo)
            return Completion(201, {})

        return run

    @pytest.mark.parametrize("lost", LOST, ids=lambda lost: type(lost).__name__)
    def test_is_undone_if_it_can_be_without_its_result(self, world: World, lost: BaseException) -> None:
        world.route(self.run(world, lost, undo=world.undo_without_result("page")))

        answer = world.attempts(2)

        assert (answer.status, world.undone, world.doubts) == (409, ["page", "before"], [])

    @pytest.mark.parametrize("lost", LOST, ids=lambda lost: type(lost).__name__)
    def test_is_told_if_it_cannot(self, world: World, lost: BaseException) -> None:
        world.route(self.run(world, lost, undo=world.undo("page")))

        answer = world.attempts(2)

        assert (answer.status, world.undone) == (409, ["before"])
        assert world.doubts == ["step 'page' may have been done, and cannot be undone without its result"]

    @pytest.mark.parametrize("lost", LOST, ids=lambda lost: type(lost).__name__)
    def test_is_no_matter_if_there_is_nothing_to_undo(self, world: World, lost: BaseException) -> None:
        world.route(self.run(world, lost, undo=None))

        answer = world.attempts(2)

        assert (answer.status, world.undone, world.doubts) == (409, ["before"], [])

    def test_is_undone_and_told_by_recovery_too(self, world: World) -> None:
        things = world.route(self.run(world, Killed(), undo=world.undo("page")), recoverable=True)
        world.crash()

        assert things.recover() == [Outcome.EXECUTED]

        assert world.undone == ["before"]
        assert len(world.doubts) == 1

    def test_is_told_once_however_often_the_undoing_fails(self, world: World) -> None:
        failures = iter([Retry("later"), Killed(), Retry("later")])

        def undo_before(_: Any) -> None:
            if error := next(failures, None):
                raise error

        def run(operation: Operation) -> Response[Any]:
            operation.step("before", world.do("before"), undo=undo_before)
            operation.step(
                "page",
                world.do("page", then=ConnectionError() if operation.attempt == 1 else NO),
                undo=world.undo("page"),
            )
            operation.step("never", world.do("never"), undo=world.undo("never"))
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(5)

        assert (answer.status, world.done.count("page"), world.undone) == (409, 2, [])
        assert world.doubts == ["step 'page' may have been done, and cannot be undone without its result"]

    def test_is_not_what_was_refused_at_once(self, world: World) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page", then=NO), undo=world.undo_without_result("page"))
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(1)

        assert (answer.status, world.undone, world.doubts) == (409, [], [])

    @pytest.mark.parametrize("caught", [ConnectionError(), TimeoutError(), RuntimeError()])
    def test_is_what_the_code_makes_a_refusal_of_only_afterwards(self, world: World, caught: Exception) -> None:
        def run(operation: Operation) -> Response[Any]:
            try:
                operation.step("page", world.do("page", then=caught), undo=world.undo_without_result("page"))
            except type(caught) as error:
                raise NO from error
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(1)

        assert (answer.status, world.undone) == (409, ["page"])

    @pytest.mark.parametrize(
        "result", [object(), "x" * 16_000, float("nan"), {1, 2}], ids=["object", "16 KB", "NaN", "set"]
    )
    def test_is_a_step_whose_result_cannot_be_kept(self, world: World, result: Any) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page", result=result), undo=world.undo_without_result("page"))
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(2)

        assert (answer.status, answer.problem, answer.replayed) == (500, "response-not-stored", True)
        assert (world.done, world.undone) == (["page"], ["page"])

    def test_is_told_of_a_step_whose_result_cannot_be_kept(self, world: World) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page", result=object()), undo=world.undo("page"))
            return Completion(201, {})

        world.route(run)
        world.attempts(1)

        assert world.doubts == ["step 'page' may have been done, and cannot be undone without its result"]

    def test_is_told_at_once_by_a_metric_and_a_line_in_the_log(
        self, world: World, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        # Given an attempt that dies before it has decided anything
        log = StringIO()
        things = world.route(self.run(world, ConnectionError(), undo=world.undo("page")))
        world.attempts(1)
        monkeypatch.setattr(things.lifecycle, "_telemetry", Telemetry(Metrics(), Logger(service="doubts", stream=log)))
        monkeypatch.setattr(things.lifecycle.store, "fail", lambda *_: (_ for _ in ()).throw(Killed()))

        world.crash()

        blobs = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
        assert [blob["InDoubt"] for blob in blobs if "InDoubt" in blob] == [[1.0]]
        [line] = [json.loads(line) for line in log.getvalue().splitlines()]
        assert (line["level"], line["operation_id"]) == ("ERROR", world.record["operation_id"])
        assert line["doubt"] == "step 'page' may have been done, and cannot be undone without its result"


CIRCULAR: list[Any] = []
CIRCULAR.append(CIRCULAR)


class TestFailureThatCannotBeWritten:
    @staticmethod
    def failing(world: World, error: Exception, undo: Callable[[Any], object] | None = None) -> Run:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page"), undo=undo or world.undo("page"))
            raise error

        return run

    @pytest.mark.parametrize(
        "value",
        [
            float("nan"),
            float("inf"),
            object(),
            {1},
            b"x",
            datetime.now(UTC),
            {"at": [object()]},
            {(1, 2): 3},
            CIRCULAR,
            Decimal("NaN"),
        ],
        ids=[
            "NaN",
            "infinity",
            "object",
            "set",
            "bytes",
            "datetime",
            "nested",
            "tuple as name",
            "circular",
            "decimal NaN",
        ],
    )
    def test_ends_with_its_status_without_what_cannot_be_written(self, world: World, value: Any) -> None:
        world.route(
            self.failing(world, Rejected("refused", "No.", status=422, value=value, price=Decimal("1.50"), n=1))
        )

        first, second = world.attempts(1), world.attempts(1)

        assert (first.status, first.problem, first.json["detail"]) == (422, "refused", "No.")
        assert ("value" in first.json, first.json["price"], first.json["n"]) == (False, "1.50", 1)
        assert (second.replayed, second.body) == (True, first.body)
        assert world.undone == ["page"]

    @pytest.mark.parametrize("value", [object(), Decimal("1.5"), float("nan")])
    def test_by_a_step_is_the_same_in_each_attempt(self, world: World, value: Any) -> None:
        # Given a refusal by a step, after which an undo fails once
        failures = iter([Retry("later")])

        def undo(_: Any) -> None:
            if error := next(failures, None):
                raise error
            world.undone.append("page")

        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page"), undo=undo)
            operation.step("last", world.do("last", then=Rejected("refused", "No.", status=422, value=value)))
            return Completion(201, {})

        world.route(run)
        answer = world.attempts(2)

        assert (answer.status, answer.problem, world.undone) == (422, "refused", ["page"])

    @pytest.mark.parametrize(
        ("status", "problem"), [(499, "status-499"), (418, "i'm-a-teapot"), (451, "unavailable-for-legal-reasons")]
    )
    def test_has_any_4xx_that_an_application_chooses(self, world: World, status: int, problem: str) -> None:
        world.route(self.failing(world, ServiceError(status, "No.")))

        answer = world.attempts(2)

        assert (answer.status, answer.problem, answer.replayed) == (status, problem, True)
        assert world.undone == ["page"]

    @pytest.mark.parametrize("status", [500, 503, 529, 599])
    def test_is_none_if_an_application_chooses_any_5xx(self, world: World, status: int) -> None:
        world.route(self.failing(world, ServiceError(status, "Not now.")))

        answer = world.attempts(1)

        assert (answer.status, answer.headers["retry-after"]) == (status, ["1"])
        assert (world.record["status"], world.undone) == ("RELEASED", [])

    @pytest.mark.parametrize("body", ["x" * 1_000_000, Random(1).randbytes(500_000).hex()], ids=["one letter", "noise"])
    def test_is_shortened_behind_an_undo(self, world: World, body: str) -> None:
        def run(operation: Operation) -> Response[Any]:
            operation.step("page", world.do("page"), undo=world.undo("page"))
            return Response(413, "text/plain", body)

        world.route(run)
        answer = world.attempts(2)

        assert (answer.status, answer.replayed, world.undone) == (413, True, ["page"])
        if answer.body != body.encode():
            assert (answer.problem, len(body)) == ("response-not-stored", 1_000_000)
            assert body[0] != "x"

    @pytest.mark.parametrize(
        "error",
        [
            RuntimeError("\ud800"),
            RuntimeError("x" * 1_000_000),
            Retry("later", retry_after=10**50),
            Retry("later", retry_after="soon"),  # type: ignore[arg-type]
            Retry("later", retry_after=float("nan")),  # type: ignore[arg-type]
            Retry("later", retry_after=-5),
            Rejected("no", "\ud800", status=404, why=object()),
            RecursionError(),
            MemoryError(),
            StopIteration(),
        ],
        ids=lambda error: f"{type(error).__name__} {error!s:.5}".encode(errors="replace").decode(),
    )
    @pytest.mark.parametrize("where", ["undo", "step"])
    def test_leaves_no_record_claimed(self, world: World, error: Exception, where: str) -> None:
        def run(operation: Operation) -> Response[Any]:
            def undo(_: Any) -> None:
                raise error

            operation.step("page", world.do("page"), undo=undo)
            if where == "step":
                operation.step("last", world.do("last", then=error))
            raise NO

        world.route(run)
        answer = world.attempts(1)

        assert answer.status in {404, 500, 503}
        assert world.record["status"] == "RELEASED"


class TestMappedException:
    """The application says itself what an exception of its own comes to."""

    @pytest.fixture
    def app(self) -> APIGatewayRestResolver:
        return APIGatewayRestResolver(serializer=lambda body: json.dumps({"mine": body}, default=str))

    @pytest.fixture
    def declining(self, world: World, app: APIGatewayRestResolver) -> Callable[..., Route]:
        """A route whose step is declined by a service, once."""

        def make(handler: Callable[[Any], Any], error: Exception | None = None, times: int = 1) -> Route:
            left = count()

            def run(operation: Operation) -> Response[Any]:
                operation.step("page", world.do("page"), undo=world.undo("page"))
                then = (error or Declined("no money")) if next(left) < times else None
                operation.step("pay", world.do("pay", then=then), undo=world.undo("pay"))
                return Completion(201, {})

            things = world.route(run, app=app)
            app.exception_handler(Declined)(handler)
            return things

        return make

    class Worse(Declined):
        """A subclass."""

    @pytest.mark.parametrize("error", [Declined("no money"), Worse("no money")])
    def test_to_a_4xx_is_final_and_stored_and_the_steps_before_are_undone(
        self, world: World, declining: Callable[..., Route], error: Exception
    ) -> None:
        declining(
            lambda error: Response(402, "application/json", {"why": str(error)}, {"Location": "/pay", "X-Trace": "1"}),
            error,
        )

        first, second = world.attempts(1), world.attempts(1)

        assert (first.status, first.json, first.headers["x-trace"]) == (402, {"mine": {"why": "no money"}}, ["1"])
        assert (second.replayed, second.body, second.headers["location"]) == (True, first.body, ["/pay"])
        assert "x-trace" not in second.headers
        assert (world.done, world.undone, world.doubts) == (["page", "pay"], ["page"], [])

    @pytest.mark.parametrize("status", [429, 500, 503])
    def test_to_what_may_succeed_later_is_released(
        self, world: World, declining: Callable[..., Route], status: int
    ) -> None:
        declining(lambda _: Response(status, "text/plain", "not now"))

        first, second, third = (world.attempts(1) for _ in range(3))

        assert (first.status, first.headers["retry-after"]) == (status, ["1"])
        assert (second.status, third.replayed, world.undone) == (201, True, [])

    def test_to_a_success_is_one(self, world: World, declining: Callable[..., Route]) -> None:
        declining(lambda _: Response(200, "text/plain", "there already"))

        answer = world.attempts(2)

        assert (answer.status, answer.replayed, world.undone) == (200, True, [])

    @pytest.mark.parametrize(
        "returned",
        [None, {}, "text", ({}, 402), cast("Any", Response)("402"), 402],
        ids=lambda each: type(each).__name__,
    )
    def test_to_nonsense_is_a_mistake_that_is_told_and_may_be_mended(
        self, world: World, declining: Callable[..., Route], returned: Any
    ) -> None:
        things = declining(lambda _: returned)

        first, second = world.attempts(1), world.attempts(1)

        assert (first.status, first.problem, second.status) == (500, "internal-error", 201)
        assert "must return a Response" in str(things.telemetry.errors[0])

    def test_by_a_handler_that_raises_is_a_mistake_too(self, world: World, declining: Callable[..., Route]) -> None:
        mistake = KeyError("a mistake in the handler")

        def handler(_: Declined) -> Response[Any]:
            raise mistake

        things = declining(handler)
        first, second = world.attempts(1), world.attempts(1)

        assert (first.status, first.problem, second.status) == (500, "internal-error", 201)
        assert things.telemetry.errors[0] is mistake

    def test_by_a_handler_that_raises_an_http_error_is_that(
        self, world: World, declining: Callable[..., Route]
    ) -> None:
        def handler(_: Declined) -> Response[Any]:
            raise ServiceError(402, "No money.")

        declining(handler)
        answer = world.attempts(2)

        assert (answer.status, answer.problem, answer.replayed) == (402, "payment-required", True)

    def test_to_a_body_that_is_not_json_keeps_its_status(self, world: World, declining: Callable[..., Route]) -> None:
        circular: list[Any] = []
        circular.append(circular)
        declining(lambda _: Response(402, "application/json", circular))

        answer = world.attempts(2)

        assert (answer.status, answer.problem, answer.replayed) == (402, "response-not-stored", True)
