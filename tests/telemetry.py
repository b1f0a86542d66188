"""Telemetry that are kept instead of sent."""

from idempotency.record import Record
from idempotency.telemetry import Outcome, Telemetry


class RecordedTelemetry(Telemetry):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.waited: list[int] = []
        self.errors: list[BaseException] = []

    def emit(self, outcome: Outcome, record: Record | None = None, *, milliseconds: int | None = None) -> None:
        self.outcomes.append(outcome)
        if milliseconds is not None:
            self.waited.append(milliseconds)

    def error(self, error: BaseException) -> None:
        self.errors.append(error)
