"""The disk budget of code: functions of more code than it are all called in turns, and nothing in use is ever taken away."""

import base64
import io
import json
import os
import re
import signal
import threading
import unittest
import zipfile

from support import machine
from support.deploy import JSON, Call, Gate, get_json, instances, source
from support.http_client import request
from support.node import Node, zipped
from support.wait import PATIENCE_S, patience, timeout, until

MEBIBYTE = 1 << 20
# The least that may be configured.
BUDGET_MB = 250
# Two fit, a third does not.
CODE_MB = 90
FUNCTIONS = [f"large{number}" for number in range(5)]
SHA = re.compile(r"[0-9a-f]{64}")


def package(name):
    """A function that says its name and what it finds beside itself."""
    handler = f"""import os
def handler(event, context):
    here = os.path.dirname(__file__)
    return ["{name}", os.path.getsize(here + "/data"), open(here + "/last").read()]
"""
    return {"index.py": handler, "data": bytes(CODE_MB * MEBIBYTE), "last": name}


def create(node, name, files, seconds):
    """Asks for a function whose zip is small and whose code is not."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        for file, content in files.items():
            archive.writestr(file, content)
    body = {"Runtime": "python3", "Code": base64.b64encode(out.getvalue()).decode(), "Timeout": timeout(seconds)}
    return request(node.registry, "POST", f"/v1/functions/{name}", json.dumps(body), JSON)


def deploy(node, name, files, seconds=60):
    answer = create(node, name, files, seconds)
    assert answer.status == 200, answer


def expected(name):
    return [name, CODE_MB * MEBIBYTE, name]


def kill(pid):
    """SIGKILL through a pidfd."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def counters(node):
    return get_json(node.controller, "/v1/node")["CodeDisk"]


def bytes_in(folder):
    """Bytes of all files below a folder, whatever comes and goes meanwhile; links count once."""
    seen, total = set(), 0
    for top, _, names in os.walk(folder):
        for name in names:
            try:
                found = os.lstat(os.path.join(top, name))
            except FileNotFoundError:
                continue
            if found.st_ino not in seen:
                seen.add(found.st_ino)
                total += found.st_size
    return total


def unpacked(node):
    """Packages that are unpacked now."""
    return {name for name in os.listdir(node.data / "code") if SHA.fullmatch(name)}


class Watch(threading.Thread):
    """Measures the code directory all the time; the most that it saw."""

    def __init__(self, node):
        super().__init__(daemon=True)
        self.folder, self.most, self.enough = node.data / "code", 0, threading.Event()
        self.start()

    def run(self):
        while not self.enough.wait(0.02):
            self.most = max(self.most, bytes_in(self.folder))

    def __enter__(self):
        return self

    def __exit__(self, kind, _error, _trace):
        self.enough.set()
        self.join(PATIENCE_S)
        if kind is None:
            assert 0 < self.most <= BUDGET_MB * MEBIBYTE, f"{self.most} bytes of code"


class CodeBudgetCase(unittest.TestCase):
    def node(self, *arguments):
        return Node(f"--code-disk={BUDGET_MB}MiB", "--pool=python3=2,nodejs=0,ruby=0,provided=0", *arguments)

    def good(self, node, name):
        answer = node.invoke(name)
        self.assertEqual((answer.status, answer.headers["X-Easyfaas-Function-Error"]), (200, None), answer)
        self.assertEqual(answer.json(), expected(name))

    def deploy_all(self, node, names=FUNCTIONS):
        for name in names:
            deploy(node, name, package(name))


class TurnsTest(CodeBudgetCase):
    def test_more_code_than_the_budget_is_called_in_turns(self):
        # Instances rest for longer than the test takes: those that hold code in the way are ended for it.
        with self.node("--max-runtime-idle=3600s") as node, Watch(node):
            self.deploy_all(node)
            self.assertEqual(len(os.listdir(node.data / "code")), len(FUNCTIONS) + len(unpacked(node)))
            self.assertLessEqual(len(unpacked(node)), 2)
            for _ in range(3):
                for name in FUNCTIONS:
                    self.good(node, name)
                    self.good(node, name)
            said = counters(node)
            self.assertLessEqual(said["Bytes"], said["BudgetBytes"])
            self.assertEqual(said["RefusedTotal"], 0)
            self.assertGreaterEqual(said["EvictedTotal"], 2 * len(FUNCTIONS))
            self.assertGreaterEqual(said["UnpackedAgainTotal"], 2 * len(FUNCTIONS))
            self.assertGreaterEqual(said["InstancesEndedTotal"], 2 * len(FUNCTIONS))
            # What the node says it has is what is there.
            self.assertEqual(said["Bytes"], bytes_in(node.data / "code"))

    def test_the_budget_holds_over_kill_9_of_engine_and_funclet(self):
        with self.node("--max-runtime-idle=3600s") as node, Watch(node):
            self.deploy_all(node)
            for victim in ("engine", "funclet", "engine"):
                # In the middle of it: one is being unpacked while its process dies.
                before = counters(node)["UnpackedAgainTotal"]
                name = next(one for one in FUNCTIONS if one not in {it["FunctionName"] for it in instances(node)})
                self.interrupt(node, name, victim, before)
                for name in FUNCTIONS:
                    self.good(node, name)
                self.assertFalse([name for name in os.listdir(node.data / "code") if name.startswith(".")])

    def interrupt(self, node, name, victim, before):
        """Kills a process while a function's code is on its way, and waits until calls are answered again."""
        calls = [threading.Thread(target=self.any_answer, args=(node, name), daemon=True)]
        calls[0].start()
        (pid,) = node.children(f"faaster {victim}")
        working = lambda: any(entry.startswith(".") for entry in os.listdir(node.data / "code"))
        until(lambda: working() or counters(node)["UnpackedAgainTotal"] > before, "code on its way")
        node.note_processes()
        kill(pid)
        until(lambda: not machine.alive(pid), f"the {victim} dead")
        calls[0].join(PATIENCE_S)
        self.assertFalse(calls[0].is_alive(), "the call has an end")
        until(lambda: self.answers(node, name), f"{name} answers again")

    @staticmethod
    def any_answer(node, name):
        try:
            node.invoke(name)
        except OSError:
            pass

    @staticmethod
    def answers(node, name):
        try:
            answer = node.invoke(name)
            return answer.status == 200 and answer.headers["X-Easyfaas-Function-Error"] is None
        except (OSError, ValueError):
            return False


