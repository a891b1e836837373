"""What tests of deployed functions share: an engine per class with its state at rest, calls held by gates, raw connections."""

import base64
import collections
import json
import os
import re
import socket
import threading
import unittest
from pathlib import Path

from support import machine
from support.http_client import ACCOUNT, quoted, request
from support.node import Node, zipped
from support.wait import PATIENCE_S, until

FUNCTIONS = Path(__file__).resolve().parent.parent / "functions"
ACCOUNT_HASH = "8f6e5a28c663957ea04522547a66d08f"
JSON = {"Content-Type": "application/json"}
# How often the state at rest must look the same.
STEADY_LOOKS = 10


def source(name, language="python3"):
    """The files of tests/functions/LANGUAGE/NAME."""
    folder = FUNCTIONS / language / name
    files = {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*")
             if path.is_file() and "__pycache__" not in path.parts}
    assert files, f"{folder} is empty"
    return files


def brn(name, version="$LATEST"):
    return f"brn:cloud:faas:bj:{ACCOUNT_HASH}:function:{name}:{version}"


def tail_of(answer):
    """The log tail that an answer carries, as text."""
    encoded = answer.headers["X-Bce-Log-Result"]
    assert encoded, f"no log tail: {dict(answer.headers)}"
    return base64.b64decode(encoded).decode(errors="replace")


def printed(answer):
    """The lines of a log tail that the function printed, without the engine's own."""
    return [line for line in tail_of(answer).splitlines() if not re.match(r"(START|END|REPORT) RequestID: ", line)]


# --- what a node says of itself ---------------------------------------------------------------------------


def get_json(address, path):
    answer = request(address, "GET", path)
    assert answer.status == 200, f"{path}: {answer}"
    return answer.json()


def instances(node, name=None):
    """Running instances, of one function or all."""
    listed = get_json(node.controller, "/v1/instances")["Instances"]
    return [one for one in listed if name is None or one["FunctionName"] == name]


def used_memory(node):
    """Bytes of memory promised to functions."""
    return get_json(node.controller, "/v1/resource")["Used"]["Memory"]


def counter(node, name):
    """A counter of all shards together."""
    return sum(shard["Counters"][name] for shard in get_json(node.controller, "/v1/node")["Shards"])


def queued(node, name):
    """Calls that wait for an instance of a function's $LATEST."""
    key = f"{ACCOUNT_HASH}:{name}:$LATEST"
    return sum(shard["Queued"].get(key, 0) for shard in get_json(node.controller, "/v1/node")["Shards"])


def cold_containers(node):
    return [one for one in get_json(node.controller, "/v1/runtimes") if one["State"] == "cold"]


def remove(node, name):
    """Deletes all versions of a function."""
    return request(node.registry, "DELETE", f"/v1/functions/{quoted(name)}")


def publish(node, name, files):
    """Publishes a layer's version; its `NAME:VERSION`."""
    body = {"Content": {"ZipFile": base64.b64encode(zipped(files)).decode()}}
    answer = request(node.registry, "POST", f"/v1/layers/{quoted(name)}/versions", json.dumps(body), JSON)
    assert answer.status == 200, answer
    return f"{name}:{answer.json()['Version']}"


def unpublish(node, layer):
    name, version = layer.split(":")
    return request(node.registry, "DELETE", f"/v1/layers/{quoted(name)}/versions/{version}")


def log_of(node, name):
    """Everything that a function is known to have printed."""
    ended = node.cli("logs", name)
    assert ended.returncode == 0, ended.stderr
    return ended.stdout


