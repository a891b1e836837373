"""The runner's own requests: to check answers, to deploy, and to time cold starts."""

import http.client
import select
import socket
import time
from dataclasses import dataclass, field

from .errors import Invalid

ANSWER_SECONDS_MAX = 30.0
# AWS's test event for a hello function: what a user's JSON looks like.
EVENT = b'{"key1":"value1","key2":"value2","key3":"value3"}'
HELLO = b"Hello world!"


@dataclass
class Target:
    """A request and the answer that it must get."""

    port: int
    path: str
    method: str = "POST"
    body: bytes = EVENT
    headers: dict = field(default_factory=lambda: {"Content-Type": "application/json"})
    expected: bytes = HELLO

    def url(self):
        return f"http://127.0.0.1:{self.port}{self.path}"

    def head_and_body(self):
        """The request's bytes."""
        lines = [f"{self.method} {self.path} HTTP/1.1", f"Host: 127.0.0.1:{self.port}"]
        lines += [f"{name}: {value}" for name, value in self.headers.items()]
        if self.body:
            lines.append(f"Content-Length: {len(self.body)}")
        return "\r\n".join(lines).encode() + b"\r\n\r\n" + self.body


def call(port, method, path, body=b"", headers=None):
    """One request on a connection of its own: status, body, and headers with names in lower case."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=ANSWER_SECONDS_MAX)
    try:
        connection.request(method, path, body or None, headers or {})
        answer = connection.getresponse()
        return answer.status, answer.read(), {name.lower(): value for name, value in answer.getheaders()}
    finally:
        connection.close()


def check(name, target):
    """Fails unless the target answers 200 with the right body."""
    try:
        status, body, headers = call(target.port, target.method, target.path, target.body, target.headers)
    except (OSError, http.client.HTTPException) as error:
        raise Invalid(f"{name} does not answer {target.method} {target.path}: {error!r}") from error
    if status != 200 or body != target.expected or "x-easyfaas-function-error" in headers:
        raise Invalid(f"{name} answers {target.path} with {status} {body[:200]!r}, expected 200 {target.expected!r}")


class Probe:
    """One keep-alive connection whose answers are timed at their first byte. The connection is open before the clock
    runs, and the request is ready as bytes, so that little of the time is this program's."""

    def __init__(self, port):
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=ANSWER_SECONDS_MAX)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.started_ns = 0

    def close(self):
        self.socket.close()

    def send(self, request):
        self.started_ns = time.perf_counter_ns()
        self.socket.sendall(request)

    def receive(self):
        """The answer to the request sent last: nanoseconds to its first byte, status, body, bytes in all."""
        received = self.socket.recv(65536)
        first_ns = time.perf_counter_ns() - self.started_ns
        while b"\r\n\r\n" not in received:
            received += self._more()
        head, body = received.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "content-length" not in fields:
            raise Invalid(f"an answer without Content-Length cannot be timed here: {head[:200]!r}")
        while len(body) < int(fields["content-length"]):
            body += self._more()
        return first_ns, int(lines[0].split()[1]), body, len(head) + 4 + len(body)

    def _more(self):
        more = self.socket.recv(65536)
        if not more:
            raise Invalid("the connection was closed within an answer")
        return more


def answer_bytes(name, target):
    """Bytes of one checked answer, head and body."""
    probe = Probe(target.port)
    try:
        probe.send(target.head_and_body())
        answer = probe.receive()
    finally:
        probe.close()
    _milliseconds(name, target, answer)
    return answer[3]


def timed(name, probe, target):
    """Milliseconds to the first byte of one checked answer."""
    probe.send(target.head_and_body())
    return _milliseconds(name, target, probe.receive())


def timed_at_once(name, probes, targets):
    """The same for several requests sent together, each on its connection. Milliseconds, in the order of arrival."""
    requests = [target.head_and_body() for target in targets]
    for probe, request in zip(probes, requests, strict=True):
        probe.send(request)
    waiting = {probe.socket: (probe, target) for probe, target in zip(probes, targets, strict=True)}
    deadline, out = time.monotonic() + ANSWER_SECONDS_MAX, []
    while waiting:
        ready, _, _ = select.select(list(waiting), [], [], max(0.0, deadline - time.monotonic()))
        if not ready:
            raise Invalid(
                f"{name}: {len(waiting)} of {len(probes)} requests got no answer in {ANSWER_SECONDS_MAX:.0f} s"
            )
        for sock in ready:
            probe, target = waiting.pop(sock)
            out.append(_milliseconds(name, target, probe.receive()))
    return out


def _milliseconds(name, target, answer):
    first_ns, status, body, _ = answer
    if status != 200 or body != target.expected:
        raise Invalid(f"{name} answers {target.path} with {status} {body[:200]!r}, expected 200 {target.expected!r}")
    return first_ns / 1e6
