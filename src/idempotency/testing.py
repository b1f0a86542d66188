"""For tests of operations: crash everywhere, carry on, and hand over what became of it.

Tests import it; nothing that is deployed does.
"""

import json
import sys
import traceback
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from enum import StrEnum
from math import ceil
from typing import TYPE_CHECKING, Any, NamedTuple, NoReturn
from unittest.mock import patch

from botocore.exceptions import ConnectionClosedError

from idempotency.clock import Clock
from idempotency.lifecycle import Lifecycle
from idempotency.operation import _UNDO, Operation, _nothing
from idempotency.record import PARKED_UNTIL, Record, Status
from idempotency.store import Store

if TYPE_CHECKING:
    from mypy_boto3_dynamodb import DynamoDBClient

__all__ = ["SetClock", "Story", "crash_everywhere"]

Reply = Mapping[str, Any]
"""What a Lambda handler returns to a REST API."""

_REPLAYED = "Idempotent-Replayed"
_READS = frozenset({"BatchGetItem", "GetItem", "Query", "Scan", "TransactGetItems"})
_CALL, _SENT = "before-parameter-build.dynamodb.*", "needs-retry.dynamodb.*"
# Of the SDK's standard retry mode.
_SDK_ATTEMPTS = 3
# One fault costs an attempt or two; what has not ended by then never does.
_MOST_ATTEMPTS = 20


class SetClock(Clock):
    """Stands still until it is moved; a sleep moves it, and takes no time.

    It begins at the real time, since DynamoDB Local deletes what has really expired.

    Attributes:
        time: epoch milliseconds.
    """

    def __init__(self) -> None:
        self.time = super().now() // 1000 * 1000

    def now(self) -> int:
        """The time it was set to."""
        return self.time

    def sleep(self, milliseconds: float) -> None:
        """Move on at once."""
        self.time += ceil(milliseconds)

    def advance(self, seconds: float) -> None:
        """Move on."""
        self.time += round(seconds * 1000)


@dataclass(repr=False)
class Story:
    """What happened to one operation, from the first request to the replay of its answer; as text, its timeline.

    Attributes:
        name: what went wrong, and who carried on.
        answers: what the client got, in order; nothing of an attempt that crashed.
    """

    name: str
    answers: list[Reply] = field(default_factory=list)
    _events: list[tuple[int, str, str]] = field(default_factory=list)

    @property
    def answer(self) -> Reply:
        """The operation's answer: the handler's reply to the last request, a replay."""
        return self.answers[-1]

    @property
    def status(self) -> int:
        """The HTTP status of the operation's answer."""
        return int(self.answer["statusCode"])

    @property
    def json(self) -> Any:
        """The body of the operation's answer, as JSON."""
        return json.loads(self.answer["body"])

    def __repr__(self) -> str:
        return f"<{self.name}>"

    def __str__(self) -> str:
        rows = [f"{milliseconds:>9,}  {who:<11}  {text}" for milliseconds, who, text in self._events]
        return "\n".join([self.name, f"{'ms':>9}", *rows])


def crash_everywhere(
    *,
    post: Callable[[], Reply],
    client: "DynamoDBClient",
    begin: Callable[[], object],
    recover: Callable[[], object] | None = None,
    clock: SetClock | None = None,
) -> Iterator[Story]:
    """Run an operation once for each thing that may go wrong, and hand each story over to be asserted on.

        for story in crash_everywhere(
            post=lambda: api.handler(event, Context()),
            recover=recover,
            client=api.dynamodb,
            begin=empty_the_world,
        ):
            assert story.status == 201
            assert len(feeds) == 1

    The first story is undisturbed. It shows the operation's points: each call of a step or an undo, and each write to
    DynamoDB. In each of the others one thing goes wrong at one point: a crash before it, a crash after it, its answer
    lost, and for a write also its answer lost to the SDK's first attempt alone. Then the client sends its request
    again until the operation has ended; or, as another story, it stays away, and recovery carries on. In the end the
    client asks once more, and must get a replay. Nothing is answered from a warm function's memory.

    Assert inside the loop, while the world is as the story left it: if the loop is left early, as by an assertion that
    fails, the timeline of its story goes to stderr.

    Args:
        post: sends one request, throughout a story the same, with the same key: calls the API's handler.
        client: the client of DynamoDB through which the handlers write.
        begin: empties the world, tables included, and prepares what the operation meets in it; called before each
            story.
        recover: runs recovery once: the sweep's handler, then the worker's with what was sent to the queue; None for an
            operation that recovery does not finish.
        clock: the clock that the handlers are on already, if the test has set one; otherwise all get one that is set.

    Yields:
        Each story, ended.

    Raises:
        AssertionError: if an operation does not end, its replay is another answer than the first, it takes another way
            from run to run, or the arguments are not what they should be; with the timeline of the story.
    """
    with _Stage(post, client, begin, recover, clock or SetClock()).set_up() as stage:
        for story in stage.stories():
            try:
                yield story
            except GeneratorExit:
                # An exception in the loop's body is not shown to the iterator. That nobody wants the next story is.
                sys.stderr.write(f"\n{story}\n")
                raise


