"""The context object that a handler gets. It is the runtime's record of the invocation as well.

Owns: what is asked of it only; ids and the client context are decoded when a handler looks at them.
"""
import time

from .result import decode_event


class Record(dict):
    """A JSON object whose members are attributes too; a missing one is None, as in AWS's contexts."""

    def __getattr__(self, name):
        return self.get(name)


class Context:
    """One invocation. What all of its function's have in common is on the class, of which a process needs one."""

    # __dict__ is made only if somebody sets an attribute that is not listed.
    __slots__ = ("_id", "_deadline", "_meta", "_body", "_open", "__dict__", "__weakref__")

    function_name = ""
    function_version = "$LATEST"
    function_brn = invoked_function_arn = ""
    log_group_name = "/faaster/"
    log_stream_name = "$LATEST"
    identity = None
    # Of the load frame.
    _memory_mb = _timeout_ms = 0

    _cancelled = False
    _lines = None  # unfinished lines by stream (logs.py)
    _decoded = None

    def __init__(self, invocation, deadline_ns, meta, body):
        self._id = invocation
        self._deadline = deadline_ns
        self._meta = meta
        self._body = body
        self._open = True  # not answered yet: log frames may carry its id

    @property
    def _info(self):
        decoded = self._decoded
        if decoded is None:
            decoded = self._decoded = decode_event(self._meta) if self._meta else {}
        return decoded

    @property
    def aws_request_id(self):
        return self._info.get("requestId", "")

    request_id = aws_request_id

    @property
    def memory_limit_in_mb(self):
        # A call says it only where it was edited since the load.
        return self._info.get("memoryMB", self._memory_mb)

    @property
    def client_context(self):
        raw = self._info.get("clientContext")
        if not isinstance(raw, dict):
            return raw
        record = Record(raw)
        if isinstance(record.get("client"), dict):
            record["client"] = Record(record["client"])
        return record

    def get_remaining_time_in_millis(self):
        """Milliseconds until the engine answers for the handler; the function's whole time if there is no deadline."""
        if not self._deadline:
            return self._timeout_ms
        return max(0, (self._deadline - time.monotonic_ns()) // 1_000_000)

    def log(self, message):
        print(message, end="" if str(message).endswith("\n") else "\n")

    def __repr__(self):
        return (
            f"Context(aws_request_id={self.aws_request_id!r}, function_name={self.function_name!r}, "
            f"function_version={self.function_version!r}, memory_limit_in_mb={self.memory_limit_in_mb!r}, "
            f"invoked_function_arn={self.invoked_function_arn!r})"
        )


def function_context(load):
    """The context class of this process's function. `load` is the meta of the load frame.

    Not a class for each: to make one writes to some forty pages that a fork server's children share.
    """
    Context.function_name = load.get("functionName", "")
    Context.function_version = Context.log_stream_name = load.get("functionVersion", "$LATEST")
    Context.function_brn = Context.invoked_function_arn = load.get("brn", "")
    Context.log_group_name = "/faaster/" + Context.function_name
    Context._memory_mb = load.get("memoryMB", 0)
    Context._timeout_ms = load.get("timeoutMs", 0)
    return Context
