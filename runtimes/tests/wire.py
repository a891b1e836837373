"""The frame protocol as docs/protocol.md says it, written apart from every runtime so that a shared mistake cannot hide."""
import json
import struct
from dataclasses import dataclass

MAGIC = b"FAS\x01"
HELLO, LOAD, READY, INVOKE, REQUEST_PART, RESPONSE, WINDOW, CANCEL, ERROR, LOG, SHUTDOWN, PING, PONG = range(1, 14)
NAMES = {1: "hello", 2: "load", 3: "ready", 6: "response", 9: "error", 10: "log", 13: "pong"}
FROM_RUNTIME = (HELLO, READY, RESPONSE, ERROR, LOG, PONG)
MORE, STDERR = 1, 2
HEADER = struct.Struct("<4sHHQQIII28s")
META_BYTES_MAX = 65_536
BODY_BYTES_MAX = 6_291_556
EVENT_FRAME_BYTES_MAX = 262_144
RESULT_FRAME_BYTES_MAX = 262_144
RESULT_PART_BYTES_MAX = 65_536
RESULT_CREDIT_BYTES = 262_144

assert HEADER.size == 64


class Broken(AssertionError):
    """The runtime broke a rule for which the engine would end it."""


@dataclass
class Frame:
    kind: int
    flags: int
    invocation: int
    meta: dict
    body: bytes

    @property
    def more(self):
        return bool(self.flags & MORE)


def pack(kind, invocation=0, *, flags=0, deadline_ns=0, meta=None, body=b"", credit=0):
    """One frame as bytes."""
    text = json.dumps(meta).encode() if meta is not None else b""
    return HEADER.pack(MAGIC, kind, flags, invocation, deadline_ns, len(text), len(body), credit, bytes(28)) + text + body


def pack_invoke(invocation, event, *, meta=None, deadline_ns=0):
    """An invocation with its event (bytes), in parts where it does not fit in one frame."""
    head, rest = event[:EVENT_FRAME_BYTES_MAX], event[EVENT_FRAME_BYTES_MAX:]
    meta = {"requestId": f"request-{invocation}"} if meta is None else meta
    frames = [pack(INVOKE, invocation, flags=MORE if rest else 0, deadline_ns=deadline_ns, meta=meta, body=head)]
    while rest:
        head, rest = rest[:EVENT_FRAME_BYTES_MAX], rest[EVENT_FRAME_BYTES_MAX:]
        frames.append(pack(REQUEST_PART, invocation, flags=MORE if rest else 0, body=head))
    return b"".join(frames)


def take(buffer):
    """Takes the first whole frame off a bytearray; None if there is none yet. Raises Broken."""
    if len(buffer) < HEADER.size:
        return None
    magic, kind, flags, invocation, deadline, meta_bytes, body_bytes, credit, reserved = HEADER.unpack_from(buffer)
    if magic != MAGIC or kind not in FROM_RUNTIME or flags & ~(MORE | STDERR) or any(reserved) or credit or deadline:
        raise Broken(f"bad header: {bytes(buffer[:64]).hex(' ')}")
    if meta_bytes > META_BYTES_MAX or body_bytes > BODY_BYTES_MAX:
        raise Broken(f"{NAMES[kind]}: meta of {meta_bytes} and body of {body_bytes} bytes")
    end = HEADER.size + meta_bytes + body_bytes
    if len(buffer) < end:
        return None
    meta = bytes(buffer[HEADER.size : HEADER.size + meta_bytes])
    frame = Frame(kind, flags, invocation, json.loads(meta) if meta else {}, bytes(buffer[HEADER.size + meta_bytes : end]))
    del buffer[:end]
    return frame