class InUseTest(CodeBudgetCase):
    def test_what_runs_is_never_taken_away(self):
        held = {**source("gate"), "data": bytes(CODE_MB * MEBIBYTE)}
        with self.node() as node, Watch(node):
            # Two that are busy leave no room for a third.
            for name in ("busy1", "busy2"):
                deploy(node, name, {**held, "last": name}, 120)
            calls = [Call(node, name, {"name": name}) for name in ("busy1", "busy2")]
            gates = [Gate(node, name) for name in ("busy1", "busy2")]
            there = unpacked(node)
            refused = create(node, "large0", package("large0"), 60)
            self.assertEqual((refused.status, "code_disk" in refused.text), (507, True), refused)
            self.assertEqual(unpacked(node), there)
            self.assertEqual(counters(node)["RefusedTotal"], 1)
            for gate in gates:
                self.assertFalse(gate.dead())
                for pid in gate.pids:
                    # As the function sees it: whole.
                    if os.path.exists(f"/proc/{pid}/root/var/task/data"):
                        self.assertEqual(os.path.getsize(f"/proc/{pid}/root/var/task/data"), CODE_MB * MEBIBYTE)
                        break
                else:
                    self.fail("no process of the function sees its code")
            # One answers: its instance has no call any more, and makes room, for the other still has one.
            gates[0].open()
            self.assertEqual(calls[0].answer().status, 200)
            deploy(node, "large0", package("large0"))
            self.good(node, "large0")
            self.assertEqual([one["FunctionName"] for one in instances(node) if one["FunctionName"] == "busy1"], [])
            self.assertFalse(gates[1].dead())
            gates[1].open()
            self.assertEqual(calls[1].answer().status, 200)
            answer = node.invoke("busy1", {"name": "again", "wait": False})
            self.assertEqual((answer.status, answer.headers["X-Easyfaas-Function-Error"]), (200, None), answer)

    def test_a_call_without_room_waits_and_is_refused_at_its_time(self):
        held = {**source("gate"), "data": bytes(CODE_MB * MEBIBYTE)}
        with self.node() as node:
            deploy(node, "waits", package("waits"), 2)
            for name in ("busy1", "busy2"):
                deploy(node, name, {**held, "last": name}, 120)
            calls = [Call(node, name, {"name": name}) for name in ("busy1", "busy2")]
            gates = [Gate(node, name) for name in ("busy1", "busy2")]
            answer = node.invoke("waits")
            self.assertEqual((answer.status, bool(answer.headers["Retry-After"])), (429, True), answer)
            for gate in gates:
                gate.open()
            self.assertEqual([call.answer().status for call in calls], [200, 200])
            self.good(node, "waits")


class IdleTest(CodeBudgetCase):
    def test_code_that_nobody_called_for_long_goes_and_comes_back(self):
        with self.node("--code-idle=1s", "--max-runtime-idle=1s") as node:
            node.deploy("f", "def handler(event, context):\n    return 'here'\n")
            for turn in range(2):
                self.assertEqual(node.invoke("f").text, "here")
                until(lambda: not unpacked(node), "the code gone", patience_s=patience(60))
                self.assertEqual(counters(node)["EvictedTotal"], turn + 1)
            self.assertEqual(node.invoke("f").text, "here")
            self.assertEqual(request(node.registry, "GET", "/v1/functions/f/code").status, 200)

    def test_layers_go_and_come_back_with_the_function(self):
        with self.node("--code-idle=1s", "--max-runtime-idle=1s") as node:
            for layer in ("one", "two"):
                body = {"Content": {"ZipFile": base64.b64encode(zipped({"same": layer, layer: layer})).decode()}}
                answer = request(node.registry, "POST", f"/v1/layers/{layer}/versions", json.dumps(body), JSON)
                self.assertEqual(answer.status, 200, answer)
            read = "def handler(event, context):\n    return [open('/opt/' + name).read() for name in ('same', 'one', 'two')]\n"
            node.deploy("merged", read, Layers=["one:1", "two:1"])
            for _ in range(2):
                self.assertEqual(node.invoke("merged").json(), ["two", "one", "two"])
                # The function, its layers, and what they were merged to.
                until(lambda: not unpacked(node), "all of it gone", patience_s=patience(60))
            # The next engine knows what the merged one was made of.
            self.assertEqual(node.stop(), 0)
            node.start()
            self.assertEqual(node.invoke("merged").json(), ["two", "one", "two"])
            self.assertEqual(len(unpacked(node)), 4)
