"""A call that lasts until the test lets it go: it makes /tmp/gate-NAME and waits until somebody removes it."""
import os
import time

TOKEN = os.urandom(8).hex()
VERSION = os.environ.get("VERSION", "")


def handler(event, context):
    name = event["name"]
    print("begin", name)
    if event.get("wait", True):
        path = f"/tmp/gate-{name}"
        open(path, "w").close()
        while os.path.exists(path):
            time.sleep(0.01)
    print("end", name)
    return {"name": name, "token": TOKEN, "version": VERSION}
