"""Frames of docs/protocol.md on a stream socket: reads many at once, writes many at once.

Owns the channel: bytes read but not parsed, events and results that travel in parts, frames not yet written.
Must not know: handlers, threads, asyncio.

The first 8 bytes of a header (magic, type, flags) are compared as one integer, and an answer's header is one pack:
with 64 calls in a read, a call costs well under a microsecond here.
"""
import os
from struct import Struct
from threading import Lock, RLock

MAGIC = int.from_bytes(b"FAS\x01", "little")
MORE = 1
STDERR = 2


def opening(kind, flags=0):
    """The first 8 bytes of a header as a little-endian integer."""
    return MAGIC | kind << 32 | flags << 48


HELLO, LOAD, READY = opening(1), opening(2), opening(3)
INVOKE, INVOKE_MORE = opening(4), opening(4, MORE)
REQUEST_PART, REQUEST_PART_MORE = opening(5), opening(5, MORE)
RESPONSE, RESPONSE_MORE = opening(6), opening(6, MORE)
WINDOW, CANCEL, ERROR = opening(7), opening(8), opening(9)
LOG, LOG_STDERR = opening(10), opening(10, STDERR)
SHUTDOWN = opening(11)
PING, PONG = opening(12), opening(13)

HEADER_BYTES = 64
# opening, invocation, deadline, meta length, body length; the credit follows at byte 32.
HEADER = Struct("<QQQII").unpack_from
CREDIT = Struct("<I").unpack_from
# A header that the runtime sends: it never has a deadline, meta only in hello.
FRAME_HEADER = Struct("<QQ8xII32x").pack

# Bounds of the protocol (docs/protocol.md sections 2 and 5; engine/limits has the same).
META_BYTES_MAX = 65_536
EVENT_FRAME_BYTES_MAX = 262_144
RESULT_FRAME_BYTES_MAX = 262_144
RESULT_PART_BYTES_MAX = 65_536
RESULT_BYTES_MAX = 6_291_556
RESULT_CREDIT_BYTES = 262_144
LOG_FRAME_BYTES_MAX = 65_536
# Below malloc's threshold for mapping (128 KiB): a larger read costs a mmap, page faults and a munmap each, 14 us here.
READ_BYTES = 65_536


class Closed(Exception):
    """The engine has no more use for this process."""


class Garbage(Exception):
    """The engine sent bytes that are no frame."""


def frame(first, invocation, body=b"", meta=b""):
    """One whole frame as bytes."""
    return FRAME_HEADER(first, invocation, len(meta), len(body)) + meta + body


