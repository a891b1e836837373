import time


def handler(event, context):
    if event["ms"]:
        time.sleep(event["ms"] / 1000)
    return event["ms"]
