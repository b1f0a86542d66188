"""Lambda entry point on a schedule: finishes operations whose client never came back."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from api import app, lifecycle, logger, metrics
from idempotency.policy import Policy
from idempotency.request import Request

# Milliseconds that must be left to take up one more operation; one that needs more is released in time, and goes on
# from its last checkpoint a minute later.
_TIME_FOR_ONE = 5_000


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(raise_on_empty_metrics=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001
    """Claim each operation that is due, as a retry would, and run it through its own route.

    Returns:
        How many operations were taken up, and how many of them completed.
    """
    taken_up = completed = 0
    clock, store = lifecycle().clock, lifecycle().store
    for id_ in store.due(clock.now()):
        if context.get_remaining_time_in_millis() < _TIME_FOR_ONE:
            break
        deadline = clock.now() + context.get_remaining_time_in_millis()
        record = lifecycle().resume(id_, Policy(), deadline)
        if record is None or record.request is None:
            continue
        taken_up += 1
        app.context["resumed"] = record
        reply = app.resolve(Request.unpack(record.request).event(), context)
        completed += reply["statusCode"] < 500
        logger.info("recovered", status=reply["statusCode"], record=id_)
    return {"taken_up": taken_up, "completed": completed}
