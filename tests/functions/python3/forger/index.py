"""Writes on the channel what a runtime never would, behind the back of its own, and then waits or answers as the event says."""
import base64
import os
import socket
import struct
import time

CHANNEL = 3
HEADER = struct.Struct("<4sHHQQIIi28s")


def frame(own, kind, flags=0, to="own", meta=None, body=None, magic=b"FAS\x01", deadline=0, credit=0, reserved=b"", data=""):
    """A frame by its fields; lengths are what is said, whatever `data` follows."""
    invocation = own + int(to[3:] or 0) if isinstance(to, str) else to
    data = base64.b64decode(data)
    meta = 0 if meta is None else meta
    body = len(data) - meta if body is None else body
    magic = magic.encode() if isinstance(magic, str) else magic
    return HEADER.pack(magic, kind, flags, invocation % 2**64, deadline, meta, body, credit, bytes(reserved)) + data


def flood(channel, own, seconds):
    """Nothing but good frames, as fast as they are taken."""
    log = frame(own, 10, data=base64.b64encode(b"x" * 1000 + b"\n").decode()) * 60
    until, sent = time.monotonic() + seconds, 0
    while time.monotonic() < until:
        channel.sendall(log)
        sent += len(log)
    return sent


def handler(event, context):
    own = context._id
    channel = socket.socket(fileno=os.dup(CHANNEL))
    told = None
    for fields in event.get("frames", []) * event.get("times", 1):
        channel.sendall(frame(own, **fields))
    if "raw" in event:
        channel.sendall(base64.b64decode(event["raw"]))
    if "urgent" in event:
        channel.send(b"!", socket.MSG_OOB)
    if "shut" in event:
        channel.shutdown(event["shut"])
    if "flood" in event:
        told = flood(channel, own, event["flood"])
    if "keep" in event:
        open(f"/tmp/gate-{event['keep']}", "w").close()
    time.sleep(event.get("wait", 0))
    return {"pid": os.getpid(), "token": TOKEN, "told": told}


TOKEN = os.urandom(8).hex()
