"""Memory that is edited while a function runs, and the node's ledger in FaaSter's shape."""

import json
import os
import re
import signal
import unittest

from support import machine
from support.deploy import JSON, Call, EngineCase, Gate, get_json, instances, source, tail_of, used_memory
from support.http_client import quoted, request
from support.wait import timeout, until

MEBIBYTE = 1 << 20
TAIL = {"Log-Type": "Tail"}


def ledger(node):
    return get_json(node.controller, "/v1/resource")


def kill(pid):
    """SIGKILL through a pidfd."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


class ResourceCase(EngineCase):
    POOL = {"python3": 1, "nodejs": 0, "ruby": 0, "provided": 0}
    PREPARED = 1

    @classmethod
    def prepared(cls):
        return cls.PREPARED

    def edit(self, name, **fields):
        answer = request(self.node.registry, "PUT", f"/v1/functions/{quoted(name)}", json.dumps(fields), JSON)
        self.assertEqual(answer.status, 200, answer)

    def only(self, name):
        """The one instance of a function, as (what names it for good, its description)."""
        (one,) = instances(self.node, name)
        return (one["ID"], one["Generation"], one["PID"]), one

    def limit(self, name):
        return machine.limits_of(self.only(name)[1]["PID"])["memory"]

    def limit_becomes(self, name, megabytes):
        until(lambda: self.limit(name) == megabytes * MEBIBYTE, f"{name} limited to {megabytes} MiB")


class EditTest(ResourceCase):
    def test_memory_is_edited_under_a_running_instance(self):
        rest = used_memory(self.node)
        self.deploy("edited", source("uses"), Timeout=timeout(20), MemorySize=256)
        first = self.call("edited")
        self.assertEqual((first["memory_mb"], first["tmp_mb"]), (256, 128))
        before, _ = self.only("edited")
        for megabytes, taken in ((512, 512), (200, 256), (256, 256)):
            self.edit("edited", MemorySize=megabytes)
            self.limit_becomes("edited", megabytes)
            answer = self.node.invoke("edited", headers=TAIL)
            said = self.good(answer).json()
            self.assertEqual(said["token"], first["token"], "the same process answers")
            self.assertEqual((said["memory_mb"], said["tmp_mb"]), (megabytes, megabytes // 2))
            self.assertIn(f"Memory Spec Size: {megabytes}MB", tail_of(answer))
            after, described = self.only("edited")
            self.assertEqual((after, described["MemoryMB"]), (before, megabytes))
            swap = machine.limits_of(described["PID"])["swap"]
            self.assertIn(swap, (0, None), "swap is no way around the limit")
            self.assertEqual(used_memory(self.node) - rest, taken * MEBIBYTE)
        shown = request(self.node.registry, "GET", "/v1/functions/edited").json()
        self.assertEqual(shown["Configuration"]["MemorySize"], 256)

    def test_every_runtime_says_the_new_memory(self):
        codes = {
            "nodejs": {"index.js": "exports.handler = async (event, context) => [process.pid, context.memoryLimitInMB];"},
            "ruby": {"index.rb": "def handler(event:, context:)\n  [Process.pid, context.memory_limit_in_mb]\nend\n"},
        }
        for runtime, code in codes.items():
            with self.subTest(runtime):
                self.deploy(f"{runtime}-edited", code, runtime=runtime, Timeout=timeout(20), MemorySize=256)
                pid, said = self.call(f"{runtime}-edited")
                self.assertEqual(said, 256)
                self.edit(f"{runtime}-edited", MemorySize=512)
                self.limit_becomes(f"{runtime}-edited", 512)
                self.assertEqual(self.call(f"{runtime}-edited"), [pid, 512])

    def test_a_call_that_runs_is_not_disturbed(self):
        self.deploy("long", source("gate"), Timeout=timeout(60), MemorySize=256)
        call = Call(self.node, "long", {"name": "long"})
        gate = Gate(self.node, "long")
        before, _ = self.only("long")
        self.edit("long", MemorySize=384)
        self.limit_becomes("long", 384)
        gate.open()
        token = self.good(call.answer()).json()["token"]
        self.assertEqual(self.call("long", {"name": "x", "wait": False})["token"], token)
        self.assertEqual(self.only("long")[0], before)

    def test_the_new_limit_is_where_the_kernel_kills(self):
        self.deploy("grows", source("uses"), Timeout=timeout(20), MemorySize=512)
        self.assertEqual(self.call("grows", {"hold_mb": 100})["held_mb"], 100)
        before, _ = self.only("grows")
        self.edit("grows", MemorySize=160)
        self.limit_becomes("grows", 160)
        self.assertEqual(self.only("grows")[0], before)
        self.lost(self.node.invoke("grows", {"hold_mb": 300}), ": out of memory, its limit is 160 MB")
        self.log_says("grows", "Runtime ran out of memory: its limit is 160 MB, it used 1[56][0-9] MB at most")

    def test_what_uses_more_than_the_new_limit_is_replaced_and_not_killed(self):
        self.deploy("holds", source("uses"), Timeout=timeout(20), MemorySize=512)
        first = self.call("holds", {"hold_mb": 200})
        self.edit("holds", MemorySize=128)
        until(lambda: first["token"] != self.call("holds")["token"], "a new instance")
        until(lambda: len(instances(self.node, "holds")) == 1, "the old one gone")
        self.limit_becomes("holds", 128)
        log = self.node.cli("logs", "holds").stdout
        self.assertNotIn("out of memory", log)

    def test_a_frozen_or_changed_function_is_not_edited_but_restarted_where_more_than_memory_changes(self):
        self.deploy("both", source("uses"), Timeout=timeout(20), MemorySize=256)
        first = self.call("both")
        self.edit("both", MemorySize=512, Environment={"Variables": {"A": "b"}})
        second = self.call("both")
        self.assertNotEqual(first["token"], second["token"])
        self.assertEqual(second["memory_mb"], 512)


class LedgerTest(ResourceCase):
    """A node whose whole ledger is known."""

    ARGUMENTS = ("--memory=1GiB", "--memory-overcommit=2", "--funclets=2", "--max-runtime-idle=3600s")
    # One of each funclet.
    PREPARED = 2
    SHAPE = ["Capacity", "Allocatable", "Used", "Marked", "Default", "BaseMemory"]

    def assert_ledger(self, used):
        said = ledger(self.node)
        self.assertEqual(list(said), self.SHAPE)
        for name in self.SHAPE[:-1]:
            self.assertEqual(list(said[name]), ["MilliCPUs", "Memory"])
        self.assertEqual((said["BaseMemory"], said["Default"]["Memory"]), (128 * MEBIBYTE, 128 * MEBIBYTE))
        self.assertEqual((said["Capacity"]["Memory"], said["Allocatable"]["Memory"]), (1024 * MEBIBYTE, 2048 * MEBIBYTE))
        self.assertEqual((said["Used"]["Memory"], said["Marked"]["Memory"]), (used * MEBIBYTE, 0))
        self.assertEqual(said["Used"]["MilliCPUs"] > 0, used > 0)

    def test_larger_functions_take_whole_base_containers_until_they_go(self):
        self.assert_ledger(0)
        self.deploy("small", source("uses"), MemorySize=128)
        self.deploy("odd", source("uses"), MemorySize=300)
        self.call("small")
        self.assert_ledger(128)
        self.call("odd")
        self.assert_ledger(128 + 384)
        listed = {one["MemorySize"]: one["Resource"]["Memory"] for one in get_json(self.node.controller, "/v1/runtimes")}
        self.assertEqual(listed[300 * MEBIBYTE], 384 * MEBIBYTE)
        request(self.node.registry, "DELETE", "/v1/functions/odd")
        until(lambda: not instances(self.node, "odd"), "the instance gone")
        until(lambda: used_memory(self.node) == 128 * MEBIBYTE, "its memory back")
        request(self.node.registry, "DELETE", "/v1/functions/small")
        until(lambda: used_memory(self.node) == 0, "all memory back")


class RestartTest(ResourceCase):
    ARGUMENTS, PREPARED = LedgerTest.ARGUMENTS, LedgerTest.PREPARED
    assert_ledger, SHAPE = LedgerTest.assert_ledger, LedgerTest.SHAPE

    @classmethod
    def tearDownClass(cls):
        # Processes were killed: what is left is looked at when the node ends.
        cls.remove_all()

    def test_the_ledger_is_right_in_the_first_answer_after_any_restart(self):
        self.deploy("f", source("uses"), MemorySize=300)
        self.call("f")
        self.assert_ledger(384)
        # A funclet: what was in it is gone, what was in the other is not.
        described = instances(self.node, "f")[0]
        for pid in self.node.funclet_pids():
            name = machine.command_of(pid)
            kill(pid)
            until(lambda: not machine.alive(pid), "the funclet dead")
            left = 0 if re.search(rf"funclet {described['Funclet']}\b", name) else used_memory(self.node) // MEBIBYTE
            self.assert_ledger(left)
        # The engine: its instances end with it, and nothing of theirs is promised to anybody.
        self.call("f")
        self.assert_ledger(384)
        engine = self.node.engine_pid()
        kill(engine)
        until(lambda: not machine.alive(engine), "the engine dead")
        until(lambda: self.answers(), "an engine that answers")
        until(lambda: used_memory(self.node) == 0, "what the old engine had given back")
        self.call("f")
        self.assert_ledger(384)

    def answers(self):
        try:
            return request(self.node.controller, "GET", "/v1/resource").status == 200
        except OSError:
            return False


class LogDiskTest(ResourceCase):
    """A node with little disk for logs."""

    ARGUMENTS = ("--log-disk=12MiB", "--log-disk-per-function=8MiB", "--code-disk=251MiB")
    PRINTS = """
