"""What an instance uses and what a call took: in the REPORT line and in /v1/instances, as the kernel counts it.

On hosts with v1 controllers and on those with v2 alone. Numbers are held between two looks of the test's own.
"""

import re
import time

from support import machine
from support.deploy import Call, EngineCase, Gate, instances, source, tail_of
from support.wait import timeout, until

MEBIBYTE = 1 << 20
TAIL = {"Log-Type": "Tail"}
UNITS = {"": 1, "B": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30}
SECONDS = {"ms": 0.001, "s": 1.0}
PIDS_MAX = 1024
TMP_FILES_MAX = 65_536


def report_of(answer):
    """Duration in seconds and peak in bytes, each with what rounding may have taken or given."""
    (report,) = [line for line in tail_of(answer).splitlines() if line.startswith("REPORT ")]
    found = re.search(r"\tDuration: ([\d.]+)(ms|s)\tBilled Duration: \S+\tMax Memory Used: ([\d.]+)([BKMG]?)$", report)
    assert found, report
    duration, unit, peak, size = found.groups()
    return (float(duration) * SECONDS[unit], 0.001 if unit == "ms" else 0.1), (float(peak) * UNITS[size], 0.1 * UNITS[size])


def executed(answer):
    """Seconds of the call by the answer's header."""
    return float(answer.headers["X-Easyfaas-Function-Exectime"]) / 1000


class UsageTest(EngineCase):
    POOL = {"python3": 2, "nodejs": 0, "ruby": 0, "provided": 0}

    def only(self, name):
        (one,) = instances(self.node, name)
        return one

    def peak(self, name, event):
        """Calls with a log tail; the peak in its REPORT line, which lies between what the kernel's file says before and after."""
        before = machine.peak_of(self.only(name)["PID"])
        answer = self.good(self.node.invoke(name, event, headers=TAIL))
        after = machine.peak_of(self.only(name)["PID"])
        _, (peak, rounding) = report_of(answer)
        self.assertTrue(before - rounding <= peak <= after + rounding, (before, peak, after))
        return peak

    def test_the_report_tells_the_peak_of_its_instance(self):
        for name in ("large", "small"):
            self.deploy(name, source("uses"), Timeout=timeout(20), MemorySize=256)
            self.call(name)
        held_mb = 100
        peak = self.peak("large", {"hold_mb": held_mb})
        self.assertTrue(held_mb * MEBIBYTE < peak <= 256 * MEBIBYTE, peak)
        # What it gave back counts: the peak is the instance's, not the call's.
        self.call("large", {"hold_mb": 0})
        self.assertGreaterEqual(self.peak("large", {}), peak)
        # Another instance has one of its own.
        self.assertLess(self.peak("small", {}), held_mb * MEBIBYTE)

    def test_a_new_instance_begins_anew(self):
        self.deploy("again", source("uses"), Timeout=timeout(20), MemorySize=256)
        self.call("again")
        first = self.peak("again", {"hold_mb": 100})
        old = self.only("again")
        self.deploy("again", {**source("uses"), "other": "code"}, Timeout=timeout(20), MemorySize=256)
        self.call("again")
        until(lambda: [one["CommitId"] for one in instances(self.node, "again")] != [old["CommitId"]]
              and len(instances(self.node, "again")) == 1, "the new instance alone")
        self.assertLess(self.peak("again", {}), first - 50 * MEBIBYTE)

    def test_every_instance_tells_its_memory_and_processor_time(self):
        for name in ("busy", "idle"):
            self.deploy(name, source("uses"), Timeout=timeout(60), MemorySize=256)
            self.call(name)
        self.call("busy", {"hold_mb": 60})
        for name in ("busy", "idle"):
            pid = self.only(name)["PID"]
            before, told, after = machine.cpu_us_of(pid), self.only(name), machine.cpu_us_of(pid)
            self.assertTrue(before <= told["CPUUsedUS"] <= after, (before, told, after))
            # Nobody runs in it, so memory stands still.
            until(lambda: self.only(name)["MemoryUsedBytes"] == machine.uses_of(pid)["memory"], f"the same memory of {name}")
        self.assertGreater(self.only("busy")["MemoryUsedBytes"], 60 * MEBIBYTE)
        self.assertLess(self.only("idle")["MemoryUsedBytes"], 60 * MEBIBYTE)
        before = {name: self.only(name)["CPUUsedUS"] for name in ("busy", "idle")}
        # The process's own clock says when it has used so much in its life.
        spun_ms = 1500
        self.call("busy", {"spin_ms": spun_ms})
        after = {name: self.only(name)["CPUUsedUS"] for name in ("busy", "idle")}
        self.assertGreaterEqual(after["busy"], 1000 * spun_ms)
        self.assertGreater(after["busy"] - before["busy"], after["idle"] - before["idle"])

    def test_durations_of_calls_that_run_at_once_are_each_their_own(self):
        self.deploy("crowd", source("gate"), Timeout=timeout(60), PodConcurrentQuota=8, MaxInstances=1)
        self.call("crowd", {"name": "first", "wait": False})
        asked = time.monotonic()
        long = Call(self.node, "crowd", {"name": "long"}, headers=TAIL)
        gate = Gate(self.node, "long")
        inside = time.monotonic()
        # While it waits, others come and go in the same process.
        for number in range(5):
            begun = time.monotonic()
            answer = self.good(self.node.invoke("crowd", {"name": f"short{number}", "wait": False}, headers=TAIL))
            took = time.monotonic() - begun
            (duration, rounding), _ = report_of(answer)
            self.assertLessEqual(duration, took + rounding, "a short call is not as long as its neighbour")
            self.assertLessEqual(executed(answer), took)
            self.assertAlmostEqual(duration, executed(answer), delta=rounding)
        opened = time.monotonic()
        gate.open()
        answer = self.good(long.answer())
        ended = time.monotonic()
        (duration, rounding), _ = report_of(answer)
        self.assertTrue(opened - inside <= executed(answer) <= ended - asked, (opened - inside, executed(answer), ended - asked))
        self.assertAlmostEqual(duration, executed(answer), delta=rounding)
        self.assertEqual(len(instances(self.node, "crowd")), 1, "all of it in one instance")


