"""Lambda entry points of recovery: the sweep finds what was abandoned, the worker carries operations on."""

from typing import Any

from aws_lambda_powertools.utilities.typing import LambdaContext

from api import idempotent, logger, metrics


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(raise_on_empty_metrics=False)
def sweep(event: dict[str, Any], context: LambdaContext) -> dict[str, int]:  # noqa: ARG001
    """Send each operation that is due to the queue, on a schedule; what it has no time for, the next one finds.

    Returns:
        How many operations it sent.
    """
    sent = idempotent.sweep(context)
    logger.info("swept", sent=sent)
    return {"sent": sent}


@logger.inject_lambda_context(clear_state=True)
@metrics.log_metrics(raise_on_empty_metrics=False)
def worker(event: dict[str, Any], context: LambdaContext) -> dict[str, list[dict[str, str]]]:
    """Claim the operation that a message names, as a retry would, and run it through its own route.

    Returns:
        The messages that the queue keeps for later, as SQS event sources have it (`ReportBatchItemFailures`).
    """
    return idempotent.work(event, context)