import sys
def handler(event, context):
    for number in range(event["first"], event["first"] + 1000):
        print(f"line {number:06d} " + "x" * 500)
    sys.stdout.flush()
"""

    def kept(self, name):
        """The lines of a function that are on disk, by number, and the bytes that they take."""
        files = sorted((self.node.data / "logs").glob(f"*:{name}/*.log"))
        entries = [json.loads(line) for file in files for line in file.read_text().splitlines()]
        text = "".join(entry["Text"] for entry in entries)
        return [int(number) for number in re.findall(r"line (\d{6}) x{500}\n", text)], sum(file.stat().st_size for file in files)

    def newest(self, name):
        files = sorted((self.node.data / "logs").glob(f"*:{name}/*.log"))
        return files[-1].read_text() if files else ""

    def counted(self):
        return get_json(self.node.controller, "/v1/node")["LogDisk"]

    def test_logs_fill_their_budget_and_the_oldest_go(self):
        for name in ("first", "second"):
            self.deploy(name, self.PRINTS, Timeout=timeout(30))
            for first in range(0, 32000, 1000):
                self.call(name, {"first": first})
                until(lambda: f"line {first + 999:06d} " in self.newest(name), f"line {first + 999} on disk")
            # 16 MB in all: the last lines are there, the first ones are not.
            numbers, size = self.kept(name)
            self.assertLessEqual(size, 8 << 20)
            self.assertGreater(size, 4 << 20)
            self.assertTrue(numbers == list(range(numbers[0], 32000)), f"one after the other from {numbers[0]} to {numbers[-1]}")
            self.assertGreater(numbers[0], 0)
        self.assertLess(self.kept("first")[1], self.kept("second")[1], "the older log gave way")
        said = self.counted()
        total = self.kept("first")[1] + self.kept("second")[1]
        self.assertEqual((said["Bytes"], said["BudgetBytes"]), (total, 12 << 20))
        self.assertEqual((said["WrittenBytes"], said["DroppedBytes"]), (said["RemovedBytes"] + said["Bytes"], 0))
        self.assertLessEqual(total, 12 << 20)
        self.assertEqual(self.node.cli("logs", "second").stdout.count("line 031999"), 1)


if __name__ == "__main__":
    unittest.main()