class _Fault(StrEnum):
    CRASH_BEFORE = "crash before"
    CRASH_AFTER = "crash after"
    LOST = "answer lost"
    LOST_ONCE = "first answer lost"


class _Point(NamedTuple):
    label: str
    occurrence: int
    fault: _Fault | None = None

    def __str__(self) -> str:
        number = f" ({self.occurrence})" if self.occurrence > 1 else ""
        return f"{self.label}{number} ⚡ {self.fault}"


class _Crash(BaseException):
    """The process was killed."""


@dataclass(eq=False)
class _Stage:
    """Plays stories; its arguments are those of `crash_everywhere`."""

    post: Callable[[], Reply]
    client: "DynamoDBClient"
    begin: Callable[[], object]
    recover: Callable[[], object] | None
    clock: SetClock
    _claimed: tuple[Store, str] | None = None
    _told: int = 0

    @contextmanager
    def set_up(self) -> Iterator["_Stage"]:
        """Put a hook at every point, for the length of a `with` block."""
        events, clock = self.client.meta.events, self.clock

        enter_for_true = Store.enter

        def enter(store: Store, candidate: Record, *args: Any) -> Record:
            self._claimed = store, candidate.id
            return enter_for_true(store, candidate, *args)

        with ExitStack() as stack:
            for owner, name, replacement in (
                (Clock, "now", lambda _: clock.now()),
                (Clock, "sleep", lambda _, milliseconds: clock.sleep(milliseconds)),
                (Lifecycle, "_cached", lambda *_: None),
                (Store, "enter", enter),
                (Operation, "_call", lambda _, name, call: self._call(name, call)),
            ):
                stack.enter_context(patch.object(owner, name, replacement))
            # One hook for each call, and one for each of the SDK's attempts at it, which decides before the SDK does.
            events.register(_CALL, self._before_call)
            stack.callback(events.unregister, _CALL, self._before_call)
            events.register_first(_SENT, self._after_attempt)
            stack.callback(events.unregister, _SENT, self._after_attempt)
            yield self

    def stories(self) -> Iterator[Story]:
        """Every story, each played when it is asked for."""
        for recover in [None, self.recover] if self.recover else [None]:
            yield from self._played("undisturbed", None, recover)
            points = self._points
            for point, faults in points.items():
                for fault in faults:
                    target = point._replace(fault=fault)
                    yield from self._played(str(target), target, recover)
        self._show_progress("")

    def _played(self, what: str, target: _Point | None, recover: Callable[[], object] | None) -> Iterator[Story]:
        self._story = Story(f"{what}; then {'recovery carries on' if recover else 'the client asks again'}")
        self._show_progress(self._story.name)
        self._target, self._hit = target, target is None
        self._points: dict[_Point, Sequence[_Fault]] = {}
        self._counts: Counter[str] = Counter()
        self._claimed = None
        self._answer: Reply | None = None
        self._who, self._dead, self._attempts = "", False, 0
        self._begun_at = self.clock.time
        try:
            self.begin()
            if self._carry_out(recover):
                self._replay()
                yield self._story
        except Exception as error:
            error.add_note(f"\n{self._story}")
            raise

    def _carry_out(self, recover: Callable[[], object] | None) -> bool:
        """Let attempt follow attempt until the operation has ended; False if recovery has nothing to do with it."""
        self._ask()
        assert self._claimed, f"no key was claimed: {self._story.answers}"
        assert self._points, "the handlers do not write through this client"
        store, id_ = self._claimed
        assert store._clock.now() == self.clock.now(), "the handlers are on another clock: hand it over"
        record = store.get(id_)
        if recover and (record is None or record.request is None):
            return False
        while record is None or not record.completed:
            error = record.last_error if record else None
            assert self._attempts < _MOST_ATTEMPTS, f"the operation does not end; its last error: {error}"
            if record and (recover or record.status is Status.PROCESSING):
                assert record.lease_until < PARKED_UNTIL, f"recovery gave up; its last error: {error}"
                self.clock.time = max(self.clock.time, record.lease_until)
            if recover:
                self._attempt("recovery", recover)
                self._answer = None
            else:
                self._ask()
            record = store.get(id_)
        return True

    def _replay(self) -> None:
        """See that the operation has one answer for good."""
        assert self._hit, "the operation took another way than in its first run, and did not come to this point"
        points, answer = dict(self._points), self._answer
        replay = self._ask()
        assert replay is not None
        assert _REPLAYED in replay["multiValueHeaders"], "the operation has ended, but its answer is no replay"
        assert answer is None or _repeats(replay, answer), (
            f"the replay is another answer than the first: {replay}, not {answer}"
        )
        self._points = points  # what a replay meets is no part of the operation

    def _ask(self) -> Reply | None:
        self._answer = self._attempt("client", self.post)
        if self._answer is not None:
            self._story.answers.append(self._answer)
        return self._answer

    def _attempt(self, who: str, call: Callable[[], Any]) -> Any:
        """Invoke a handler; None if it crashed, even if it then came to an end all the same."""
        self._attempts += 1
        self.clock.time += 1
        self._who = f"{who} {self._attempts}"
        try:
            result = call()
            if self._dead:
                return None
            replayed = " replayed" if who == "client" and _REPLAYED in result["multiValueHeaders"] else ""
            self._tell(f"→ {result['statusCode'] if who == 'client' else result}{replayed}")
        except _Crash:
            return None
        else:
            return result
        finally:
            self._who, self._dead = "", False

    def _call(self, name: str, call: Callable[[], Any]) -> Any:
        """Stands in for `Operation._call`."""
        if self._dead:
            raise _Crash
        if call is _nothing:  # a reservation is nothing but a write
            return None
        label = f"undo {name.removeprefix(_UNDO)!r}" if name.startswith(_UNDO) else f"step {name!r}"
        point = self._reach(label, (_Fault.CRASH_BEFORE, _Fault.CRASH_AFTER, _Fault.LOST))
        try:
            result = call()
        except Exception as error:
            self._leave(point, f"✗ {type(error).__name__}: {error}")
            raise
        self._leave(point, "✓")
        return result

    def _before_call(self, model: Any, context: dict[str, Any], **_: Any) -> None:
        if self._dead:
            raise _Crash
        if self._who and model.name not in _READS:
            context[__name__] = self._reach(_write(model.name), tuple(_Fault))

    def _after_attempt(self, response: Any, attempts: int, request_dict: dict[str, Any], **_: Any) -> Any:
        """Let the SDK go on with what it got (None), or send the request again after so many seconds (an integer)."""
        point: _Point | None = request_dict["context"].get(__name__)
        if point is None:
            return None
        if point.fault is _Fault.LOST and attempts < _SDK_ATTEMPTS:
            return 0
        if point.fault is _Fault.LOST_ONCE and attempts == 1:
            self._tell(f"{point.label} ⚡ {point.fault}")
            return 0
        error = response and response[1].get("Error")
        self._leave(point, f"✗ {error['Code']}" if error else "✓" if response else "✗ no answer", request_dict["url"])
        return None

    def _reach(self, label: str, faults: Sequence[_Fault]) -> _Point:
        self._counts[label] += 1
        point = _Point(label, self._counts[label])
        self._points[point] = faults
        if self._target and self._target[:2] == point[:2]:
            point, self._hit = self._target, True
        if point.fault is _Fault.CRASH_BEFORE:
            self._crash(point)
        return point

    def _leave(self, point: _Point, outcome: str, url: str | None = None) -> None:
        if point.fault is _Fault.CRASH_AFTER:
            self._crash(point)
        if point.fault is _Fault.LOST:
            self._tell(f"{point.label} ⚡ {point.fault}")
            raise ConnectionClosedError(endpoint_url=url) if url else TimeoutError("The answer was lost.")
        self._tell(f"{point.label} {outcome}")

    def _crash(self, point: _Point) -> NoReturn:
        self._tell(f"{point.label} ⚡ {point.fault}")
        self._dead = True
        raise _Crash

    def _tell(self, text: str) -> None:
        self._story._events.append((self.clock.time - self._begun_at, self._who, text))

    def _show_progress(self, text: str) -> None:
        if sys.stderr.isatty():
            self._told += 1
            sys.stderr.write(f"\r\x1b[K{self._told}: {text}\r" if text else "\r\x1b[K")
            sys.stderr.flush()


def _write(operation: str) -> str:
    """What to call a write: by the store's transition that it is a part of, if it is the store's."""
    name = operation
    for frame, _ in traceback.walk_stack(None):
        if frame.f_globals.get("__name__") == Store.__module__:
            step = frame.f_locals.get("step")
            name = f"{frame.f_code.co_name} {step!r}" if step else frame.f_code.co_name
    return name


def _repeats(replay: Reply, answer: Reply) -> bool:
    """Whether a replay is an earlier answer; that one may have headers that are not kept."""
    kept = {name: values for name, values in replay["multiValueHeaders"].items() if name != _REPLAYED}
    same = all(replay[part] == answer[part] for part in ("statusCode", "body", "isBase64Encoded"))
    return same and kept.items() <= answer["multiValueHeaders"].items()