def count_fds(pid):
    try:
        return len(os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return -1


def count_settled_fds(pid):
    """As count_fds, without what a funclet holds of networks: those of ended containers wait some seconds for others, and
    go by themselves (funclet tests, reuse::a_network_that_nobody_gets_goes)."""
    def is_of_network(target):
        return target.startswith("net:[") or target.startswith("socket:[") and target[8:-1] not in own

    try:
        tables = "".join(Path(f"/proc/{pid}/net/{name}").read_text() for name in ("unix", "netlink"))
        own = set(tables.split())
        return sum(not is_of_network(os.readlink(f"/proc/{pid}/fd/{name}")) for name in os.listdir(f"/proc/{pid}/fd"))
    except FileNotFoundError:
        return -1


def count_mounts(pid):
    try:
        return len(Path(f"/proc/{pid}/mountinfo").read_text().splitlines())
    except (FileNotFoundError, ProcessLookupError, OSError):
        return -1


def state(node):
    """Everything that a node holds and that a leak would add to."""
    funclets, engine = node.funclet_pids(), node.children("faaster engine")
    family = machine.descendants(node.process.pid)
    groups = [below for top in machine.cgroups_of(node.instance) for below, _, _ in os.walk(top)]
    zombies = [pid for pid in family if (machine.stat_of(pid) or ("", "", 0))[1] == "Z"]
    return {
        "processes": len(family),
        "zombies": len(zombies),
        "supervisor fds": count_fds(node.process.pid),
        "supervisor mounts": count_mounts(node.process.pid),
        "engine fds": [count_fds(pid) for pid in engine],
        "funclet fds": [count_settled_fds(pid) for pid in funclets],
        "funclet mounts": [count_mounts(pid) for pid in funclets],
        "cgroups": len(groups),
        "run files": len(list(node.run.rglob("*"))),
    }


class Told:
    """A message that is made when it is needed."""

    def __init__(self, text):
        self.text = text

    def __str__(self):
        return self.text()


def steady_state(node, containers):
    """The state of a node without functions, once its pool holds so many containers and nothing changes any more."""
    until(lambda: len(cold_containers(node)) == containers, f"{containers} prepared containers")
    seen = []

    def same():
        seen.append(state(node))
        return len(seen) >= STEADY_LOOKS and all(look == seen[-1] for look in seen[-STEADY_LOOKS:])

    until(same, Told(lambda: f"a steady state, not {seen[-2:]}"), interval_s=0.05)
    return seen[-1]


class EngineCase(unittest.TestCase):
    """Tests that share one engine. After the last one nothing of what they did may be left in it, or on the machine."""

    POOL = {"python3": 2, "nodejs": 0, "ruby": 0, "provided": 0}
    ARGUMENTS = ()

    @classmethod
    def setUpClass(cls):
        pool = ",".join(f"{name}={count}" for name, count in cls.POOL.items())
        cls.deployed = set()
        cls.node = Node(f"--pool={pool}", *cls.arguments())
        cls.before_start(cls.node)
        cls.node.start()
        cls.addClassCleanup(cls.node.__exit__, None, None, None)
        until(lambda: len(cold_containers(cls.node)) == cls.prepared(), "a full pool")
        # Whatever is made once and kept, is made now.
        cls.deploy("warmup", "def handler(event, context):\n    print('warm')\n    return 'warm'\n")
        answer = cls.node.invoke("warmup")
        assert (answer.status, answer.text) == (200, "warm"), answer
        cls.remove_all()
        cls.at_rest = steady_state(cls.node, cls.prepared())

    @classmethod
    def arguments(cls):
        return cls.ARGUMENTS

    @classmethod
    def before_start(cls, node):
        """What must be there when the engine starts."""

    @classmethod
    def prepared(cls):
        return sum(cls.POOL.values())

    @classmethod
    def tearDownClass(cls):
        engine = cls.node.ready["engine"]
        cls.remove_all()
        assert cls.node.children("faaster engine") == [engine], f"the engine was started again: {cls.node.errors()}"
        last = {}

        def rested():
            last.update(state(cls.node))
            return last == cls.at_rest

        def difference():
            changed = {key: (cls.at_rest[key], last[key]) for key in last if last[key] != cls.at_rest[key]}
            return f"everything as before the tests; (before, now): {changed}"

        until(rested, Told(difference))

    @classmethod
    def remove_all(cls):
        for name in sorted(cls.deployed):
            remove(cls.node, name)
        cls.deployed.clear()
        until(lambda: not instances(cls.node), "no instance left")

    @classmethod
    def deploy(cls, name, files, **options):
        cls.deployed.add(name)
        return cls.node.deploy(name, files, **options)

    def create(self, name, code=None, **fields):
        """A create that may be refused."""
        type(self).deployed.add(name)
        body = dict(fields)
        if code is not None:
            body["Code"] = base64.b64encode(code).decode()
        return request(self.node.registry, "POST", f"/v1/functions/{quoted(name)}", json.dumps(body), JSON)

    def good(self, answer):
        """The body of an answer without an error."""
        self.assertEqual((answer.status, answer.headers["X-Easyfaas-Function-Error"]), (200, None), answer)
        return answer

    def failed(self, answer):
        """The error object of a function's error."""
        self.assertEqual((answer.status, answer.headers["X-Easyfaas-Function-Error"]), (200, "Unhandled"), answer)
        return answer.json()

    def lost(self, answer, more=""):
        """The call's process ended before it answered: FaaSter's sentence, with `more` behind it."""
        self.assertEqual((answer.status, answer.headers["X-Easyfaas-Function-Error"]), (200, "Unhandled"), answer)
        request_id = answer.headers["X-Easyfaas-Request-Id"]
        sentence = f"RequestID: {request_id} Process exited before completing request"
        self.assertEqual(answer.text, sentence + more)

    def log_says(self, name, pattern):
        """The function's log comes to hold `pattern`."""
        until(lambda: re.search(pattern, log_of(self.node, name)), f"the log of {name} to say {pattern}")

    def call(self, name, event=b"{}", **options):
        """The body of a call that must succeed, as JSON."""
        return self.good(self.node.invoke(name, event, **options)).json()


# --- calls ------------------------------------------------------------------------------------------------


class Call(threading.Thread):
    """A call in the background."""

    def __init__(self, node, name, event=b"{}", headers=None, timeout_s=PATIENCE_S):
        super().__init__(daemon=True)
        self.about = (node, name, event, headers, timeout_s)
        self.result = self.error = None
        self.start()

    def run(self):
        node, name, event, headers, timeout_s = self.about
        try:
            self.result = node.invoke(name, event, headers=headers, timeout_s=timeout_s)
        except OSError as error:
            self.error = error

    def answer(self):
        self.join(2 * PATIENCE_S)
        assert not self.is_alive(), f"no answer to {self.about[1:3]}"
        assert self.error is None, f"{self.about[1:3]}: {self.error!r}"
        return self.result


def answers(calls):
    return [call.answer() for call in calls]


class Gate:
    """A call that waits in its container for the test: it has made /tmp/gate-NAME and goes on once that is gone."""

    def __init__(self, node, name):
        self.name = name
        self.pids = until(lambda: gates(node).get(name), f"gate {name}")

    def open(self):
        for pid in self.pids:
            try:
                os.unlink(f"/proc/{pid}/root/tmp/gate-{self.name}")
                return
            except (FileNotFoundError, ProcessLookupError):
                continue
        raise AssertionError(f"gate {self.name} is gone; its container had {self.pids}")

    def dead(self):
        """Whether every process of the container is gone."""
        return not [pid for pid in self.pids if machine.alive(pid)]


def gates(node):
    """Gates that are closed now, with the pids of the processes in their container."""
    found = collections.defaultdict(list)
    for pid in sorted(machine.descendants(node.process.pid)):
        try:
            names = os.listdir(f"/proc/{pid}/root/tmp")
        except OSError:
            continue
        for name in names:
            if name.startswith("gate-"):
                found[name.removeprefix("gate-")].append(pid)
    return dict(found)


# --- raw connections --------------------------------------------------------------------------------------


class Reply:
    """Status, headers by lower-case name, body."""

    def __init__(self, status, headers, body, head):
        self.status, self.headers, self.body, self.head = status, headers, body, head

    @property
    def text(self):
        return self.body.decode()

    def json(self):
        return json.loads(self.body)

    def __repr__(self):
        return f"<{self.status} {self.headers} {self.body[:200]!r}>"


class Wire:
    """A TCP connection on which the test writes every byte itself."""

    def __init__(self, address, patience_s=PATIENCE_S):
        host, port = address.rsplit(":", 1)
        self.socket = socket.create_connection((host, int(port)), patience_s)
        self.held = b""

    def __enter__(self):
        return self

    def __exit__(self, *_error):
        self.close()

    def close(self):
        self.socket.close()

    def send(self, data):
        self.socket.sendall(data.encode() if isinstance(data, str) else data)
        return self

    def end_sending(self):
        self.socket.shutdown(socket.SHUT_WR)
        return self

    def _more(self):
        try:
            got = self.socket.recv(65536)
        except ConnectionResetError:
            got = b""
        self.held += got
        return got

    def _until(self, mark):
        while mark not in self.held:
            if not self._more():
                raise AssertionError(f"the connection ended after {self.held[:300]!r}")
        part, self.held = self.held.split(mark, 1)
        return part

    def _exactly(self, count):
        while len(self.held) < count:
            if not self._more():
                raise AssertionError(f"the connection ended {count - len(self.held)} bytes before the end of a body")
        part, self.held = self.held[:count], self.held[count:]
        return part

    def answer(self, to="GET"):
        """The next answer; `to` is the method of its request, as it decides whether there is a body."""
        head = self._until(b"\r\n\r\n").decode("latin-1")
        first, *lines = head.split("\r\n")
        match = re.fullmatch(r"HTTP/1\.1 ([1-5][0-9][0-9]) ([ -~]*)", first)
        assert match, f"no status line: {first!r}"
        status, headers = int(match.group(1)), {}
        for line in lines:
            name, value = line.split(":", 1)
            assert name == name.strip() and name.lower() not in headers, f"bad or repeated header {line!r}"
            headers[name.lower()] = value.strip()
        body = b""
        if to == "HEAD" or status < 200 or status in (204, 304):
            return Reply(status, headers, body, head)
        if headers.get("transfer-encoding") == "chunked":
            while size := int(self._until(b"\r\n").split(b";")[0], 16):
                body += self._exactly(size)
                assert self._exactly(2) == b"\r\n"
            assert self._until(b"\r\n") == b""
        else:
            body = self._exactly(int(headers["content-length"]))
        return Reply(status, headers, body, head)

    def ended(self):
        """Whether the other side closes now and sends nothing more."""
        while self._more():
            pass
        return self.held == b""


def head(method, path, *lines, host="localhost"):
    """The bytes of a request head."""
    return "\r\n".join((f"{method} {path} HTTP/1.1", f"Host: {host}", *lines, "", ""))


def post(path, body=b"{}", *lines):
    """The bytes of a POST with its length."""
    body = body.encode() if isinstance(body, str) else body
    return head("POST", path, f"Content-Length: {len(body)}", *lines).encode() + body


def invocation(name, event=b"{}", *lines):
    """The bytes of a call of $LATEST."""
    event = event if isinstance(event, (bytes, str)) else json.dumps(event)
    return post(f"/v1/functions/{name}/invocations?Qualifier=$LATEST", event, f"X-easyfaas-Account-Id: {ACCOUNT}", *lines)
