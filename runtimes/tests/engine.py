"""Plays the engine for one runtime process: spawns it as its runtime.toml says, with a socket as fd 3, and speaks frames.

Enforces what the engine enforces: ids in flight, one answer per invocation, credit, sizes of parts, log frames before the answer.
"""
import json
import os
import select
import shutil
import socket
import subprocess
import tempfile
import time
import tomllib
from dataclasses import dataclass, field
from pathlib import Path

import wire

RUNTIMES_DIR = Path(__file__).resolve().parent.parent
# A bound on hangs, never a measure: nothing is decided by how fast a machine is.
PATIENCE_S = 30.0


class Unavailable(Exception):
    """This runtime or this function cannot be run here; the reason is for the reader of the test's output."""


class Ended(AssertionError):
    """The process has closed its channel."""


@dataclass
class Runtime:
    """A runtime's folder and what its runtime.toml says."""

    folder: Path
    about: dict
    interpreter: str

    @classmethod
    def find(cls, name):
        folder = RUNTIMES_DIR / name
        about = tomllib.loads((folder / "runtime.toml").read_text())
        found = [path for path in about["interpreters"] if os.access(path, os.X_OK)]
        if about["kind"] == "pooled" and not found:
            raise Unavailable(f"none of {about['interpreters']} is there")
        return cls(folder, about, found[0] if found else "")

    def argv(self, task_dir):
        places = {"{interpreter}": self.interpreter, "/var/runtime": str(self.folder), "/var/task": str(task_dir)}
        words = []
        for word in self.about["argv"]:
            for mark, place in places.items():
                word = word.replace(mark, place)
            words.append(word)
        return words

    def put_function(self, case, task_dir):
        """Copies or builds the function of a case into `task_dir`."""
        build = self.folder / "conformance" / "build"
        for source in (self.folder / "conformance" / case, self.folder / "examples" / case):
            if source.is_dir():
                shutil.copytree(source, task_dir, dirs_exist_ok=True)
                return
        if build.exists():
            done = subprocess.run([build, case, task_dir], capture_output=True, text=True)
            if done.returncode == 0:
                return
            raise Unavailable((done.stdout + done.stderr).strip().splitlines()[-1])
        raise Unavailable(f"no function '{case}' for {self.about['name']}")


@dataclass
class Answer:
    """All that came for one invocation."""

    kind: str = ""  # "response" or "error"
    body: bytes = b""
    parts: int = 0
    stdout: str = ""
    stderr: str = ""
    done: bool = False
    credit: int = wire.RESULT_CREDIT_BYTES
    granted_by_hand: bool = False

    @property
    def error(self):
        assert self.kind == "error", f"expected an error, got {self.kind}: {self.body[:200]!r}"
        return json.loads(self.body)

    @property
    def value(self):
        return json.loads(self.text)

    @property
    def text(self):
        assert self.kind == "response", f"expected a response, got {self.kind}: {self.body[:2000]!r}"
        return self.body.decode()


