"""An engine under test: started with its own directories and ports, stopped, and examined for what it leaves."""

import base64
import io
import json
import os
import select
import shutil
import signal
import subprocess
import tempfile
import zipfile
from pathlib import Path

from support import machine
from support.http_client import quoted, request
from support.wait import PATIENCE_S, TIME_FACTOR, patience, timeout, until

ROOT = Path(__file__).resolve().parent.parent.parent


def built(name, variable):
    """A program of the workspace: the one that an environment variable names, or what is built, release before debug."""
    given = os.environ.get(variable)
    choices = [given] if given else [ROOT / "target" / profile / name for profile in ("release", "debug")]
    for choice in choices:
        if Path(choice).is_file():
            return str(choice)
    raise AssertionError(f"no {name} program: run tests/run, or build it and set {variable}")


def program():
    """The faaster program under test."""
    return built("faaster", "FAASTER_BIN")


def clean_environment(**extra):
    """This environment without settings of faaster."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("FAASTER_")}
    return {**kept, **extra}


def run_command(*arguments, timeout_s=PATIENCE_S, **options):
    """Runs `faaster ARGUMENTS` to its end."""
    options.setdefault("env", clean_environment())
    return subprocess.run(
        [program(), *map(str, arguments)], capture_output=True, text=True, timeout=timeout_s, **options,
    )


def zipped(files):
    """A zip of {name: text or bytes}."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            info = zipfile.ZipInfo(name)
            info.external_attr = (0o100755 if name == "bootstrap" else 0o100644) << 16
            archive.writestr(info, content)
    return out.getvalue()


# Few prepared containers: a test needs one or two, and all of them boot at once.
POOLS = "python3=2,nodejs=1,ruby=1,provided=1"


