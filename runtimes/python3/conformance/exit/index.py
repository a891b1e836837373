import sys


def handler(event, context):
    if event.get("x"):
        sys.exit(3)
    return "alive"