@dataclass
class Instance:
    """One process of a runtime with one function. Use as a context manager."""

    runtime: Runtime
    case: str
    handler: str = ""
    concurrency: int = 0
    env: dict = field(default_factory=dict)
    timeout_ms: int = 5000
    start: bool = True  # load and wait for ready

    def __enter__(self):
        self.task = tempfile.TemporaryDirectory(prefix="faaster-runtime-test-")
        try:
            self.runtime.put_function(self.case, self.task.name)
            self._spawn()
            self.answers = {}
            # It said that it is about to end.
            self.dying = False
            self.last_id = 0
            self.buffer = bytearray()
            self.hello = None
            self.load_error = None
            self.boot()
            if self.start:
                self.load()
                self.wait_ready()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_):
        if hasattr(self, "process"):
            self.channel.close()
            if self.process.poll() is None:
                self.process.kill()
            self.process.wait()
            self.stdout.close()
            self.stderr.close()
        self.task.cleanup()

    @property
    def handler_name(self):
        if self.exec_kind:
            return self.handler or self.case  # one program with several handlers
        return self.handler or self.runtime.about["default_handler"]

    @property
    def exec_kind(self):
        return self.runtime.about["kind"] == "exec"

    def _spawn(self):
        env = dict(self.runtime.about.get("env", {}))
        env["FAASTER_IMPORTS"] = " ".join(self.runtime.about.get("imports", []))
        env["FAASTER_TASK_DIR"] = self.task.name
        env["FAASTER_RUNTIME_DIR"] = str(self.runtime.folder)
        if self.exec_kind:
            env |= {**self.env, "FAASTER_HANDLER": self.handler_name, "FAASTER_FUNCTION_NAME": "conformance"}
            env |= {"FAASTER_CONCURRENCY": str(self.concurrency), "FAASTER_MEMORY_MB": "128"}
        self.channel, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        out_read, out_write = os.pipe()
        err_read, err_write = os.pipe()
        self.stdout, self.stderr = os.fdopen(out_read, "rb", 0), os.fdopen(err_read, "rb", 0)
        for stream in (out_read, err_read):
            os.set_blocking(stream, False)
        fd = theirs.fileno()
        try:
            self.process = subprocess.Popen(
                self.runtime.argv(self.task.name),
                stdin=subprocess.DEVNULL,
                stdout=out_write,
                stderr=err_write,
                env=env,
                cwd="/",
                pass_fds=(3,),
                preexec_fn=lambda: os.dup2(fd, 3, True),
            )
        finally:
            theirs.close()
            os.close(out_write)
            os.close(err_write)
        self.channel.setblocking(False)

    # --- life -------------------------------------------------------------------------------------------

    def boot(self):
        """A pooled runtime says hello before it knows any function."""
        if not self.exec_kind:
            frame = self.next_frame()
            assert frame.kind == wire.HELLO, f"expected hello, got {frame}"
            assert frame.meta["protocol"] == 1 and frame.meta["runtime"], frame.meta
            self.hello = frame.meta

    def load(self):
        if self.exec_kind:
            return
        about = {
            "functionName": "conformance",
            "functionVersion": "7",
            "brn": "brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:conformance:7",
            "handler": self.handler_name,
            "memoryMB": 128,
            "timeoutMs": self.timeout_ms,
            "concurrency": self.concurrency,
            "userId": "8f6e5a28c663957ea04522547a66d08f",
            "env": self.env,
            "somethingNew": {"ignored": True},
        }
        self.send(wire.pack(wire.LOAD, meta=about))

    def wait_ready(self):
        frame = self.next_frame()
        if frame.kind == wire.ERROR and frame.invocation == 0:
            raise AssertionError(f"load failed: {frame.body.decode()}")
        assert frame.kind == wire.READY, f"expected ready, got {frame}"
        self.ready = frame.meta

    def wait_load_error(self):
        """The error object of a function that cannot be loaded; the process must end by itself after it."""
        frame = self.next_frame()
        assert frame.kind == wire.ERROR and frame.invocation == 0, f"expected an error about no invocation, got {frame}"
        return json.loads(frame.body)

    def wait_exit(self):
        """The exit code of a process that is expected to end by itself."""
        return self.process.wait(timeout=PATIENCE_S)

    @property
    def concurrent(self):
        return self.exec_kind or "concurrent" in self.hello.get("features", [])

    # --- frames -----------------------------------------------------------------------------------------

    def send(self, data):
        """Writes all of it; what arrives meanwhile is kept, as the engine does."""
        view, deadline = memoryview(data), time.monotonic() + PATIENCE_S
        while view:
            assert time.monotonic() < deadline, "the runtime does not read"
            readable, writable, _ = select.select([self.channel], [self.channel], [], 1.0)
            if readable:
                self._fill()
            if writable:
                try:
                    view = view[self.channel.send(view) :]
                except BlockingIOError:
                    pass

    def _fill(self):
        try:
            data = self.channel.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            data = b""
        if not data:
            raise Ended(f"the runtime has closed its channel; stderr: {self.read_log('stderr')}")
        self.buffer += data

    def next_frame(self, patience_s=PATIENCE_S):
        """The next frame, or None if nothing came for `patience_s`."""
        deadline = time.monotonic() + patience_s
        while True:
            frame = wire.take(self.buffer)
            if frame is not None:
                return frame
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([self.channel], [], [], left)[0]:
                assert patience_s < PATIENCE_S, f"no frame in {patience_s} s; stderr: {self.read_log('stderr')}"
                return None
            self._fill()

    def frame_for_invocation(self, frame):
        """Books one frame to its invocation, with the engine's checks."""
        if frame.kind == wire.ERROR and frame.invocation == 0:
            # The process says that it will end; what is in flight is still answered.
            self.dying = True
            return
        answer = self.answers.get(frame.invocation)
        assert answer is not None, f"{frame} is about an invocation that never was"
        assert not answer.done, f"{frame} is about an invocation that was answered"
        if frame.kind == wire.LOG:
            if frame.flags & wire.STDERR:
                answer.stderr += frame.body.decode()
            else:
                answer.stdout += frame.body.decode()
            return
        assert not frame.flags & wire.STDERR
        if frame.kind == wire.ERROR:
            assert not frame.more
            answer.kind, answer.body, answer.done = "error", frame.body, True
            return
        assert frame.kind == wire.RESPONSE, f"unexpected {frame}"
        if frame.more or answer.parts:
            assert len(frame.body) <= wire.RESULT_PART_BYTES_MAX, f"a part of {len(frame.body)} bytes"
            answer.credit -= len(frame.body)
            assert answer.credit >= 0, "more was sent than granted"
        else:
            assert len(frame.body) <= wire.RESULT_FRAME_BYTES_MAX, f"a result of {len(frame.body)} bytes in one frame"
        answer.kind = "response"
        answer.body += frame.body
        answer.parts += 1
        answer.done = not frame.more
        if frame.more and not answer.granted_by_hand:
            self.grant(frame.invocation, len(frame.body))

    def grant(self, invocation, credit):
        self.answers[invocation].credit += credit
        self.send(wire.pack(wire.WINDOW, invocation, credit=credit))

    # --- invocations ------------------------------------------------------------------------------------

    def begin(self, event, *, raw=False, meta=None, deadline_ns=0, send=True):
        """Sends one invocation (or returns it as bytes, with `send=False`); returns its id."""
        self.last_id += 1
        body = event if raw else json.dumps(event, ensure_ascii=False).encode()
        data = wire.pack_invoke(self.last_id, body, meta=meta, deadline_ns=deadline_ns)
        self.answers[self.last_id] = Answer()
        if send:
            self.send(data)
            return self.last_id
        return self.last_id, data

    def wait(self, *invocations):
        """Reads frames until all of these are answered; returns their answers."""
        while not all(self.answers[invocation].done for invocation in invocations):
            self.frame_for_invocation(self.next_frame())
        return [self.answers[invocation] for invocation in invocations]

    def call(self, event, **options):
        return self.wait(self.begin(event, **options))[0]

    def call_all(self, events):
        """All events in one write."""
        begun = [self.begin(event, send=False) for event in events]
        self.send(b"".join(data for _, data in begun))
        return self.wait(*[invocation for invocation, _ in begun])

    # --- the process ------------------------------------------------------------------------------------

    def read_log(self, name):
        """What standard output or error hold right now, without waiting."""
        try:
            data = getattr(self, name).read(1 << 20)
        except BlockingIOError:
            data = None
        return (data or b"").decode(errors="replace")

    def writes(self):
        """Write system calls that the process has made so far."""
        with open(f"/proc/{self.process.pid}/io", encoding="ascii") as stats:
            return int(dict(line.split(": ") for line in stats.read().splitlines())["syscw"])

    def cpu_ns(self):
        """CPU time that all threads of the process have used (its CPU clock, clock_getcpuclockid(3))."""
        return time.clock_gettime_ns((~self.process.pid << 3) | 2)