class Channel:
    """The runtime's end of the channel. `receive` is for one thread at a time; the rest may be called by any."""

    def __init__(self, fd, make_call):
        os.set_blocking(fd, True)
        self.fd = fd
        self.out = []  # frames to write: append from anywhere, then `flush`
        self.make_call = make_call  # (id, deadline_ns, meta, event) -> an invocation object
        self.on_cancel = lambda invocation: None
        # Held while an invocation's answer or log frame is added to `out`. These two locks may be taken again by their
        # owner: the collector can run a user's __del__ anywhere, and that may print.
        self.closing = RLock()
        self._rest = b""
        self._early = b""  # what came in one read with `load`
        self._write_lock = RLock()
        self._writing = False
        self._parts = {}  # id -> [deadline_ns, meta, list of event pieces]
        self._sending = {}  # id -> [result, next byte, credit]
        self._sending_lock = Lock()

    def receive(self):
        """Blocks until something came; returns the invocations that are complete. Raises Closed or Garbage."""
        if self._early:
            data, self._early = self._early, b""
        else:
            data = self._read()
            if self._rest:
                data = self._rest + data
        calls = []
        add, make = calls.append, self.make_call
        at, size = 0, len(data)
        while size - at >= HEADER_BYTES:
            first, invocation, deadline, meta_bytes, body_bytes = HEADER(data, at)
            body = at + HEADER_BYTES + meta_bytes
            end = body + body_bytes
            if end > size:
                _check_begun(first, meta_bytes, body_bytes)
                break
            if first == INVOKE:
                add(make(invocation, deadline, data[at + HEADER_BYTES : body], data[body:end]))
            else:
                self._other(first, invocation, deadline, data, at, body, end, calls)
            at = end
        self._rest = data[at:]
        return calls

    def receive_load(self):
        """The meta of `load`: the first frame that the engine sends."""
        data = b""
        while True:
            if len(data) >= HEADER_BYTES:
                first, _, _, meta_bytes, body_bytes = HEADER(data)
                if first == SHUTDOWN:
                    raise Closed
                if first != LOAD:
                    raise Garbage(f"expected load, got a frame that begins with {first:#018x}")
                body = HEADER_BYTES + meta_bytes
                if len(data) >= body + body_bytes:
                    self._early = data[body + body_bytes :]
                    return data[HEADER_BYTES:body]
            data += self._read()

    def _read(self):
        try:
            data = os.read(self.fd, READ_BYTES)
        except ConnectionResetError:
            data = b""
        if not data:
            raise Closed
        return data

    def _other(self, first, invocation, deadline, data, at, body, end, calls):
        if first == INVOKE_MORE:
            self._parts[invocation] = [deadline, data[at + HEADER_BYTES : body], [data[body:end]]]
        elif first == REQUEST_PART or first == REQUEST_PART_MORE:
            begun = self._parts.get(invocation)
            if begun is None:
                return  # cancelled before its event was complete
            begun[2].append(data[body:end])
            if first == REQUEST_PART:
                del self._parts[invocation]
                calls.append(self.make_call(invocation, begun[0], begun[1], b"".join(begun[2])))
        elif first == WINDOW:
            self._grant(invocation, CREDIT(data, at + 32)[0])
        elif first == CANCEL:
            self._cancel(invocation, calls)
        elif first == PING:
            self.out.append(frame(PONG, 0))
            self.flush()  # now, not after the calls that may stand behind it
        elif first == SHUTDOWN:
            raise Closed
        else:
            raise Garbage(f"frame begins with {first:#018x}")

    def _cancel(self, invocation, calls):
        if self._parts.pop(invocation, None) is not None:
            self.out.append(cancelled_frame(invocation))
            return
        with self._sending_lock:
            if self._sending.pop(invocation, None) is not None:
                self.out.append(cancelled_frame(invocation))
                return
        for call in calls:
            if call._id == invocation:
                call._cancelled = True
                return
        self.on_cancel(invocation)

    def answer_large(self, invocation, body):
        """A result that does not fit in one frame: sent in parts, as far as the credit reaches."""
        with self._sending_lock:
            self._sending[invocation] = [memoryview(body), 0, RESULT_CREDIT_BYTES]
            self._pump(invocation)

    def _grant(self, invocation, credit_bytes):
        with self._sending_lock:
            if invocation in self._sending:  # else its last part is on its way already
                self._sending[invocation][2] += credit_bytes
                self._pump(invocation)

    def _pump(self, invocation):
        sending = self._sending[invocation]
        body, at, credit = sending
        while credit > 0:
            end = min(at + RESULT_PART_BYTES_MAX, at + credit, len(body))
            last = end == len(body)
            self.out.append(frame(RESPONSE if last else RESPONSE_MORE, invocation, body[at:end]))
            credit -= end - at
            at = end
            if last:
                del self._sending[invocation]
                return
        sending[1:] = at, credit

    def flush(self):
        """Writes all frames in `out`, in order, with as few writes as the socket allows."""
        out = self.out
        if not out:
            return
        with self._write_lock:
            if self._writing:
                return  # printed by a __del__ in the midst of this very function
            self._writing = True
            # Others may append meanwhile: take only what is there now.
            count = len(out)
            data = out[0] if count == 1 else b"".join(out[:count])
            del out[:count]
            try:
                written = os.write(self.fd, data)
                while written < len(data):
                    data = data[written:]
                    written = os.write(self.fd, data)
            except (BrokenPipeError, ConnectionResetError) as gone:
                raise Closed from gone
            finally:
                self._writing = False


def _check_begun(first, meta_bytes, body_bytes):
    """A frame that is not complete yet must at least look like one, or its rest would be waited for in vain."""
    if first & 0xFFFF_FFFF != MAGIC or meta_bytes > META_BYTES_MAX or body_bytes > EVENT_FRAME_BYTES_MAX:
        raise Garbage(f"frame begins with {first:#018x}, meta of {meta_bytes} and body of {body_bytes} bytes")


def cancelled_frame(invocation):
    """What a cancelled invocation is answered with: nobody reads it, but the engine learns that it has ended."""
    return frame(ERROR, invocation, b'{"errorMessage":"the invocation was cancelled","errorType":"Runtime.Cancelled"}')
