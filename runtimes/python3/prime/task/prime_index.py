"""A handler that only priming loads (faaster_runtime/prime.py)."""
import json


def handler(event, context):
    return {"name": event["name"], "id": context.aws_request_id, "text": json.dumps(event)}
