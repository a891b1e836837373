"""The runner's own requests: to check answers and to deploy."""

import http.client
import selectors
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


def answer_bytes(name, target):
    """Bytes of one checked answer, head and body, as they come over the wire."""
    with socket.create_connection(("127.0.0.1", target.port), timeout=ANSWER_SECONDS_MAX) as connection:
        connection.sendall(target.head_and_body())
        received = b""
        while b"\r\n\r\n" not in received:
            received += _more(connection)
        head, body = received.split(b"\r\n\r\n", 1)
        lines = head.decode("latin-1").split("\r\n")
        fields = {name.strip().lower(): value.strip() for name, _, value in (line.partition(":") for line in lines[1:])}
        if "content-length" not in fields:
            raise Invalid(f"{name}: an answer without Content-Length cannot be counted here: {head[:200]!r}")
        while len(body) < int(fields["content-length"]):
            body += _more(connection)
    status = int(lines[0].split()[1])
    if status != 200 or body != target.expected:
        raise Invalid(f"{name} answers {target.path} with {status} {body[:200]!r}, expected 200 {target.expected!r}")
    return len(head) + 4 + len(body)


def at_once(name, targets):
    """Calls every target at the same moment, each on a connection that stands already. Milliseconds until each answer was
    whole, in the order of the targets; fails if one is wrong."""
    asks = [target.head_and_body() for target in targets]
    connections = [socket.create_connection(("127.0.0.1", target.port)) for target in targets]
    received, took = [b""] * len(targets), [0.0] * len(targets)
    try:
        with selectors.DefaultSelector() as ready:
            for number, connection in enumerate(connections):
                connection.setblocking(False)
                ready.register(connection, selectors.EVENT_READ, number)
            began = time.monotonic()
            for connection, ask in zip(connections, asks, strict=True):
                connection.sendall(ask)
            missing = len(targets)
            while missing:
                left = began + ANSWER_SECONDS_MAX - time.monotonic()
                events = ready.select(max(0.0, left))
                if not events:
                    raise Invalid(f"{name}: {missing} of {len(targets)} calls are not answered in {ANSWER_SECONDS_MAX} s")
                for key, _ in events:
                    more = key.fileobj.recv(65536)
                    took[key.data] = (time.monotonic() - began) * 1e3
                    received[key.data] += more
                    if not more or _is_whole(received[key.data]):
                        ready.unregister(key.fileobj)
                        missing -= 1
    finally:
        for connection in connections:
            connection.close()
    for answer, target in zip(received, targets, strict=True):
        if not answer.startswith(b"HTTP/1.1 200 ") or not answer.endswith(b"\r\n\r\n" + target.expected):
            raise Invalid(f"{name}: a call was answered {answer[:300]!r}")
    return took


def _is_whole(answer):
    """Whether an answer, which must tell its length, has all of its bytes."""
    head, end, body = answer.partition(b"\r\n\r\n")
    if not end:
        return False
    for line in head.split(b"\r\n")[1:]:
        field, _, value = line.partition(b":")
        if field.lower() == b"content-length":
            return len(body) >= int(value)
    return False


def _more(connection):
    more = connection.recv(65536)
    if not more:
        raise Invalid("the connection was closed within an answer")
    return more
