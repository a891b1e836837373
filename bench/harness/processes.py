"""Processes of the run: started pinned, watched while they come up, ended in order.

Signals go through pidfds, and only to processes that this run started.
"""

import os
import select
import signal
import socket
import subprocess
import tempfile
import time
from dataclasses import dataclass

from .errors import Invalid

START_SECONDS_MAX = 20.0
STOP_SECONDS_MAX = 20.0
POLL_SECONDS = 0.02
LOG_TAIL_BYTES = 2000
# The runner has pinned itself to one core, and whatever it starts inherits that.
EVERY_CORE = f"0-{os.cpu_count() - 1}"


class Process:
    """One started program."""

    def __init__(self, name, argv, work, core=None, cwd=None):
        self.name = name
        self.core = core
        self.argv = [str(part) for part in argv]
        pinned = ["taskset", "-c", EVERY_CORE if core is None else str(core)]
        self.log_path = work / f"{name}.log"
        # The engine refuses unknown variables of its own; a benchmark must not depend on the caller's either.
        environment = {k: v for k, v in os.environ.items() if not k.startswith("FAASTER_")}
        with open(self.log_path, "ab") as log:
            self.popen = subprocess.Popen(
                pinned + self.argv, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=cwd, env=environment
            )
        self.pid = self.popen.pid
        self.pidfd = os.pidfd_open(self.pid)

    def command_line(self):
        return " ".join(["taskset", "-c", EVERY_CORE if self.core is None else str(self.core), *self.argv])

    def log_tail(self):
        text = self.log_path.read_bytes()[-LOG_TAIL_BYTES:].decode(errors="replace").strip()
        return text or "(it printed nothing)"

    def ensure_running(self):
        if self.popen.poll() is not None:
            raise Invalid(f"{self.name} ended with code {self.popen.returncode}: {self.log_tail()}")

    def stop(self):
        """SIGTERM, and SIGKILL where that is not enough. Returns once the process is gone."""
        if self.pidfd is None:
            return
        for number, seconds in ((signal.SIGTERM, STOP_SECONDS_MAX), (signal.SIGKILL, STOP_SECONDS_MAX)):
            if self.popen.poll() is None:
                signal.pidfd_send_signal(self.pidfd, number)
                select.select([self.pidfd], [], [], seconds)
        os.close(self.pidfd)
        self.pidfd = None
        self.popen.wait()


@dataclass(frozen=True)
class Ended:
    """A program that has run to its end."""

    code: int
    output: str
    said: str
    cpu_seconds: float


def put_ahead(pid):
    """Raises the session of a process, where the kernel knows such groups and lets us."""
    try:
        with open(f"/proc/{pid}/autogroup", "w") as file:
            file.write("-20")
    except OSError:
        pass


def run_counted(argv, core=None, environment=None):
    """Runs a program to its end, pinned to a core; what it printed, and the CPU time of it and its children.

    It has a session of its own, ahead of all others: where the kernel groups tasks by session (sched(7), autogroup), a
    nice value counts within a session only, and whatever else the machine does would keep a generator from its core."""
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    argv = pinned + [str(part) for part in argv]
    with tempfile.TemporaryFile("w+") as said:
        with subprocess.Popen(
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=said,
            text=True,
            env=environment,
            start_new_session=True,
        ) as process:
            put_ahead(process.pid)
            output = process.stdout.read()
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        said.seek(0)
        return Ended(process.returncode, output, said.read().strip(), used.ru_utime + used.ru_stime)


def until(process, what, ready):
    """Polls `ready` until it is true; fails when `process` ends or the time is up."""
    deadline = time.monotonic() + START_SECONDS_MAX
    while not ready():
        process.ensure_running()
        if time.monotonic() > deadline:
            raise Invalid(f"{process.name}: {what} did not happen in {START_SECONDS_MAX:.0f} s: {process.log_tail()}")
        time.sleep(POLL_SECONDS)


def accepts(port):
    """Whether something accepts connections on the loopback port."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def accepts_unix(path):
    """Whether something accepts connections on the unix socket."""
    with socket.socket(socket.AF_UNIX) as probe:
        return probe.connect_ex(str(path)) == 0


def free_port():
    """A loopback port that was free a moment ago."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
