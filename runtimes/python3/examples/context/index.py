"""Shows what a function knows about its call and its surroundings, and how it logs."""
import logging
import os

logger = logging.getLogger()
logger.setLevel(logging.INFO)


def handler(event, context):
    print("a printed line")
    logger.info("a logged line")
    return {
        "requestId": context.aws_request_id,
        "functionName": context.function_name,
        "functionVersion": context.function_version,
        "functionBrn": context.function_brn,
        "memoryLimitInMB": context.memory_limit_in_mb,
        "remainingTimeMs": context.get_remaining_time_in_millis(),
        "clientContext": context.client_context,
        "greeting": os.environ.get("GREETING", "set the variable GREETING of this function"),
    }
