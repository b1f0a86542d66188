"""What happened to a key, as metrics (embedded metric format) and log keys; never the key, the token or the body."""

from collections.abc import Sequence
from enum import StrEnum

from aws_lambda_powertools import Logger, Metrics
from aws_lambda_powertools.metrics import MetricUnit, single_metric

from idempotency.record import Record


class Outcome(StrEnum):
    """How a request ended, or what it met on the way; each is also the name of a metric."""

    EXECUTED = "Executed"
    REPLAYED_FROM_CACHE = "ReplayedFromCache"
    REPLAYED_FROM_TABLE = "ReplayedFromTable"
    IN_PROGRESS = "InProgress"
    WAITED = "Waited"
    KEY_REUSED = "KeyReused"
    TAKEN_OVER = "TakenOver"
    FENCED = "Fenced"
    RELEASED = "Released"
    PENDING = "Pending"
    ACCEPTED = "Accepted"
    PARKED = "Parked"
    EXPIRED = "Expired"
    IN_DOUBT = "InDoubt"


FAILED = "Failed"
"""The metric of answers with 5xx, by the version of the function that gave them."""


class Telemetry:
    """Counts outcomes, and adds them to every later log line of the invocation.

    Args:
        metrics: the collector that the Lambda handler flushes.
        logger: the logger whose state the Lambda handler clears.
    """

    def __init__(self, metrics: Metrics, logger: Logger) -> None:
        self._metrics = metrics
        self._logger = logger

    def begin(self) -> None:
        """Forget what log lines carry of the operation before, where one invocation runs several."""
        self._logger.remove_keys(["outcome", "operation_id", "attempt"])

    def emit(self, outcome: Outcome, record: Record | None = None, *, milliseconds: int | None = None) -> None:
        """Count an outcome, and its duration if it has one."""
        self._metrics.add_metric(outcome, MetricUnit.Count, 1)
        if milliseconds is not None:
            self._metrics.add_metric(f"{outcome}Milliseconds", MetricUnit.Milliseconds, milliseconds)
        about = {} if record is None else {"operation_id": record.operation_id, "attempt": record.attempt}
        self._logger.append_keys(outcome=outcome.value, **about)
        if record is not None and outcome is Outcome.TAKEN_OVER and record.cut_off:
            # Whoever was cut off could not tell.
            self._logger.warning("an earlier attempt was cut off", record=record.id)

    def backlog(self, milliseconds: int) -> None:
        """Tell for how long the operation has been due that has been due the longest; 0 if none is."""
        self._metrics.add_metric("OldestDueSeconds", MetricUnit.Seconds, milliseconds / 1000)

    def recovered(self, id_: str, outcome: Outcome | None) -> None:
        """Log how an attempt of recovery ended; None: there was nothing to do any more."""
        if outcome is not None:
            self._logger.info("recovered", outcome=outcome, record=id_)

    def doubt(self, doubts: Sequence[str], record: Record) -> None:
        """Tell an operator, at once, which effects of an operation may be left behind."""
        for doubt in doubts:
            self._logger.error(
                "in doubt", doubt=doubt, operation_id=record.operation_id, attempt=record.attempt, record=record.id
            )
        if doubts:
            self.emit(Outcome.IN_DOUBT, record)
            self._metrics.flush_metrics()

    def failed(self, version: str) -> None:
        """Count a 5xx by the function's version, so that an alarm can tell a new version from the one before."""
        dimensions = {"service": self._metrics.service, "version": version}
        with single_metric(FAILED, MetricUnit.Count, 1, default_dimensions=dimensions):
            pass

    def error(self, error: BaseException) -> None:
        """Log an error of which the client learns nothing."""
        self._logger.error("unexpected error", exc_info=error)
