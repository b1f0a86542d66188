"""Lambda entry point on a schedule: finishes operations whose client never came back."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from api import idempotent, logger, metrics, telemetry
from idempotency import Outcome


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(raise_on_empty_metrics=False)
def handler(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001
    """Claim each operation that is due, as a retry would, and run it through its own route, as long as a step has time.

    One that needs more time is released, and carried on from its last checkpoint a minute later.

    Returns:
        How many operations were taken up, and how many of them completed.
    """
    taken_up = completed = 0
    time_for_a_step = idempotent.lifecycle.settings.time_for_a_step * 1000
    for id_ in idempotent.lifecycle.due():
        if context.get_remaining_time_in_millis() < time_for_a_step:
            break
        try:
            outcome = idempotent.resume(id_, context)
        except Exception as error:  # noqa: BLE001 - a record that this version cannot read is no reason to leave others
            telemetry.error(error)
            continue
        if outcome is None:
            continue
        taken_up += 1
        completed += outcome is Outcome.EXECUTED
        logger.info("recovered", outcome=outcome, record=id_)
    return {"taken_up": taken_up, "completed": completed}
