"""What each library does where idempotency is hard: every behaviour is a scenario played on DynamoDB Local."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Literal

from proof.peers.libraries.contract import Attempt, Library, NotPromised, Request, Response, Work
from proof.peers.network import answer_lost, unreachable
from proof.peers.stage import Stage, elsewhere, new_request
from tests.crashes import Killed

_LEASE = 1
_LAPSE = _LEASE + 0.3
_REFUSED = {409, 423}


class Broken(Exception):
    """A library does not do what a scenario asks for; the message says what it did instead."""


@dataclass(frozen=True)
class Behaviour:
    """A scenario.

    Args:
        name: what `Library.not_promised` calls it.
        title: what a library that passes does.
        play: raises `Broken` if the library fails.
    """

    name: str
    title: str
    play: Callable[[Stage], None]


@dataclass(frozen=True)
class Verdict:
    """How a library did.

    Args:
        result: whether it passed; or that its documentation does not promise what it failed at.
        reason: what it did instead, or why it does not promise it.
    """

    result: Literal["yes", "no", "not promised"]
    reason: str = ""


BEHAVIOURS: list[Behaviour] = []


def judge(behaviour: Behaviour, library: Library, endpoint: str) -> Verdict:
    """Play a scenario under a library, on tables of its own."""
    try:
        with Stage(library, endpoint) as stage:
            behaviour.play(stage)
    except (Broken, NotPromised) as error:
        if reason := library.not_promised.get(behaviour.name):
            return Verdict("not promised", reason)
        return Verdict("no", str(error))
    return Verdict("yes")


def behaviour(title: str) -> Callable[[Callable[[Stage], None]], Callable[[Stage], None]]:
    """Register a scenario under its function's name."""

    def register(play: Callable[[Stage], None]) -> Callable[[Stage], None]:
        BEHAVIOURS.append(Behaviour(play.__name__, title, play))
        return play

    return register


@dataclass
class Business:
    """Business logic that counts its runs, and answers differently in each."""

    runs: int = 0
    _lock: threading.Lock = field(default_factory=threading.Lock)

    def work(self, attempt: Attempt) -> Response:
        """Run, and answer with the number of the run."""
        with self._lock:
            self.runs += 1
            return Response(body=f'{{"run":{self.runs}}}')

    def then(self, happens: Callable[[], object]) -> Work:
        """Make business logic in which something happens before it answers."""

        def work(attempt: Attempt) -> Response:
            answer = self.work(attempt)
            happens()
            return answer

        return work

    def answering(self, answer: Response) -> Work:
        """Make business logic that answers the same in each run."""

        def work(attempt: Attempt) -> Response:
            self.work(attempt)
            return answer

        return work


# --- a worker that seems to be dead, but is not ---


@behaviour("A worker that was taken over and finishes late leaves the winner's response alone")
def late_success(stage: Stage) -> None:
    request, business = new_request(), Business()
    _, winner = _overtaken(stage, request, business)
    _expect(stage.worker().post(request, business.work), winner)


@behaviour("A worker that was taken over and fails late leaves the winner's record alone")
def late_failure(stage: Stage) -> None:
    request, business = new_request(), Business()
    _, winner = _overtaken(stage, request, business, _fail)
    _expect(stage.worker().post(request, business.work), winner)
    _expect_runs(business, 2)


@behaviour("The client of a worker that was taken over gets the winner's response")
def late_answer(stage: Stage) -> None:
    late, winner = _overtaken(stage, new_request(), Business())
    _expect(late, winner)


@behaviour("A worker that was taken over writes no business rows")
def late_row(stage: Stage) -> None:
    request, business = new_request(), Business()

    def work_with_row(then: Callable[[], object]) -> Work:
        def work(attempt: Attempt) -> Response:
            answer = business.work(attempt)
            run = business.runs
            then()
            attempt.save({"id": request.key, "run": run})
            return answer

        return work

    def be_overtaken() -> None:
        time.sleep(_LAPSE)
        elsewhere(lambda: stage.worker(lease=_LEASE).post(request, work_with_row(lambda: None)))

    stage.worker(lease=_LEASE).post(request, work_with_row(be_overtaken))
    _expect_runs(business, 2)
    row = stage.row(str(request.key))
    if row is None or row["run"]["N"] != "2":
        raise Broken(f"the row is that of run {row['run']['N'] if row else 'none'}")