class ClaimTest(EngineCase):
    POOL = {"python3": 2, "nodejs": 0, "ruby": 0, "provided": 0}

    def test_a_claim_writes_every_limit(self):
        """Prepared containers are all alike; what a function gets stands in the kernel when it runs."""
        cpu = {}
        for megabytes in (128, 256, 1024, 1536):
            with self.subTest(megabytes):
                name = f"with{megabytes}"
                self.deploy(name, source("uses"), Timeout=timeout(20), MemorySize=megabytes)
                said = self.call(name)
                (one,) = instances(self.node, name)
                limits = machine.limits_of(one["PID"])
                self.assertEqual((limits["memory"], limits["pids"]), (megabytes * MEBIBYTE, PIDS_MAX))
                # None: a kernel without accounting of swap.
                self.assertIn(limits["swap"], (0, None))
                # Half of the memory, 512 MB at most.
                self.assertEqual((said["tmp_mb"], said["tmp_files"]), (min(megabytes // 2, 512), TMP_FILES_MAX))
                cpu[megabytes] = limits["cpu"]
        if machine.is_cgroup_v2():
            self.assertEqual(cpu, {megabytes: megabytes * 100 // 1024 for megabytes in cpu})
        else:
            self.assertEqual(cpu, {megabytes: megabytes for megabytes in cpu})

    def test_the_end_for_want_of_memory_is_told_with_limit_and_peak(self):
        self.deploy("grows", source("uses"), Timeout=timeout(20), MemorySize=192)
        self.call("grows")
        answer = self.node.invoke("grows", {"hold_mb": 400}, headers=TAIL)
        self.lost(answer, ": out of memory, its limit is 192 MB")
        said = re.search(r"Runtime ran out of memory: its limit is 192 MB, it used (\d+) MB at most", tail_of(answer))
        self.assertTrue(said, tail_of(answer))
        _, (peak, rounding) = report_of(answer)
        # The kernel kills at the limit: the peak is what was reached, not what was asked for.
        self.assertTrue(185 * MEBIBYTE <= peak <= 192 * MEBIBYTE + rounding, peak)
        self.assertEqual(int(said.group(1)), int(peak) >> 20)
