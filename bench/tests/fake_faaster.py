#!/usr/bin/env python3
"""Stands in for `faaster serve` in the tests of the runner: the same processes, the same API, no containers.

The function `hello` answers what every hello answers; environment variable FAKE_WRONG_AFTER=N makes it answer wrongly
from the Nth call on, with status 200, as a broken engine might.
"""

import base64
import ctypes
import io
import json
import os
import signal
import subprocess
import sys
import threading
import zipfile
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

ROLE = "FAKE_ROLE"
WRONG_AFTER = int(os.environ.get("FAKE_WRONG_AFTER", "0"))
functions, called, calls = {}, set(), 0


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def answer(self, status, body=b"", headers=None):
        self.send_response(status)
        for name, value in {"Content-Length": len(body), **(headers or {})}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(body)

    def do_GET(self):
        known = {"/readyz": b"ok", "/healthz": b"hello controller", "/v1/instances": b'[{"function":"hello"}]'}
        body = known.get(self.path)
        self.answer(404 if body is None else 200, body or b"")

    def do_POST(self):
        global calls
        body = self.rfile.read(int(self.headers["Content-Length"]))
        path = self.path.partition("?")[0]
        if path.endswith("/invocations"):
            # By BRN or by name.
            name = path.split(":")[-2] if ":" in path else path.split("/")[3]
            calls += 1
            if name not in functions or self.headers["X-easyfaas-Account-Id"] is None or not json.loads(body):
                self.answer(404)
            elif WRONG_AFTER and calls >= WRONG_AFTER:
                self.answer(200, b"Hello wrong!", {"X-Easyfaas-Function-Error": "Unhandled"})
            else:
                first = name not in called
                called.add(name)
                self.answer(200, b"Hello world!", {"Server-Timing": "claim;dur=1.5, run;dur=0.5"} if first else None)
            return
        create = json.loads(body)
        with zipfile.ZipFile(io.BytesIO(base64.b64decode(create["Code"]))) as archive:
            functions[self.path.rsplit("/", 1)[1]] = archive.namelist()
        self.answer(200)

    def do_DELETE(self):
        name = self.path.rsplit("/", 1)[1]
        self.answer(404 if functions.pop(name, None) is None else 200)

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True
    request_queue_size = 256


def flag(name):
    return sys.argv[sys.argv.index(name) + 1]


def main():
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # die with the parent
    role = os.environ.get(ROLE)
    if role is None:
        assert sys.argv[1] == "serve" and os.path.isdir(flag("--data")) and os.path.isdir(flag("--run"))
        children = [
            subprocess.Popen([f"faaster {kind}", *sys.argv], executable=sys.executable, env={**os.environ, ROLE: kind})
            for kind in ("funclet", "engine")
        ]
        signal.signal(signal.SIGTERM, lambda *_: sys.exit(0))
        try:
            signal.pause()
        finally:
            for child in children:
                child.kill()
                child.wait()
    elif role == "funclet":
        container = subprocess.Popen(["sleep", "1000"])
        signal.pause()
        container.kill()
    else:
        registry = Server(("127.0.0.1", int(flag("--registry-listen").rsplit(":", 1)[1])), Handler)

        threading.Thread(target=registry.serve_forever, daemon=True).start()
        Server(("127.0.0.1", int(flag("--listen").rsplit(":", 1)[1])), Handler).serve_forever()


if __name__ == "__main__":
    main()
