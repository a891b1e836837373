"""Each call waits until `n` calls are inside: it only ever answers if they run at the same time."""
import threading

inside = 0
changed = threading.Condition()


def handler(event, context):
    global inside
    print("before", event["tag"])
    with changed:
        inside += 1
        changed.notify_all()
        changed.wait_for(lambda: inside >= event["n"])
    print("after", event["tag"])
    return event["tag"]
