"""The engine as a contender: `faaster serve` on loopback with a data directory of its own, driven over its API."""

import base64
import io
import json
import time
import zipfile

from . import cpu
from .contender import Contender
from .errors import Invalid
from .http_client import Target, call
from .processes import Process, free_port, until

ACCOUNT = "df391b08c64c426a81645468c75163a5"
# md5 of the account and the salt of FaaSter's dialect (docs/api.md).
OWNER = "8f6e5a28c663957ea04522547a66d08f"
HEADERS = {"Content-Type": "application/json", "X-easyfaas-Account-Id": ACCOUNT}
SETTLE_SECONDS_MAX = 60.0
SETTLE_POLL_SECONDS = 0.25
# The tree of processes is settled when none came or went and it used less than this share of a core.
SETTLED_SHARE = 0.02

PYTHON_ASYNC = 'async def handler(event, context):\n    return "Hello world!"\n'
PYTHON_PLAIN = 'def handler(event, context):\n    return "Hello world!"\n'
NODE = "exports.handler = async (event, context) => 'Hello world!';\n"
EXECUTABLE = 0o755 << 16
READABLE = 0o644 << 16


def zipped(files):
    """A zip of name to (bytes, mode)."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, (data, mode) in files.items():
            entry = zipfile.ZipInfo(name)
            entry.compress_type = zipfile.ZIP_DEFLATED
            entry.external_attr = mode
            archive.writestr(entry, data)
    return out.getvalue()


class Function:
    """What is deployed. `mark` makes the code differ from that of any other function, so that nothing is shared."""

    def __init__(self, setup, runtime, code=None):
        self.setup, self.runtime, self.code = setup, runtime, code

    def handler(self):
        """What the API asks for by that name."""
        return "hello" if self.runtime == "provided" else "index.handler"

    def archive(self, mark):
        note = {"mark.txt": (mark.encode(), READABLE)}
        if self.runtime == "provided":
            return zipped({"bootstrap": (self.setup.provided_bootstrap(), EXECUTABLE), **note})
        name = "index.js" if self.runtime.startswith("nodejs") else "index.py"
        return zipped({name: (self.code.encode(), READABLE), **note})


class Engine(Contender):
    """One engine; the function under load is `hello`. `shards` None means the default, `more` are flags of `serve`."""

    ACCOUNT = ACCOUNT

    def __init__(self, setup, name, function=None, quota=0, instances_max=None, core=None, shards=None, more=()):
        super().__init__(setup, name)
        self.more = more
        self.function, self.quota, self.instances_max = function, quota, instances_max
        self.core, self.shards = core, shards
        self.port, self.registry_port = free_port(), free_port()

    def start(self):
        # The engine proper drops to a user of its own, who must get through to its data.
        home = self.setup.work / self.name
        for part in (home, home / "data", home / "run"):
            part.mkdir(mode=0o755, exist_ok=True)
        argv = [
            self.setup.engine_program(),
            "serve",
            "--listen",
            f"127.0.0.1:{self.port}",
            "--registry-listen",
            f"127.0.0.1:{self.registry_port}",
            "--data",
            home / "data",
            "--run",
            home / "run",
        ]
        argv += [] if self.shards is None else ["--shards", self.shards]
        argv += self.more
        process = Process(self.name, argv, self.setup.work, self.core)
        self.started["supervisor"] = [process]
        until(process, "becoming ready", self._ready)
        self.settle()
        if self.function is not None:
            self.deploy("hello", self.function, self.quota, self.instances_max)
            self.target = self.function_target("hello")

    def __enter__(self):
        try:
            self.start()
        except BaseException:
            self.stop()
            raise
        return self

    def __exit__(self, *_):
        self.stop()

    def _ready(self):
        try:
            status = call(self.port, "GET", "/readyz")[0]
            return status == 200 or (status == 404 and call(self.port, "GET", "/healthz")[0] == 200)
        except OSError:
            return False

    def deploy(self, name, function, quota=0, instances_max=None):
        """Creates version 1 of a function."""
        create = {
            "Version": "1",
            "Runtime": function.runtime,
            "Handler": function.handler(),
            "Timeout": 30,
            "MemorySize": 128,
            "PodConcurrentQuota": quota,
            "Code": base64.b64encode(function.archive(f"{self.name} {name}")).decode(),
        }
        if instances_max is not None:
            create["MaxInstances"] = instances_max
        status, body, _ = call(
            self.registry_port, "POST", f"/v1/functions/{name}", json.dumps(create).encode(), HEADERS
        )
        if status != 200:
            raise Invalid(f"{self.name} refuses to deploy {name} ({function.runtime}): {status} {body[:300]!r}")

    def function_target(self, name):
        """The request that invokes a function."""
        return Target(
            self.port, f"/v1/functions/brn:cloud:faas:bj:{OWNER}:function:{name}:1/invocations", headers=HEADERS
        )

    def roles(self):
        """`front` is the engine process, `worker` all containers (the pool's idle ones too), `support` the rest."""
        by_parent = cpu.children()
        root = self.started["supervisor"][0].pid
        out = {"front": [], "worker": [], "support": [root]}
        for child in by_parent.get(root, []):
            what = role_of(child)
            out["front" if what == "engine" else "support"].append(child)
            out["front" if what == "engine" else "worker"] += cpu.tree(child, by_parent)[1:]
        if len(out["front"]) != 1:
            seen = {pid: command_line(pid) for pid in by_parent.get(root, [])}
            raise Invalid(f"{self.name}: cannot tell the engine process among the supervisor's children {seen}")
        return out

    def instances(self):
        """Instances that serve functions, from the engine's own account of them."""
        status, body, _ = call(self.port, "GET", "/v1/instances", headers=HEADERS)
        if status != 200:
            return None
        listed = json.loads(body)
        lists = (
            [listed] if isinstance(listed, list) else [value for value in listed.values() if isinstance(value, list)]
        )
        return len(lists[0]) if lists else None

    def settle(self):
        """Waits until the pool is full: no process comes or goes any more, and none has work."""
        root = self.started["supervisor"][0]
        deadline, before = time.monotonic() + SETTLE_SECONDS_MAX, None
        while True:
            now = cpu.snapshot(cpu.tree(root.pid))
            if before is not None and before.keys() == now.keys():
                if cpu.spent(before, now).total_ns < SETTLED_SHARE * SETTLE_POLL_SECONDS * 1e9:
                    return
            root.ensure_running()
            if time.monotonic() > deadline:
                raise Invalid(f"{self.name} does not come to rest in {SETTLE_SECONDS_MAX:.0f} s: {root.log_tail()}")
            before = now
            time.sleep(SETTLE_POLL_SECONDS)


def command_line(pid):
    """Arguments of a process."""
    try:
        with open(f"/proc/{pid}/cmdline", "rb") as file:
            return file.read().decode(errors="replace").strip("\0").split("\0")
    except OSError:
        return []


def role_of(pid):
    """`funclet` or `engine`: by the name that the process was started under, else by its user: only the engine is not
    root."""
    argv = command_line(pid)
    words = argv[0].split() + argv[1:2] if argv else []
    for role in ("funclet", "engine"):
        if role in words:
            return role
    try:
        with open(f"/proc/{pid}/status") as file:
            uid = next(line for line in file if line.startswith("Uid:")).split()[2]
    except OSError:
        return "funclet"
    return "funclet" if uid == "0" else "engine"