@behaviour("A worker past its lease whom nobody replaced still commits")
def late_alone(stage: Stage) -> None:
    request, business = new_request(), Business()
    answer = stage.worker(lease=_LEASE).post(request, business.then(lambda: time.sleep(_LAPSE)))
    _expect(stage.worker().post(request, business.work), answer)
    _expect_runs(business, 1)


# --- a worker that is dead ---


@behaviour("A crash does not block the key: after the lease, a retry runs")
def crashed(stage: Stage) -> None:
    request, business = new_request(), Business()
    _crash(stage, request, business)
    _expect_status(stage.worker().post(request, business.work), 201)


@behaviour("After a crash, exactly one of ten simultaneous retries runs")
def crashed_once(stage: Stage) -> None:
    request, business = new_request(), Business()
    _crash(stage, request, business)
    statuses = {answer.status for answer in _storm(stage, 10, request, business)}
    _expect_runs(business, 2)
    if not statuses <= {201, *_REFUSED}:
        raise Broken(f"clients get {sorted(statuses)}")


@behaviour("After a crash, the key is refused with another payload, and served with its own")
def crashed_payload(stage: Stage) -> None:
    request, business = new_request(), Business()
    _crash(stage, request, business)
    stage.worker().post(replace(request, body='{"region": "us-east", "size": "small"}'), business.work)
    _expect_runs(business, 1)
    _expect_status(stage.worker().post(request, business.work), 201)


@behaviour("After a crash, the retry sends the same idempotency key downstream")
def crashed_key(stage: Stage) -> None:
    request, business = new_request(), Business()
    keys: set[str] = set()

    def work(attempt: Attempt) -> Response:
        keys.add(attempt.key("server"))
        return business.then(_die if business.runs == 0 else lambda: None)(attempt)

    _killed(stage, request, work)
    stage.worker().post(request, work)
    _expect_runs(business, 2)
    if len(keys) > 1:
        raise Broken(f"{len(keys)} keys went downstream")


@behaviour("After a crash, a step that was done is not done again")
def crashed_steps(stage: Stage) -> None:
    request, business = new_request(), Business()
    charged: list[int] = []

    def work(attempt: Attempt) -> Response:
        attempt.step("charge", lambda: charged.append(1))
        return business.then(_die if business.runs == 0 else lambda: None)(attempt)

    _killed(stage, request, work)
    stage.worker().post(request, work)
    _expect_runs(business, 2)
    if len(charged) > 1:
        raise Broken(f"it is done {len(charged)} times")


@behaviour("A crashed operation is finished even if the client never comes back")
def recovered(stage: Stage) -> None:
    request, business = new_request(), Business()
    _crash(stage, request, business)
    stage.worker(recoverable=True).recover(business.work)
    _expect_status(stage.worker().post(request, business.work), 201)
    _expect_runs(business, 2)


# --- a network that loses answers ---


@behaviour("The answer to the claim is lost: the request is served nevertheless")
def lost_claim(stage: Stage) -> None:
    business, worker = Business(), stage.worker()
    with answer_lost(worker, 1):
        _expect_status(worker.post(new_request(), business.work), 201)


@behaviour("The answer to the completion is lost: the client gets its response, and so do retries")
def lost_completion(stage: Stage) -> None:
    request, business, worker = new_request(), Business(), stage.worker()
    with answer_lost(worker, 2):
        answer = worker.post(request, business.work)
    _expect_status(answer, 201)
    _expect(stage.worker().post(request, business.work), answer)
    _expect_runs(business, 1)


@behaviour("DynamoDB cannot be reached: nothing runs, and the client gets 503")
def down(stage: Stage) -> None:
    business, worker = Business(), stage.worker()
    with unreachable(worker):
        answer = worker.post(new_request(), business.work)
    _expect_runs(business, 0)
    _expect_status(answer, 503)


# --- duplicates ---


@behaviour("30 simultaneous duplicates: one run, and nobody gets another response")
def storm(stage: Stage) -> None:
    request, business = new_request(), Business()
    answers = _storm(stage, 30, request, business)
    _expect_runs(business, 1)
    others = {answer.content for answer in answers if answer.status not in _REFUSED}
    if len(others) != 1:
        raise Broken(f"clients get {len(others)} different responses")


