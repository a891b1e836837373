"""Each way in which a function can fail: what the caller hears, and that nothing else suffers."""

import unittest

from support import machine
from support.deploy import (
    Call, EngineCase, Gate, Wire, answers, counter, gates, head, instances, invocation, log_of, queued, remove, source,
)
from support.http_client import request
from support.wait import timeout, until

EVENT_BYTES_MAX = 6_291_456
PIDS_MAX = 1024
# A function's time-out that tests wait for.
SHORT_S = timeout(1)
# Events that one shard keeps (ASYNC_QUEUE_MAX of engine/limits).
ASYNC_QUEUE_MAX = 1024


def processes_with(argument):
    """Pids of live processes that have this command line argument."""
    found = []
    for pid in machine.processes():
        try:
            line = (machine.PROC / str(pid) / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue
        if argument.encode() in line and machine.alive(pid):
            found.append(pid)
    return found


class FailureCase(EngineCase):
    def fresh_after(self, name, before):
        """The next call runs, and in another process than before."""
        token = self.good(self.node.invoke(name, {"do": "token"})).text
        self.assertRegex(token, "^[0-9a-f]{16}$")
        self.assertNotEqual(token, before)
        return token

    def token(self, name):
        return self.good(self.node.invoke(name, {"do": "token"})).text


class PythonFailureTest(FailureCase):
    """Exclusive Python functions."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("fails", source("failures"), Timeout=30, MaxInstances=1)
        cls.deploy("short", source("failures"), Timeout=SHORT_S, MaxInstances=1)

    def test_a_handler_that_throws(self):
        before = self.token("fails")
        error = self.failed(self.node.invoke("fails", {"do": "throw"}))
        self.assertEqual((error["errorMessage"], error["errorType"]), ("boom", "ValueError"))
        self.assertIn("index.py", "".join(error["stackTrace"]))
        self.assertNotIn("/var/runtime", "".join(error["stackTrace"]))
        self.assertEqual(self.token("fails"), before, "an exception costs no instance")

    def test_a_handler_that_never_returns(self):
        for way in ("sleep", "spin"):
            with self.subTest(way):
                before = self.token("short")
                call = Call(self.node, "short", {"do": way, "name": f"never-{way}"})
                gate = Gate(self.node, f"never-{way}")
                answer = call.answer()
                # Killed first, answered then: nothing happens after the time-out.
                self.assertTrue(gate.dead(), {pid: machine.stat_of(pid) for pid in gate.pids})
                request_id = answer.headers["X-Easyfaas-Request-Id"]
                self.assertEqual(self.failed(answer), {"errorMessage": f"{request_id} Task timed out after {SHORT_S} seconds"})
                self.fresh_after("short", before)

    def test_a_process_that_exits(self):
        for way, code in (("exit", 3), ("sysexit", 4), ("exit", 0)):
            with self.subTest(way, code=code):
                before = self.token("fails")
                answer = self.node.invoke("fails", {"do": way, "code": code})
                self.lost(answer)
                self.log_says("fails", f"Runtime exited with error: exit status {code}")
                self.fresh_after("fails", before)

    def test_a_process_that_is_killed(self):
        before = self.token("fails")
        self.lost(self.node.invoke("fails", {"do": "kill"}))
        self.log_says("fails", "Runtime exited with error: signal 9")
        self.fresh_after("fails", before)

    def test_a_process_that_runs_out_of_memory_is_named_so(self):
        before = self.token("fails")
        self.lost(self.node.invoke("fails", {"do": "memory"}), ": out of memory, its limit is 128 MB")
        self.log_says("fails", "Runtime ran out of memory: its limit is 128 MB, it used 12[78] MB at most")
        self.fresh_after("fails", before)

    def test_garbage_in_the_channel(self):
        before = self.token("fails")
        self.lost(self.node.invoke("fails", {"do": "garbage"}))
        self.log_says("fails", "Runtime was ended: it broke the frame protocol")
        self.fresh_after("fails", before)

    def test_a_fork_bomb_is_bounded_and_the_node_survives(self):
        self.deploy("bomb", source("failures"), Timeout=timeout(4), MemorySize=1024)
        self.deploy("bystander", source("failures"), Timeout=30)
        self.assertEqual(self.token("bystander"), self.token("bystander"))
        call = Call(self.node, "bomb", {"do": "bomb", "name": "bomb"})
        most = 0

        def big():
            nonlocal most
            most = max(most, len(gates(self.node).get("bomb", [])))
            return most >= 100 or not call.is_alive()

        until(big, "the bomb in full swing")
        self.assertTrue(call.is_alive(), "the bomb was over before it was one")
        self.assertGreaterEqual(most, 100)
        self.assertRegex(self.token("bystander"), "^[0-9a-f]{16}$")
        pids = gates(self.node).get("bomb", [])
        self.assertLessEqual(len(pids), PIDS_MAX)
        self.failed(call.answer())
        until(lambda: not [pid for pid in pids if machine.alive(pid)], "all of the bomb gone")
        self.assertRegex(self.token("bomb"), "^[0-9a-f]{16}$")

    def test_the_number_of_processes_has_an_end(self):
        self.deploy("forks", source("failures"), Timeout=60, MemorySize=2048)
        answer = self.call("forks", {"do": "forks"})
        self.assertEqual(answer["refusal"], "EAGAIN")
        self.assertTrue(PIDS_MAX // 2 < answer["children"] <= PIDS_MAX, answer)

    def test_tmp_fills_up_inside_alone(self):
        self.deploy("fills", source("failures"), Timeout=60, MemorySize=1024)
        for _ in range(2):  # the second one finds it empty again
            answer = self.call("fills", {"do": "fill"})
            self.assertEqual(answer["refusal"], "ENOSPC")
            self.assertTrue(256 <= answer["megabytes"] <= 1024, answer)
        answer = self.call("fills", {"do": "files"})
        self.assertEqual(answer["refusal"], "ENOSPC")
        self.assertTrue(1000 < answer["files"] < 1_000_000, answer)
        self.assertRegex(self.token("fails"), "^[0-9a-f]{16}$")

    def test_a_full_tmp_is_an_error_of_the_handler_not_the_end_of_it(self):
        """/tmp is memory of the container, and half as large: it is full before the memory is."""
        answer = self.good(self.node.invoke("fails", {"do": "fill"}))
        self.assertEqual(answer.json()["refusal"], "ENOSPC")

    def test_sigterm_can_be_ignored_but_nothing_follows_from_it(self):
        token = self.good(self.node.invoke("short", {"do": "stubborn"})).text
        call = Call(self.node, "short", {"do": "stubborn", "stay": True, "name": "stubborn"})
        gate = Gate(self.node, "stubborn")
        self.assertIn(f"Task timed out after {SHORT_S} seconds", self.failed(call.answer())["errorMessage"])
        self.assertTrue(gate.dead())
        self.fresh_after("short", token)

    def test_removing_a_function_ends_what_ignores_sigterm(self):
        self.deploy("deaf", source("failures"), Timeout=30)
        self.good(self.node.invoke("deaf", {"do": "stubborn"}))
        call = Call(self.node, "deaf", {"do": "token"})
        call.answer()
        self.assertEqual(remove(self.node, "deaf").status, 200)
        until(lambda: not instances(self.node, "deaf"), "the instance gone")

    def test_daemons_go_with_their_container(self):
        for number, end in ((987_654_321, "removed"), (987_654_322, "timed out"), (987_654_323, "exited")):
            with self.subTest(end):
                name = f"daemon-{number}"
                self.deploy(name, source("failures"), Timeout=timeout(2), MaxInstances=1)
                self.good(self.node.invoke(name, {"do": "daemon", "seconds": number}))
                until(lambda: len(processes_with(str(number))) == 1, "the daemon, which lives while its container does")
                if end == "removed":
                    remove(self.node, name)
                elif end == "timed out":
                    self.failed(self.node.invoke(name, {"do": "sleep"}))
                    self.assertEqual(processes_with(str(number)), [], "killed before the answer")
                else:
                    self.lost(self.node.invoke(name, {"do": "exit", "code": 1}))
                until(lambda: not processes_with(str(number)), f"daemon of the {end} function gone")

    def test_a_thread_that_goes_on_after_the_answer_harms_nobody(self):
        self.deploy("busy", source("failures"), Timeout=timeout(5))
        token = self.good(self.node.invoke("busy", {"do": "threads"})).text
        self.assertEqual(self.token("busy"), token)

    def test_a_handler_that_is_not_there(self):
        hello = "def handler(event, context):\n    return 'hello'\n"
        for name, files, handler, kind, words in (
            ("no-function", hello, "index.nothing", "Runtime.HandlerNotFound", "nothing"),
            ("no-module", hello, "nowhere.handler", "Runtime.ImportModuleError", "nowhere"),
            ("no-dot", hello, "handler", "Runtime.MalformedHandlerName", "handler"),
            ("no-import", "import not_there\n" + hello, "index.handler", "Runtime.ImportModuleError", "not_there"),
            ("syntax", "def handler(:\n", "index.handler", "Runtime.UserCodeSyntaxError", "index.py"),
            ("throws", "raise RuntimeError('at load')\n", "index.handler", "RuntimeError", "at load"),
        ):
            with self.subTest(name):
                self.deploy(name, files, handler=handler)
                for _ in range(2):
                    error = self.failed(self.node.invoke(name))
                    self.assertEqual(error["errorType"], kind)
                    self.assertIn(words, error["errorMessage"])
                until(lambda: not instances(self.node, name), "no instance of it stays")

    def test_a_function_that_exits_while_it_is_loaded(self):
        self.deploy("exits", "import os\nos._exit(7)\n")
        self.lost(self.node.invoke("exits"))
        self.log_says("exits", "exit status 7")

    def test_a_repaired_function_runs_at_once(self):
        self.deploy("repaired", "def handler(:\n")
        self.failed(self.node.invoke("repaired"))
        self.deploy("repaired", "def handler(event, context):\n    return 'well again'\n")
        self.assertEqual(self.good(self.node.invoke("repaired")).text, "well again")

    def test_an_event_that_is_no_json(self):
        before = self.token("fails")
        for event in (b"{", b"", b"\xff\xfe", b"nope"):
            answer = self.node.invoke("fails", event)
            error = self.failed(answer)
            # Nothing counts as {}, which has no "do".
            self.assertEqual(error["errorType"], "Runtime.UnmarshalError" if event else "KeyError")
        self.assertEqual(self.token("fails"), before)

    def test_a_result_that_json_cannot_say(self):
        self.deploy("unsayable", "def handler(event, context):\n    return {1, 2}\n")
        self.assertEqual(self.failed(self.node.invoke("unsayable"))["errorType"], "Runtime.MarshalError")

    def test_a_result_over_the_limit(self):
        self.deploy("large", "def handler(event, context):\n    return 'x' * event\n", Timeout=30)
        self.assertEqual(len(self.good(self.node.invoke("large", "6291556")).body), 6_291_556)
        self.assertEqual(self.failed(self.node.invoke("large", "6291557"))["errorType"], "Function.ResponseSizeTooLarge")


class NodeFailureTest(FailureCase):
    """Exclusive Node functions."""

    POOL = {"python3": 1, "nodejs": 2, "ruby": 0, "provided": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("fails", source("failures", "nodejs"), runtime="nodejs", Timeout=30, MaxInstances=1)
        cls.deploy("short", source("failures", "nodejs"), runtime="nodejs", Timeout=SHORT_S, MaxInstances=1)

    def test_a_handler_that_throws(self):
        before = self.token("fails")
        error = self.failed(self.node.invoke("fails", {"do": "throw"}))
        self.assertEqual((error["errorMessage"], error["errorType"]), ("boom", "TypeError"))
        self.assertIn("index.js", "".join(error["stackTrace"]))
        self.assertEqual(self.token("fails"), before)

    def test_an_exception_that_nobody_catches(self):
        for way, words in (("throw_later", "late boom"), ("reject_unhandled", "nobody looks")):
            with self.subTest(way):
                error = self.failed(self.node.invoke("fails", {"do": way}))
                self.assertIn(words, error["errorMessage"])
                self.assertRegex(self.token("fails"), "^[0-9a-f]{16}$")

    def test_a_handler_that_never_returns(self):
        for way in ("hang", "spin"):
            with self.subTest(way):
                before = self.token("short")
                call = Call(self.node, "short", {"do": way, "name": f"never-{way}"})
                gate = Gate(self.node, f"never-{way}")
                error = self.failed(call.answer())
                self.assertTrue(gate.dead())
                self.assertIn(f"Task timed out after {SHORT_S} seconds", error["errorMessage"])
                self.fresh_after("short", before)

    def test_ends_of_the_process(self):
        for way, more, cause in (
            ("kill", "", "signal 9"), ("garbage", "", "broke the frame protocol"),
            ("memory", ": out of memory, its limit is 128 MB", "ran out of memory"),
        ):
            with self.subTest(way):
                before = self.token("fails")
                self.lost(self.node.invoke("fails", {"do": way}), more)
                self.log_says("fails", cause)
                self.fresh_after("fails", before)

    def test_a_process_that_exits(self):
        before = self.token("fails")
        self.lost(self.node.invoke("fails", {"do": "exit", "code": 3}))
        self.log_says("fails", "exit status 3")
        self.fresh_after("fails", before)

    def test_sigterm_can_be_ignored(self):
        before = self.token("short")
        call = Call(self.node, "short", {"do": "stubborn", "name": "stubborn-node"})
        gate = Gate(self.node, "stubborn-node")
        self.failed(call.answer())
        self.assertTrue(gate.dead())
        self.fresh_after("short", before)

    def test_a_handler_that_is_not_there(self):
        for name, code, handler, kind in (
            ("no-function", "exports.other = 1;", "index.handler", "Runtime.HandlerNotFound"),
            ("no-module", "exports.handler = 1;", "nowhere.handler", "Runtime.ImportModuleError"),
            ("syntax", "exports.handler=(", "index.handler", "Runtime.UserCodeSyntaxError"),
        ):
            with self.subTest(name):
                self.deploy(name, code, runtime="nodejs", handler=handler)
                self.assertEqual(self.failed(self.node.invoke(name))["errorType"], kind)


class SharedFailureTest(FailureCase):
    """Instances that run many calls at once: one bad call must not fail its neighbours."""

    NEIGHBOURS = 63
    POOL = {"python3": 2, "nodejs": 1, "ruby": 0, "provided": 0}

    # Waits at its gate; an "old" call makes it only once less than half of its time is left, so that the calls
    # which the test starts then have much time left when it runs out.
    CODE = """
import os
import time
TOKEN = os.urandom(8).hex()
def handler(event, context):
    if event.get("do") == "token":
        return TOKEN
    while event.get("old") and context.get_remaining_time_in_millis() > event["old"]:
        time.sleep(0.01)
    path = "/tmp/gate-" + event["gate"]
    if event.get("make", True):
        open(path, "w").close()
    while os.path.exists(path):
        time.sleep(0.05)
    return TOKEN
"""

    def test_alone(self):
        self.deploy("alone", self.CODE, Timeout=SHORT_S, PodConcurrentQuota=64)
        before = self.token("alone")
        answer = self.node.invoke("alone", {"gate": "alone"})
        self.assertIn(f"Task timed out after {SHORT_S} seconds", self.failed(answer)["errorMessage"])
        self.fresh_after("alone", before)

    def test_among_63_neighbours_that_all_succeed(self):
        self.deploy("crowd", self.CODE, Timeout=timeout(8), PodConcurrentQuota=64)
        before = self.token("crowd")
        slow = Call(self.node, "crowd", {"gate": "slow", "old": timeout(4000)})
        slow_gate = Gate(self.node, "slow")
        first = Call(self.node, "crowd", {"gate": "crowd"})
        gate = Gate(self.node, "crowd")
        rest = [Call(self.node, "crowd", {"gate": "crowd", "make": False}) for _ in range(self.NEIGHBOURS - 1)]
        until(lambda: sum(one["InFlight"] for one in instances(self.node, "crowd")) == 1 + self.NEIGHBOURS, "all inside")
        self.assertEqual(len(instances(self.node, "crowd")), 1)
        self.assertIn(f"Task timed out after {timeout(8)} seconds", self.failed(slow.answer())["errorMessage"])
        self.assertTrue(all(call.is_alive() for call in [first, *rest]), "the neighbours go on")
        self.fresh_after("crowd", before)
        gate.open()
        for answer in answers([first, *rest]):
            self.assertEqual(self.good(answer).text, before)
        until(slow_gate.dead, "the instance with the lost call gone")

    def test_a_death_is_the_end_of_all_that_run_there_and_of_nobody_else(self):
        self.deploy("together", source("failures"), Timeout=30, PodConcurrentQuota=8)
        before = self.token("together")
        calls = [Call(self.node, "together", {"do": "sleep", "name": f"together-{n}"}) for n in range(4)]
        for number in range(4):
            Gate(self.node, f"together-{number}")
        self.lost(self.node.invoke("together", {"do": "exit", "code": 5}))
        for answer in answers(calls):
            self.lost(answer)
        self.log_says("together", "exit status 5")
        self.fresh_after("together", before)

    def test_an_exception_is_its_own_call_s_alone(self):
        self.deploy("throwing", source("failures"), Timeout=30, PodConcurrentQuota=8)
        token = self.token("throwing")
        calls = [Call(self.node, "throwing", {"do": "throw" if n % 2 else "token"}) for n in range(16)]
        for number, answer in enumerate(answers(calls)):
            if number % 2:
                self.assertEqual(self.failed(answer)["errorMessage"], "boom")
            else:
                self.assertEqual(self.good(answer).text, token)

    def test_a_promise_that_never_settles(self):
        self.deploy("promise", source("failures", "nodejs"), runtime="nodejs", Timeout=SHORT_S, PodConcurrentQuota=8)
        before = self.token("promise")
        self.assertIn("Task timed out", self.failed(self.node.invoke("promise", {"do": "hang"}))["errorMessage"])
        self.fresh_after("promise", before)


class ClientTest(EngineCase):
    """What clients do wrong, or what becomes of them."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("single", source("gate"), Timeout=60, MaxInstances=1)
        cls.deploy("size", "def handler(event, context):\n    return len(event)\n", Timeout=30)

    def test_a_client_that_leaves_while_it_waits_is_removed(self):
        first = Call(self.node, "single", {"name": "leave-1"})
        gate = Gate(self.node, "leave-1")
        with Wire(self.node.controller) as wire:
            wire.send(invocation("single", {"name": "leave-2", "wait": False}))
            until(lambda: queued(self.node, "single") == 1, "the call in the queue")
        until(lambda: queued(self.node, "single") == 0, "the call taken back")
        last = Call(self.node, "single", {"name": "leave-3", "wait": False})
        gate.open()
        self.good(first.answer())
        self.good(last.answer())
        until(lambda: "end leave-3" in log_of(self.node, "single"), "the log of the last call")
        self.assertNotIn("leave-2", log_of(self.node, "single"))

    def test_a_client_that_leaves_while_it_runs_does_not_stop_the_call(self):
        token = self.call("single", {"name": "before", "wait": False})["token"]
        with Wire(self.node.controller) as wire:
            wire.send(invocation("single", {"name": "running"}))
            gate = Gate(self.node, "running")
        gate.open()
        until(lambda: "end running" in log_of(self.node, "single"), "the call's end")
        self.assertEqual(self.call("single", {"name": "after", "wait": False})["token"], token)

    def test_a_client_that_only_closes_its_sending_side_gets_its_answer(self):
        with Wire(self.node.controller) as wire:
            wire.send(invocation("single", {"name": "half"})).end_sending()
            Gate(self.node, "half").open()
            self.assertEqual(wire.answer("POST").json()["name"], "half")
            self.assertTrue(wire.ended())

    def test_a_body_over_the_limit(self):
        path = "/v1/functions/size/invocations?Qualifier=$LATEST"
        with Wire(self.node.controller) as wire:
            wire.send(head("POST", path, f"Content-Length: {EVENT_BYTES_MAX + 1}"))
            answer = wire.answer("POST")
            self.assertEqual(answer.status, 413, answer)
            self.assertTrue(answer.text)
            self.assertTrue(wire.ended())
        with Wire(self.node.controller) as wire:
            wire.send(head("POST", path, "Transfer-Encoding: chunked"))
            try:
                for _ in range(8):
                    wire.send(b"100000\r\n" + b"x" * 0x100000 + b"\r\n")
            except (BrokenPipeError, ConnectionResetError):
                pass  # the answer is there already
            self.assertEqual(wire.answer("POST").status, 413)
        largest = b'"' + b"x" * (EVENT_BYTES_MAX - 2) + b'"'
        self.assertEqual(self.good(self.node.invoke("size", largest)).text, str(EVENT_BYTES_MAX - 2))

    def test_a_create_that_is_no_json(self):
        # 500 is FaaSter's word for a body that it cannot read at all, 400 for one that breaks a rule.
        for status, body, words in (
            (500, b'{"Version":', "JSON"), (500, b"[]", "JSON"), (500, b'{"Timeout":"5"}', "Timeout"),
            (500, b'{"Code":"***"}', "ase64"),
            (400, b'{"MemorySize":64}', "MemorySize"), (400, b'{"Timeout":-1}', "Timeout"), (400, b'{"Timeout":901}', "Timeout"),
            (400, b'{"PodConcurrentQuota":-1}', "PodConcurrentQuota"), (400, b'{"MaxInstances":0}', "MaxInstances"),
            (400, b'{"Runtime":"cobol"}', "cobol"), (400, b'{"Environment":{"Variables":{"1x":"y"}}}', "1x"),
        ):
            with self.subTest(body):
                answer = request(self.node.registry, "POST", "/v1/functions/refused", body)
                self.assertEqual(answer.status, status, answer)
                self.assertIn(words, answer.text)
                self.assertEqual(request(self.node.registry, "GET", "/v1/functions/refused").status, 404)

    def test_all_problems_of_a_create_come_at_once(self):
        answer = self.create("refused", Timeout=-1, MemorySize=1, Runtime="cobol")
        self.assertEqual(answer.status, 400, answer)
        for words in ("Timeout", "MemorySize", "cobol"):
            self.assertIn(words, answer.text)

    def test_a_call_whose_time_in_the_queue_ends_is_told_to_come_again(self):
        # In one send: all three are there before the first can end. The second holds the only instance longer than the
        # third may wait, as its time begins when it runs.
        self.deploy("full", source("gate"), Timeout=timeout(3), MaxInstances=1)
        self.call("full", {"name": "warm", "wait": False})
        with Wire(self.node.controller) as wire:
            wire.send(b"".join(invocation("full", {"name": f"full-{n}"}) for n in range(3)))
            Gate(self.node, "full-0").open()
            self.assertEqual(wire.answer("POST").json()["name"], "full-0")
            Gate(self.node, "full-1")
            self.assertIn(f"Task timed out after {timeout(3)} seconds", wire.answer("POST").json()["errorMessage"])
            refused = wire.answer("POST")
        self.assertEqual(refused.status, 429, refused)
        self.assertRegex(refused.headers["retry-after"], "^[0-9]+$")
        self.assertEqual(refused.json(), {
            "Code": "TooManyRequestsException", "Cause": "empty runtime", "Message": "Too many requests", "Status": 429,
            "Type": "User",
        })
        self.assertNotIn("full-2", gates(self.node))

    def test_a_full_queue_refuses_at_once(self):
        self.deploy("queue", source("gate"), Timeout=60, MaxInstances=1)
        before = counter(self.node, "invocations_throttled_total")
        wires = [Wire(self.node.controller) for _ in range(20)]
        try:
            wires[0].send(invocation("queue", {"name": "queue-0"}))
            gate = Gate(self.node, "queue-0")
            for wire in wires[1:]:
                wire.send(invocation("queue", {"name": "q", "wait": False}) * 60)
            until(lambda: counter(self.node, "invocations_throttled_total") - before >= 19 * 60 - 1024, "the surplus refused")
            gate.open()
            self.assertEqual(wires[0].answer("POST").status, 200)
            statuses = [wire.answer("POST").status for wire in wires[1:] for _ in range(60)]
        finally:
            for wire in wires:
                wire.close()
        self.assertEqual(statuses.count(200), 1024)
        self.assertEqual(statuses.count(429), 19 * 60 - 1024)

    def test_a_full_queue_of_events_refuses_at_once(self):
        self.deploy("events", source("gate"), Timeout=60, MaxInstances=1)
        kind, accepted = "X-easyfaas-Invoke-Type: event", counter(self.node, "async_accepted_total")
        refused = counter(self.node, "async_refused_total")
        with Wire(self.node.controller) as wire:
            self.assertEqual(wire.send(invocation("events", {"name": "holds"}, kind)).answer("POST").status, 201)
            gate = Gate(self.node, "holds")
            # The one that runs counts: it is kept until it has ended.
            left = ASYNC_QUEUE_MAX - 1
            while left > 0:
                batch = min(left, 32)
                wire.send(invocation("events", {"name": "e", "wait": False}, kind) * batch)
                self.assertEqual([wire.answer("POST").status for _ in range(batch)], [201] * batch)
                left -= batch
            answer = wire.send(invocation("events", {"name": "too-many", "wait": False}, kind)).answer("POST")
            self.assertEqual((answer.status, answer.json()), (429, {
                "Code": "TooManyRequestsException", "Cause": "event queue is full", "Message": "Too many requests",
                "Status": 429, "Type": "User",
            }))
            self.assertEqual(answer.headers["retry-after"], "1")
            self.assertEqual(counter(self.node, "async_accepted_total") - accepted, ASYNC_QUEUE_MAX)
            self.assertEqual(counter(self.node, "async_refused_total") - refused, 1)
            # A call that somebody waits for still has its place, behind all that were acknowledged.
            waiting = Call(self.node, "events", {"name": "last", "wait": False})
            until(lambda: queued(self.node, "events") == ASYNC_QUEUE_MAX, "the call in the queue")
            gate.open()
            self.assertEqual(self.good(waiting.answer()).json()["name"], "last")
            self.assertEqual(wire.send(invocation("events", {"name": "e", "wait": False}, kind)).answer("POST").status, 201)
        self.assertNotIn("too-many", log_of(self.node, "events"))


if __name__ == "__main__":
    unittest.main()
