"""Prints as the event says."""
import os
import sys
import threading
import time

inside = 0
changed = threading.Condition()


def handler(event, context):
    global inside
    if "meet" in event:
        # All calls are inside before anybody prints on: their lines mix if they can.
        with changed:
            inside += 1
            changed.notify_all()
            changed.wait_for(lambda: inside >= event["meet"])
    for number in range(event.get("lines", 0)):
        print(f"line {number} of {event.get('tag', '')} " + "x" * event.get("width", 0))
        if "meet" in event:
            time.sleep(0.001)
    if "err" in event:
        print(event["err"], file=sys.stderr)
    if "long" in event:
        print("L" * event["long"])
    if "bytes" in event:
        os.write(1, bytes.fromhex(event["bytes"]))
    if "raise" in event:
        raise RuntimeError(event["raise"])
    if "late" in event:
        threading.Timer(0.05, print, ("late", event["late"])).start()
    return "talked"