@behaviour("A duplicate can wait until the first request answers")
def waited(stage: Stage) -> None:
    request, business = new_request(), Business()
    first, duplicate = _with_duplicate(stage, request, business, lambda: time.sleep(0.5))
    if first is None:
        raise Broken("the first request has no answer")
    _expect(duplicate, first)
    _expect_runs(business, 1)


@behaviour("A waiting duplicate takes over if the first request dies")
def waited_takeover(stage: Stage) -> None:
    request, business = new_request(), Business()
    _, duplicate = _with_duplicate(stage, request, business, _die)
    _expect_status(duplicate, 201)


@behaviour("The same key with another payload is refused")
def other_payload(stage: Stage) -> None:
    request, business = new_request(), Business()
    stage.worker().post(request, business.work)
    answer = stage.worker().post(replace(request, body='{"region": "us-east", "size": "small"}'), business.work)
    _expect_runs(business, 1)
    _expect_status(answer, 409, 422)


@behaviour("The same JSON with different white space and order is the same payload")
def same_json(stage: Stage) -> None:
    request, business = new_request(), Business()
    answer = stage.worker().post(request, business.work)
    _expect(stage.worker().post(replace(request, body='{"size":"large","region":"eu-west"}'), business.work), answer)


@behaviour("Two principals may use the same key independently")
def principals(stage: Stage) -> None:
    request, business = new_request(), Business()
    stage.worker().post(request, business.work)
    stage.worker().post(replace(request, principal="mallory"), business.work)
    _expect_runs(business, 2)


@behaviour("A request without a key is refused")
def key_missing(stage: Stage) -> None:
    business = Business()
    answer = stage.worker().post(Request(None), business.work)
    _expect_runs(business, 0)
    _expect_status(answer, 400)


@behaviour("A key in quotes, as in the IETF draft, and the bare key are the same")
def key_quoted(stage: Stage) -> None:
    request, business = new_request(), Business()
    answer = stage.worker().post(request, business.work)
    _expect(stage.worker().post(replace(request, key=f'"{request.key}"'), business.work), answer)


@behaviour("The table never contains the raw key")
def key_hashed(stage: Stage) -> None:
    request = new_request()
    stage.worker().post(request, Business().work)
    if str(request.key) in str(stage.records()):
        raise Broken("it contains the key")


# --- responses ---


@behaviour("A replay has the same status, content type, location and bytes (non-ASCII text)")
def exact(stage: Stage) -> None:
    headers = {"content-type": "application/json", "location": "/orders/1"}
    _expect_same_replay(stage, Response(201, '{ "b": "Zürich ☃ 𝄞",\n "a": 1.0 }', headers), *headers)


@behaviour("A binary response is replayed")
def binary(stage: Stage) -> None:
    _expect_same_replay(stage, Response(200, bytes(range(256)), {"content-type": "image/png"}), "content-type")


@behaviour("An empty 204 is replayed")
def empty(stage: Stage) -> None:
    _expect_same_replay(stage, Response(204, "", {}))


@behaviour("A 500 KB response is replayed")
def large(stage: Stage) -> None:
    _expect_same_replay(stage, Response(201, _text(500_000)))


@behaviour("A 5 MB response is replayed")
def largest(stage: Stage) -> None:
    _expect_same_replay(stage, Response(201, _text(5_000_000)))


@behaviour("A custom header is replayed without being configured")
def own_header(stage: Stage) -> None:
    headers = {"content-type": "application/json", "x-price": "12.50"}
    _expect_same_replay(stage, Response(201, "{}", headers), "x-price")


@behaviour("A refusal by the business logic (409) is replayed")
def refusal(stage: Stage) -> None:
    _expect_same_replay(stage, Response(409, '{"title":"The domain is taken"}'))


@behaviour("A 503 from the business logic is not replayed: the retry runs")
def unavailable(stage: Stage) -> None:
    request, business = new_request(), Business()
    stage.worker().post(request, business.answering(Response(503, "")))
    _expect_status(stage.worker().post(request, business.work), 201)


@behaviour("An unexpected failure is not replayed: the retry runs")
def failure(stage: Stage) -> None:
    request, business = new_request(), Business()
    stage.worker().post(request, business.then(_fail))
    _expect_status(stage.worker().post(request, business.work), 201)


# --- expiry ---


