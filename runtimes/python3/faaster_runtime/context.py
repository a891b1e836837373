"""The context object that a handler gets. It is the runtime's record of the invocation as well.

Owns: what is asked of it only; ids and the client context are decoded when a handler looks at them.
"""
import json
import time


class Record(dict):
    """A JSON object whose members are attributes too; a missing one is None, as in AWS's contexts."""

    def __getattr__(self, name):
        return self.get(name)


def function_context(load):
    """The context class of one function. `load` is the meta of the load frame; what all calls share is on the class."""

    class Context:
        # __dict__ is made only if somebody sets an attribute that is not listed.
        __slots__ = ("_id", "_deadline", "_meta", "_body", "_open", "__dict__", "__weakref__")

        function_name = load.get("functionName", "")
        function_version = load.get("functionVersion", "$LATEST")
        function_brn = invoked_function_arn = load.get("brn", "")
        log_group_name = "/faaster/" + function_name
        log_stream_name = function_version
        identity = None

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
                decoded = self._decoded = json.loads(self._meta) if self._meta else {}
            return decoded

        @property
        def aws_request_id(self):
            return self._info.get("requestId", "")

        request_id = aws_request_id

        @property
        def memory_limit_in_mb(self):
            # A call says it only where it was edited since the load.
            return self._info.get("memoryMB", load.get("memoryMB", 0))

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
                return load.get("timeoutMs", 0)
            return max(0, (self._deadline - time.monotonic_ns()) // 1_000_000)

        def log(self, message):
            print(message, end="" if str(message).endswith("\n") else "\n")

        def __repr__(self):
            return (
                f"Context(aws_request_id={self.aws_request_id!r}, function_name={self.function_name!r}, "
                f"function_version={self.function_version!r}, memory_limit_in_mb={self.memory_limit_in_mb!r}, "
                f"invoked_function_arn={self.invoked_function_arn!r})"
            )

    return Context
