"""Telemetry that is kept instead of sent."""

from collections.abc import Sequence

from idempotency.record import Record
from idempotency.telemetry import Outcome, Telemetry


class RecordedTelemetry(Telemetry):
    """Keeps everything that is emitted."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []
        self.waited: list[int] = []
        self.errors: list[BaseException] = []
        self.doubts: list[str] = []
        self.backlogs: list[int] = []

    def emit(self, outcome: Outcome, record: Record | None = None, *, milliseconds: int | None = None) -> None:
        self.outcomes.append(outcome)
        if milliseconds is not None:
            self.waited.append(milliseconds)

    def backlog(self, milliseconds: int) -> None:
        self.backlogs.append(milliseconds)

    def begin(self) -> None:
        pass

    def recovered(self, id_: str, outcome: Outcome | None) -> None:
        pass

    def doubt(self, doubts: Sequence[str], record: Record) -> None:
        self.doubts += doubts

    def error(self, error: BaseException) -> None:
        self.errors.append(error)
