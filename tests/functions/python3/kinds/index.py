"""What results and contexts look like, chosen by the event's "kind"; the same in every language."""
import os


def handler(event, context):
    kind = event["kind"]
    if kind == "context":
        return {
            "requestId": context.aws_request_id,
            "name": context.function_name,
            "version": context.function_version,
            "memory": int(context.memory_limit_in_mb),
            "brn": context.invoked_function_arn,
            "remaining": context.get_remaining_time_in_millis(),
            "client": context.client_context,
        }
    return {
        "text": "plain text",
        "quoted": 'with "quotes"\n',
        "unicode": "héllo ☃ 𝄞 <b>&",
        "object": {"a": [1, 2, {"b": None}], "s": "<x>&☃"},
        "none": None,
        "number": 42,
        "true": True,
        "empty": "",
        "list": [],
        "echo": event,
        "env": [os.environ.get("GREETING"), os.environ.get("EMPTY"), os.environ.get("ÜNSET")],
        "cwd": os.getcwd(),
        "path": os.environ.get("PATH"),
    }[kind]
