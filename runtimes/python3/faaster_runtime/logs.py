"""What handlers print. docs/protocol.md section 7.

Exclusive instance: standard output and error are the invocation's; lines are written when they end, so that a kill
at the deadline loses none. Concurrent instance: a line goes out as a `log` frame of the invocation that printed it.
Which one that is says a context variable: tasks inherit it, and threads started by a handler are made to.
"""
import contextvars
import io
import logging
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

from .frames import LOG, LOG_FRAME_BYTES_MAX, LOG_STDERR, frame

# The invocation that the running code belongs to.
CURRENT = contextvars.ContextVar("faaster_invocation", default=None)


class LogLines(io.TextIOBase):
    """Stands in for sys.stdout or sys.stderr in a concurrent instance."""

    encoding = "utf-8"
    errors = "backslashreplace"

    def __init__(self, real, first, channel, flush_now):
        self._real = real  # the pipe: for what is printed outside of any invocation
        self._first = first  # LOG or LOG_STDERR
        self._channel = channel
        self._flush_now = flush_now  # writes frames unless a batch is about to do it
        self._bytes = LogBytes(self)

    def write(self, text):
        call = CURRENT.get()
        if call is not None:
            with self._channel.closing:
                if call._open:
                    self._add(call, text)
                    call = None
            if call is None:
                if "\n" in text:
                    self._flush_now()
                return len(text)
        return self._real.write(text)

    def _add(self, call, text):
        if call._lines is None:
            call._lines = {}
        begun = call._lines.get(self._first)
        whole = begun + text if begun else text
        end = whole.rfind("\n") + 1
        call._lines[self._first] = whole[end:]
        if end:
            self._post(call, whole[:end])

    def _post(self, call, text):
        data = text.encode("utf-8", "backslashreplace")
        for at in range(0, len(data), LOG_FRAME_BYTES_MAX):
            self._channel.out.append(frame(self._first, call._id, data[at : at + LOG_FRAME_BYTES_MAX]))

    def finish(self, call):
        """The invocation is being answered (under channel.closing): its unfinished line is ended for it."""
        rest = call._lines.get(self._first)
        if rest:
            self._post(call, rest + "\n")

    def flush(self):
        self._real.flush()

    def fileno(self):
        return self._real.fileno()

    def isatty(self):
        return False

    def writable(self):
        return True

    def reconfigure(self, **_options):
        """Accepted, for code that sets its encoding: ours is UTF-8 in any case."""

    @property
    def buffer(self):
        return self._bytes


class LogBytes(io.RawIOBase):
    """sys.stdout.buffer: the same, for bytes."""

    def __init__(self, lines):
        self._lines = lines

    def write(self, data):
        self._lines.write(bytes(data).decode("utf-8", "backslashreplace"))
        return len(data)

    def writable(self):
        return True


def attribute(channel, flush_now):
    """Makes prints of this concurrent process log frames. Returns `finish(call)`, to be called before an answer."""
    streams = (
        LogLines(sys.stdout, LOG, channel, flush_now),
        LogLines(sys.stderr, LOG_STDERR, channel, flush_now),
    )
    sys.stdout, sys.stderr = streams
    _follow_threads()

    def finish(call):
        for stream in streams:
            stream.finish(call)

    return finish


def _follow_threads():
    """Threads do not inherit context variables (before Python 3.14): a handler's own shall, or their lines are nobody's."""
    plain_start, plain_submit = threading.Thread.start, ThreadPoolExecutor.submit

    def start(self):
        if CURRENT.get() is not None:
            context, plain_run = contextvars.copy_context(), self.run
            self.run = lambda: context.run(plain_run)
        return plain_start(self)

    def submit(self, function, /, *args, **kwargs):
        if CURRENT.get() is None:
            return plain_submit(self, function, *args, **kwargs)
        return plain_submit(self, contextvars.copy_context().run, function, *args, **kwargs)

    threading.Thread.start, ThreadPoolExecutor.submit = start, submit


class _LastResort(logging.Handler):
    """Lines of a program that never configured logging, in the format that AWS's runtime gives them.

    As `logging.lastResort` and not as a handler of the root logger, so that basicConfig() still works.
    """

    def format(self, record):
        call = CURRENT.get()
        message = super().format(record)
        stamp = time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(record.created)) + f".{int(record.msecs):03d}Z"
        return f"[{record.levelname}]\t{stamp}\t{call.aws_request_id if call is not None else ''}\t{message}\n"

    def emit(self, record):
        try:
            sys.stderr.write(self.format(record))
        except Exception:
            self.handleError(record)


def prepare():
    """For both kinds of instance, before any code of the user runs. Done once: a fork server does it for its children, which
    would write to some sixty pages for it that they share."""
    if isinstance(logging.lastResort, _LastResort):
        return
    sys.stdout.reconfigure(line_buffering=True, errors="backslashreplace")
    sys.stderr.reconfigure(line_buffering=True, errors="backslashreplace")
    logging.lastResort = _LastResort()


def flush():
    """Unfinished lines of an exclusive instance. A user may have replaced, closed or broken the streams."""
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (AttributeError, ValueError, OSError):
            pass