class Node:
    """A running engine. Use as a context manager: the end checks that nothing is left."""

    def __init__(self, *arguments, grace="20s", home=None, env=None, before=()):
        # Not below /tmp or /run, which may be mounted noexec.
        self.home = Path(home or tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.owns_home = home is None
        # The engine's user must reach its data.
        self.home.chmod(0o755)
        self.data = self.home / "data"
        self.run = self.home / "run"
        self.arguments = [
            "serve", "--json", "--listen=127.0.0.1:0", "--registry-listen=127.0.0.1:0",
            f"--data={self.data}", f"--run={self.run}", f"--grace={grace}",
            f"--pool={POOLS}", f"--boot-timeout={patience(10)}s",
            # Tests compare the state at rest before and after; those of pools that grow say so.
            "--pool-max=0",
            # On a machine that is emulated the default would end runtimes that are only slow.
            f"--health-timeout={patience(5)}s", *arguments,
        ]
        self.env = env or {}
        # Words before the program: what starts it by exec.
        self.before = before
        self.process = None
        self.pidfd = None
        self.ready = None
        self.seen = set()
        self.errors_path = self.home / "stderr"

    # --- life ---------------------------------------------------------------------------------------------

    def start(self):
        """Starts the engine and waits until it says that it serves."""
        self.seen = set()
        with open(self.errors_path, "ab") as errors:
            self.process = subprocess.Popen(
                [*self.before, program(), *self.arguments], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=errors,
                env=clean_environment(**self.env),
            )
        self.pidfd = os.pidfd_open(self.process.pid)
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        line = self.process.stdout.readline() if readable else b""
        if not line:
            self.kill()
            raise AssertionError(f"the engine did not start (exit code {self.process.returncode}): {self.errors()}")
        self.ready = json.loads(line)
        self.controller = self.ready["controller"].removeprefix("http://")
        self.registry = self.ready["registry"].removeprefix("http://")
        self.instance = self.ready["instance"]
        self.note_processes()
        return self

    def note_processes(self):
        """Remembers which processes are the engine's, to look for them after its end."""
        self.seen |= machine.descendants(self.process.pid)
        return self.seen

    def signal(self, number):
        signal.pidfd_send_signal(self.pidfd, number)

    def wait(self, patience_s=PATIENCE_S):
        """Waits for the end of the supervisor and gives back its exit code; -N for signal N."""
        readable, _, _ = select.select([self.pidfd], [], [], patience_s)
        if not readable:
            raise AssertionError(f"the engine did not end within {patience_s} s: {self.errors()}")
        code = self.process.wait()
        self.process.stdout.close()
        os.close(self.pidfd)
        self.pidfd = None
        return code

    def stop(self):
        """Asks the engine to stop, and waits for its end."""
        self.note_processes()
        self.signal(signal.SIGTERM)
        return self.wait()

    def kill(self):
        """SIGKILL for the supervisor; all else must follow by itself."""
        self.note_processes()
        self.signal(signal.SIGKILL)
        return self.wait()

    def __enter__(self):
        return self.start() if self.process is None else self

    def __exit__(self, kind, _error, _trace):
        try:
            if self.pidfd is not None:
                code = self.stop()
                if kind is None and code != 0:
                    raise AssertionError(f"the engine ended with exit code {code}: {self.errors()}")
            if kind is None:
                self.assert_nothing_left()
        finally:
            if kind is not None:
                print(f"--- what the engine said:\n{self.errors()}")
            if self.owns_home:
                shutil.rmtree(self.home, ignore_errors=True)

    # --- what is there ------------------------------------------------------------------------------------

    def errors(self):
        """What the engine said on standard error."""
        return self.errors_path.read_text(errors="replace") if self.errors_path.exists() else ""

    def children(self, name):
        """Pids of the direct children whose command line begins with a name (`faaster engine`, `faaster funclet 0`)."""
        found = []
        for pid in machine.descendants(self.process.pid):
            stat = machine.stat_of(pid)
            if stat and stat[2] == self.process.pid:
                if machine.command_of(pid).startswith(name):
                    found.append(pid)
        return sorted(found)

    def engine_pid(self):
        """Pid of the engine, once there is one."""
        return until(lambda: self.children("faaster engine"), "an engine")[0]

    def funclet_pids(self):
        return self.children("faaster funclet")

    def assert_nothing_left(self):
        """No process, cgroup, mount, socket or run-time file of the engine is there any more."""
        until(lambda: not [pid for pid in self.seen if machine.stat_of(pid)], self.left_processes)
        if self.ready:
            until(lambda: not machine.cgroups_of(self.instance), f"cgroups of {self.instance} gone", patience_s=patience(10))
            for address in (self.controller, self.registry):
                assert machine.port_is_free(int(address.rsplit(":", 1)[1])), f"{address} is still taken"
        assert not machine.mounts_below(self.home), machine.mounts_below(self.home)
        assert not self.run.exists() or not any(self.run.iterdir()), list(self.run.rglob("*"))

    @property
    def left_processes(self):
        left = {pid: machine.stat_of(pid) for pid in self.seen}
        return f"processes gone (left: { {pid: stat for pid, stat in left.items() if stat} })"

    # --- use ----------------------------------------------------------------------------------------------

    def deploy(self, name, files, runtime="python3", handler="index.handler", account=None, **fields):
        """Creates a function from {file: content}; a text is the content of index.py or index.js."""
        if isinstance(files, str):
            files = {"index.js" if runtime.startswith("node") else "index.py": files}
        if TIME_FACTOR > 1:
            fields.setdefault("Timeout", timeout(5))
        body = {"Runtime": runtime, "Handler": handler, "Code": base64.b64encode(zipped(files)).decode(), **fields}
        headers = {"Content-Type": "application/json"}
        if account:
            headers["X-easyfaas-Account-Id"] = account
        answer = request(self.registry, "POST", f"/v1/functions/{quoted(name)}", json.dumps(body), headers)
        assert answer.status == 200, answer
        return answer

    def invoke(self, name, event=b"{}", qualifier="$LATEST", headers=None, timeout_s=PATIENCE_S):
        """Calls a function by name."""
        if not isinstance(event, (bytes, str)):
            event = json.dumps(event)
        path = f"/v1/functions/{quoted(name)}/invocations?Qualifier={quoted(qualifier)}"
        return request(self.controller, "POST", path, event, headers, timeout_s)

    def cli(self, *arguments, **options):
        """Runs a command of the command line against this engine."""
        where = [f"--controller=http://{self.controller}", f"--registry=http://{self.registry}"]
        return run_command(*arguments, *where, **options)
