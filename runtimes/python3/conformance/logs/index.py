import sys


def handler(event, context):
    print("out", event["tag"])
    print("err", event["tag"], file=sys.stderr)
    sys.stdout.write("unfinished " + event["tag"])
    return "logged"
