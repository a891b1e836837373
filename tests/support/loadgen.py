"""The load generator as the system tests use it: its program, its commands, and servers that it talks to."""

import http.server
import json
import socket
import subprocess
import threading
import types

from support.node import built, clean_environment
from support.wait import PATIENCE_S

VALID, FAILED, REFUSED, INVALID = range(4)


def program():
    """The loadgen program under test."""
    return built("loadgen", "LOADGEN_BIN")


def start(*arguments, env=None, **options):
    """Starts `loadgen ARGUMENTS`."""
    kept = {name: value for name, value in clean_environment().items() if not name.startswith("AWS_")}
    options.setdefault("stdout", subprocess.PIPE)
    options.setdefault("stderr", subprocess.PIPE)
    return subprocess.Popen([program(), *map(str, arguments)], env={**kept, **(env or {})}, text=True, **options)


def loadgen(*arguments, codes=(VALID, INVALID), env=None):
    """Runs `loadgen ARGUMENTS` to its end. Whether a run is valid depends on the machine, unless `codes` says otherwise."""
    with start(*arguments, env=env) as process:
        stdout, stderr = process.communicate(timeout=4 * PATIENCE_S)
    assert process.returncode in codes, (process.returncode, stdout, stderr)
    return subprocess.CompletedProcess(arguments, process.returncode, stdout, stderr)


def measured(*arguments, **options):
    """A result as an object."""
    ended = loadgen(*arguments, "--json", **options)
    assert ended.stdout.count("\n") == 1, ended.stdout
    result = json.loads(ended.stdout)
    assert result["valid"] == (ended.returncode == VALID), ended
    return result


class Recorder(http.server.ThreadingHTTPServer):
    """A server that keeps what it was asked for; `reply(request)` gives status, headers and body."""

    daemon_threads = True
    request_queue_size = 1024

    def __init__(self, reply):
        self.reply = reply
        self.requests = []
        super().__init__(("127.0.0.1", 0), Handler)
        self.address = "127.0.0.1:%d" % self.server_address[1]
        self.url = f"http://{self.address}"
        self.thread = threading.Thread(target=self.serve_forever, kwargs={"poll_interval": 0.05}, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.shutdown()
        self.server_close()
        self.thread.join(PATIENCE_S)

    def handle_error(self, request, client_address):
        # Clients may go away in the middle.
        pass


class Handler(http.server.BaseHTTPRequestHandler):
    """One request after the other of a connection."""

    protocol_version = "HTTP/1.1"

    def setup(self):
        super().setup()
        self.connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)

    def handle_any(self):
        # The handler serves a whole connection, so that each request is kept as an object of its own.
        asked = types.SimpleNamespace(command=self.command, path=self.path, headers=self.headers,
                                      body=self.rfile.read(int(self.headers.get("Content-Length", 0))))
        self.server.requests.append(asked)
        status, headers, body = self.server.reply(asked)
        self.send_response_only(status)
        for name, value in {**headers, "Content-Length": len(body)}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_DELETE = handle_any

    def log_message(self, *_):
        pass