@behaviour("An expired record that DynamoDB has not deleted yet is ignored")
def expired(stage: Stage) -> None:
    request, business = new_request(), Business()
    stage.worker(ttl=2, lease=1).post(request, business.work)
    time.sleep(3.1)
    stage.worker().post(request, business.work)
    _expect_runs(business, 2)


@behaviour("A warm cache forgets a response when its record expires")
def expired_cache(stage: Stage) -> None:
    request, business = new_request(), Business()
    writer, cache = stage.worker(ttl=3, lease=1), stage.worker(ttl=3, lease=1, cache=True)
    writer.post(request, business.work)
    time.sleep(1.5)
    cache.post(request, business.work)
    time.sleep(2.4)
    renewed = writer.post(request, business.work)
    _expect(cache.post(request, business.work), renewed)


# --- what scenarios share ---


def _overtaken(
    stage: Stage, request: Request, business: Business, late: Callable[[], object] = lambda: None
) -> tuple[Response, Response]:
    """Let a worker run past its lease while another one starts and answers; then let the first one go on.

    Returns:
        The late worker's answer, and the winner's.
    """
    winner: list[Response] = []

    def be_overtaken() -> None:
        time.sleep(_LAPSE)
        winner.append(elsewhere(lambda: stage.worker().post(request, business.work)))
        late()

    answer = stage.worker(lease=_LEASE).post(request, business.then(be_overtaken))
    if winner[0].status in _REFUSED:
        raise Broken("nobody can take over: there is no lease")
    return answer, winner[0]


def _crash(stage: Stage, request: Request, business: Business) -> None:
    """Kill a worker in the middle, and wait for its lease to end."""
    _killed(stage, request, business.then(_die))


def _killed(stage: Stage, request: Request, work: Work) -> None:
    try:
        stage.worker(lease=_LEASE, recoverable=True).post(request, work)
    except Killed:
        time.sleep(_LAPSE)


def _with_duplicate(
    stage: Stage, request: Request, business: Business, then: Callable[[], object]
) -> tuple[Response | None, Response]:
    """Send a request and, while it runs, a duplicate that asks to wait."""
    running = threading.Event()

    def work(attempt: Attempt) -> Response:
        running.set()
        time.sleep(0.5)
        return business.then(then)(attempt)

    def first() -> Response | None:
        try:
            return stage.worker(lease=2).post(request, work)
        except Killed:
            return None

    duplicate = stage.worker(wait=5)
    with ThreadPoolExecutor(1) as executor:
        answer = executor.submit(first)
        running.wait()
        later_answer = duplicate.post(request, business.work)
        return answer.result(), later_answer


def _storm(stage: Stage, count: int, request: Request, business: Business) -> list[Response]:
    """Send the same request from many workers at once."""
    workers = [stage.worker() for _ in range(count)]
    ready = threading.Barrier(count)
    work = business.then(lambda: time.sleep(0.2))

    def send(number: int) -> Response:
        ready.wait()
        return workers[number].post(request, work)

    with ThreadPoolExecutor(count) as executor:
        return list(executor.map(send, range(count)))


def _expect_same_replay(stage: Stage, answer: Response, *headers: str) -> None:
    """Send a request and a retry; both must get the business logic's status, bytes and these headers."""
    request, business = new_request(), Business()
    for _ in range(2):
        got = stage.worker().post(request, business.answering(answer))
        _expect(got, answer)
        if changed := [name for name in headers if got.headers.get(name) != answer.headers[name]]:
            raise Broken(f"the replay's {', '.join(changed)} is not the same")
    _expect_runs(business, 1)


def _expect(answer: Response, expected: Response) -> None:
    if answer.content != expected.content:
        raise Broken(f"the client gets {_show(answer)} instead of {_show(expected)}")


def _expect_status(answer: Response, *statuses: int) -> None:
    if answer.status not in statuses:
        raise Broken(f"the client gets {answer.status}")


def _expect_runs(business: Business, runs: int) -> None:
    if business.runs != runs:
        raise Broken(f"number of runs: {business.runs} instead of {runs}")


def _show(answer: Response) -> str:
    body = answer.content[1]
    return f"{answer.status} {body.decode()}" if 0 < len(body) < 40 else f"{answer.status}"


def _text(length: int) -> str:
    return ("0123456789abcdef" * (length // 16 + 1))[:length]


def _die() -> None:
    raise Killed


def _fail() -> None:
    raise RuntimeError("the region has no capacity")
