"""One simulated world: actors that run real, synchronous code, and everything that may come between their steps.

An actor is a greenlet. Each call of the database or of another service, each clock reading and each sleep is a *point*:
the actor stops there, and whoever steers the world picks one of its `options`: which actor goes on, whether that goes
well, whether time passes. The sequence of picks is the schedule, and it determines the run completely.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any, NamedTuple, TypeAlias
from uuid import UUID

from greenlet import getcurrent, greenlet

from proof.explorer.dynamodb import Change, DynamoDB, Refused, Response, Table
from tests.crashes import Killed

EPOCH_MS = 1_800_000_000_000
GO = "go"
CRASH = "crash"
ARRIVES = "arrives"
TIME = "time"
MESSAGE = "message"
AGAIN = "+"
END = "end"
INVOCATION_LIFE_MS = 15 * 60_000
"""How long Lambda lets a function run at most."""
REQUEST_LIFE_MS = 60_000
"""How long a request that its sender gave up may still be on its way to the database."""


class Violation(Exception):
    """An invariant does not hold.

    Args:
        invariant: its number in the design.
    """

    def __init__(self, invariant: int, message: str) -> None:
        super().__init__(invariant, message)
        self.invariant = invariant

    def __str__(self) -> str:
        return "invariant {}: {}".format(*self.args)


class Option(NamedTuple):
    """One thing that may happen next; `str` gives the label by which a schedule is written down and replayed."""

    subject: str
    action: str = GO

    def __str__(self) -> str:
        return self.subject if self.action == GO else f"{self.subject}:{self.action}"


@dataclass(frozen=True)
class Point:
    """Where an actor stands.

    Args:
        label: what it is about to do.
        faults: what may go wrong with that, besides a crash.
        wakes_at: a sleeper's alarm, epoch milliseconds.
        private: nothing that other processes do can make a difference here; only time can.
        blocked: whether it cannot go on yet.
    """

    label: str
    faults: tuple[str, ...] = ()
    wakes_at: int | None = None
    private: bool = False
    blocked: Callable[[], bool] | None = field(default=None, compare=False)


@dataclass(frozen=True)
class Event:
    """A line of the timeline."""

    now: int
    actor: str
    text: str


@dataclass
class Memory:
    """What the actors of one process share, and die with.

    Args:
        history: a digest of everything that they have seen, in its order; their code is deterministic, so this is
            their state.
        notes: what invariants remember of them.
    """

    history: int = 0
    notes: dict[str, Any] = field(default_factory=dict)


@dataclass
class Actor:
    """A worker, from its request's arrival to its answer or its death; or one of its threads.

    Args:
        name: what timelines and schedules call it.
        greenlet: its code, suspended at its point.
        skew: milliseconds by which its clock is ahead of the world's.
        may_crash: whether a crash is one of its faults.
        life: milliseconds after which its process ends it, wherever it stands.
        started: when it arrived, epoch milliseconds; None before.
        memory: its process.
        point: where it stands.
        minted: how many ids it has made.
        crashed: whether it died.
        answer: what its code returned.
        error: what a thread's code raised.
        cut_off: whether its latest call of the database was in vain.
    """

    name: str
    greenlet: greenlet
    skew: int
    may_crash: bool
    life: int = INVOCATION_LIFE_MS
    memory: Memory = field(default_factory=Memory)
    started: int | None = None
    point: Point | None = None
    minted: int = 0
    crashed: bool = False
    answer: Any = None
    error: BaseException | None = None
    cut_off: bool = False

    @property
    def notes(self) -> dict[str, Any]:
        return self.memory.notes

    @property
    def ended(self) -> bool:
        return self.crashed or self.greenlet.dead

    @property
    def asleep(self) -> bool:
        return self.point is not None and self.point.wakes_at is not None

    def saw(self, *what: Any) -> None:
        self.memory.history = hash((self.memory.history, self.name, *what))


@dataclass
class Budget:
    """How much may go wrong in one schedule."""

    faults: int = 2
    jumps: int = 2
    deliveries: int = 0


class InFlight(NamedTuple):
    """A request that its sender believes lost, and that the database has yet to carry out."""

    sender: str
    operation: str
    params: Mapping[str, Any]
    until: int


class Message(NamedTuple):
    """A message in the queue.

    Args:
        due: epoch milliseconds before which it is not delivered.
        body: what it says.
    """

    due: int
    body: str


Watcher: TypeAlias = Callable[["World", Actor, Change], None]


def here() -> World:
    """The world of the actor whose code is running."""
    return getcurrent().world  # type: ignore[no-any-return,attr-defined]  # set by spawn


def uuid4() -> UUID:
    """Stands in for `uuid.uuid4` in the code that actors run."""
    return here().uuid()


class Lock:
    """Stands in for `threading.Lock`, of which a greenlet that waits would stop the whole world."""

    def __init__(self) -> None:
        self._locked = False

    def __enter__(self) -> None:
        while self._locked:
            here().stop_at(Point("waits for a lock", blocked=lambda: self._locked))
        self._locked = True

    def __exit__(self, *_: object) -> None:
        self._locked = False


class World:
    """The actors, the database, the clock and the rest of the world of one schedule.

    Its `facts` are what invariants remember of it; `landing` is true while a late request is carried out; `messages` is
    a queue, each of whose messages may be delivered in any order, late, twice, or never.

    Args:
        tables: the database's tables, empty.
        budget: how much may go wrong.
        instants: epoch milliseconds to which time may jump, given the world; only those ahead count.
        expired: items that the time-to-live process may delete now, as (table, key).
        watch: checks each change of the database as it happens.
        answered: checks each answer as it is given.
        receive: takes a message, and may spawn who acts on it.
        finish: runs after the last actor ended, and may spawn more; nothing goes wrong from then on.
        keep: called as an actor stops; returns what restores its process's global variables as it goes on.
    """

    def __init__(
        self,
        tables: Mapping[str, Table],
        budget: Budget,
        *,
        instants: Callable[[World], Iterable[int]] = lambda _: (),
        expired: Callable[[World], Iterable[tuple[str, Any]]] = lambda _: (),
        watch: Iterable[Watcher] = (),
        answered: Callable[[World, Actor], None] = lambda _world, _actor: None,
        receive: Callable[[World, str], None] = lambda _world, _body: None,
        finish: Callable[[World], Iterator[None]] | None = None,
        keep: Callable[[], Callable[[], None]] = lambda: lambda: None,
    ) -> None:
        self.database = DynamoDB(tables, lambda: self.now, self._changed)
        self.budget = budget
        self.now = EPOCH_MS
        self.actors: dict[str, Actor] = {}
        self.in_flight: list[InFlight] = []
        self.messages: list[Message] = []
        self.facts: list[Any] = []
        self.landing = False
        self.events: list[Event] | None = None
        self._instants = instants
        self._expired = expired
        self._watch = tuple(watch)
        self._answered = answered
        self._keep = keep
        self._receive = receive
        self._finish = finish(self) if finish else iter(())
        self._finished = False
        self._steering = getcurrent()
        self._writer: Actor | None = None
        self._broken: Violation | None = None
        self._last = ""

    # What actors call

    @property
    def me(self) -> Actor:
        """The actor whose code is running."""
        return getcurrent().actor  # type: ignore[no-any-return,attr-defined]  # set by spawn

    def spawn(
        self,
        name: str,
        code: Callable[[], Any],
        *,
        skew: int = 0,
        may_crash: bool = True,
        life: int = INVOCATION_LIFE_MS,
    ) -> Actor:
        """Add an actor; its answer is what `code` returns. Its clock is `skew` milliseconds ahead of the world's."""

        def live() -> None:
            actor.answer = code()
            actor.saw("answered", repr(actor.answer))
            self.tell(f"→ {actor.answer}")
            self._answered(self, actor)

        actor = Actor(name, greenlet(live), skew, may_crash, life, point=Point(ARRIVES))
        return self._add(actor)

    def fork(self, name: str, code: Callable[[], Any]) -> Actor:
        """Start a thread of the actor whose code is running; it may go on after that one has answered."""

        def live() -> None:
            try:
                actor.answer = code()
            except Killed:
                raise
            except BaseException as error:  # noqa: BLE001 - a thread's end is told to whoever joins it
                actor.error = error
            actor.saw("ended", repr(actor.error))

        me = self.me
        actor = Actor(f"{me.name}/{name}", greenlet(live), me.skew, me.may_crash, me.life, me.memory, me.started)
        actor.point = Point("begins")
        return self._add(actor)

    def wait(self, thread: Actor) -> None:
        """Wait for a thread's end."""
        if not thread.ended:
            self.stop_at(Point(f"waits for {thread.name}", blocked=lambda: not thread.ended))

    def join(self, thread: Actor) -> Any:
        """Wait for a thread; returns what its code did, or raises it."""
        self.wait(thread)
        if thread.error is not None:
            raise thread.error
        return thread.answer

    def _add(self, actor: Actor) -> Actor:
        actor.greenlet.actor, actor.greenlet.world = actor, self  # type: ignore[attr-defined]  # it takes attributes
        self.actors[actor.name] = actor
        return actor

    def stop_at(self, point: Point) -> str:
        """Stand at a point until picked; returns how to go on: `GO` or one of the point's faults."""
        actor = self.me
        if actor.crashed:
            raise Killed
        actor.point = point
        restore = self._keep()
        action: str = self._steering.switch()
        restore()
        actor.saw(point.label, action)
        return action

    def read_clock(self) -> int:
        """The actor's own clock, epoch milliseconds."""
        if self.budget.jumps:
            self.stop_at(Point("reads the clock", private=True))
        elif self.me.crashed:
            raise Killed
        now = self.now + self.me.skew
        self.me.saw(now)
        return now

    def sleep(self, milliseconds: float) -> None:
        self.stop_at(Point(f"sleeps {milliseconds:g} ms", wakes_at=self.now + max(1, round(milliseconds))))

    def apply(self, operation: str, params: Mapping[str, Any], writer: Actor, **options: Any) -> Response:
        """Let the database carry out a request of an actor.

        Raises:
            Refused: the database's answer is an error.
        """
        self._writer = writer
        try:
            return self.database.call(operation, params, **options)
        finally:
            self._writer = None

    def uuid(self) -> UUID:
        """A new id for each call, and the same ones in each run."""
        actor = self.me
        actor.minted += 1
        number = list(self.actors).index(actor.name) + 1
        return UUID(int=number << 96 | actor.minted, version=4)

    def tell(self, text: str, actor: str | None = None) -> None:
        """Add a line to the timeline."""
        if self.events is not None:
            self.events.append(Event(self.now - EPOCH_MS, actor or self.me.name, text))

    # What the steering side calls

    def options(self) -> list[Option]:
        """What may happen next, the least eventful first; empty when the schedule is over."""
        found = self._options()
        if found or self._finished:
            return found
        return [*self._deliveries(), Option(END)]

    def _options(self) -> list[Option]:
        living = [actor for actor in self.actors.values() if not actor.ended and not self._waits(actor)]
        if not living:
            return []
        jumps = self._jumps() if self.budget.jumps else []
        for actor in living:
            if actor.point and actor.point.private and not self._has_company(actor):
                return [Option(actor.name), *jumps]
        # Whoever acted last goes on first, sleepers come last.
        living.sort(key=lambda actor: (actor.asleep, actor.name != self._last))
        found = [Option(actor.name) for actor in living]
        found += [Option("landing", str(number)) for number, _ in enumerate(self.in_flight)]
        found += jumps + self._deliveries()
        if self.budget.faults or self.budget.jumps:
            found += [Option("expiry", f"{table}/{key[0]}") for table, key in self._expired(self)]
        return found + self._faults(living)

    def _deliveries(self) -> list[Option]:
        if not self.budget.deliveries:
            return []
        first = {message.body: number for number, message in reversed([*enumerate(self.messages)])}
        arrived = [str(number) for number in sorted(first.values()) if self.messages[number].due <= self.now]
        again = [f"{number}{AGAIN}" for number in arrived if self.budget.faults]
        return [Option(MESSAGE, action) for action in (*arrived, *again)]

    def _waits(self, actor: Actor) -> bool:
        return bool(actor.point and actor.point.blocked and actor.point.blocked())

    def _has_company(self, actor: Actor) -> bool:
        """Whether another thread of its process is alive, which may change what they share."""
        mates = (mate for mate in self.actors.values() if mate.memory is actor.memory and mate is not actor)
        return not all(mate.ended for mate in mates)

    def _faults(self, living: list[Actor]) -> list[Option]:
        if not self.budget.faults:
            return []
        return [
            Option(actor.name, fault)
            for actor in living
            if actor.point
            for fault in (*actor.point.faults, *([CRASH] if actor.may_crash and actor.point.label != ARRIVES else []))
        ]

    def perform(self, option: Option) -> None:
        """Let one of the `options` happen.

        Raises:
            Violation: an invariant was broken on the way.
        """
        if option.subject == END:
            self._go_on_finishing()
        elif option.subject == TIME:
            self.budget.jumps -= 1
            self._advance(EPOCH_MS + int(option.action))
        elif option.subject == MESSAGE:
            self._deliver(option.action)
        elif option.subject == "landing":
            self._land(int(option.action))
        elif option.subject == "expiry":
            table, _, key = option.action.partition("/")
            self.tell(f"item {key[:8]} is deleted (time to live)", "world")
            self.database.expire(table, (key,))
        else:
            self._go_on(self.actors[option.subject], option.action)
        if self._broken:
            raise self._broken

    def _deliver(self, action: str) -> None:
        number = int(action.removesuffix(AGAIN))
        body = self.messages[number].body
        self.budget.deliveries -= 1
        if action.endswith(AGAIN):
            self.budget.faults -= 1
        else:
            del self.messages[number]
        self.tell(f"a message is delivered{', and will be again' if action.endswith(AGAIN) else ''}", "world")
        self._receive(self, body)

    def violate(self, invariant: int, message: str) -> None:
        """Report a broken invariant: not as an exception, as the actor's own code might catch it."""
        self.tell(f"‼ {message}", "world")
        self._broken = self._broken or Violation(invariant, message)

    def state(self) -> int:
        """A digest of all that the future depends on."""
        return hash(
            (
                self.now,
                self.database.digest,
                # Whatever an actor has seen no longer counts once it ended.
                *(actor.ended or (actor.memory.history, actor.point) for actor in self.actors.values()),
                frozenset(self.facts),
                self.budget.faults,
                self.budget.jumps,
                self.budget.deliveries,
                *self.messages,
                *((request.sender, request.operation, repr(request.params)) for request in self.in_flight),
            )
        )

    def abandon(self) -> None:
        """End every actor, so that none of their code runs on when this world is thrown away."""
        for actor in self.actors.values():
            self._kill(actor)

    def _go_on_finishing(self) -> None:
        self.budget = Budget(0, 0, 0)
        self.in_flight.clear()
        self._finished = next(self._finish, self) is self

    def _go_on(self, actor: Actor, action: str) -> None:
        if action != GO:
            self.budget.faults -= 1
        if action == CRASH:
            self._kill_process(actor, "✗ crashes")
            return
        assert actor.point is not None
        if actor.point.wakes_at is not None:
            self._advance(max(self.now, actor.point.wakes_at))
        self._last = actor.name
        actor.started = actor.started or self.now
        actor.greenlet.switch(action) if actor.greenlet else actor.greenlet.switch()

    def _kill_process(self, actor: Actor, why: str) -> None:
        for mate in list(self.actors.values()):
            if mate.memory is actor.memory and not mate.ended:
                self.tell(why, mate.name)
                self._kill(mate)

    def _kill(self, actor: Actor) -> None:
        if actor.ended:
            return
        actor.crashed = True
        if actor.greenlet:
            with suppress(Killed):
                actor.greenlet.throw(Killed)

    def _jumps(self) -> list[Option]:
        ahead = sorted({instant for instant in self._instants(self) if instant > self.now})
        return [Option(TIME, str(instant - EPOCH_MS)) for instant in ahead]

    def _advance(self, instant: int) -> None:
        if instant <= self.now:
            return
        self.now = instant
        self.in_flight = [request for request in self.in_flight if request.until > instant]
        for actor in list(self.actors.values()):
            if actor.started and actor.started + actor.life <= instant and not actor.ended:
                self._kill_process(actor, "✗ is cut off")

    def jump_to(self, instant: int) -> None:
        """Let time pass while nobody acts."""
        self._advance(instant)

    def _land(self, number: int) -> None:
        request = self.in_flight.pop(number)
        self.landing = True
        try:
            self.apply(request.operation, request.params, self.actors[request.sender])
            self.tell(f"{request.operation} of {request.sender} lands late: carried out", "world")
        except Refused as refused:
            self.tell(f"{request.operation} of {request.sender} lands late: {refused.code}", "world")
        finally:
            self.landing = False

    def _changed(self, change: Change) -> None:
        if self._writer is not None:
            for watcher in self._watch:
                watcher(self, self._writer, change)
