"""The runner's own requests: to check answers and to deploy."""

import http.client
import socket
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


def _more(connection):
    more = connection.recv(65536)
    if not more:
        raise Invalid("the connection was closed within an answer")
    return more
