"""Who runs where and when: one instance or several, queues, redeploys, removals, memory that goes back."""

import re
import time
import unittest

from support.deploy import (
    Call, EngineCase, Gate, Wire, answers, gates, instances, invocation, queued, remove, source, used_memory,
)
from support.http_client import request
from support.wait import patience, timeout, until

MEGABYTE = 1 << 20


class SchedulingTest(EngineCase):
    def tokens(self, calls):
        return {self.good(answer).json()["token"] for answer in answers(calls)}

    def test_a_warm_function_stays_in_its_process(self):
        self.deploy("warm", source("gate"))
        calls = [self.call("warm", {"name": "w", "wait": False})["token"] for _ in range(50)]
        self.assertEqual(len(set(calls)), 1)
        self.assertEqual(instances(self.node, "warm")[0]["Accepted"], 50)

    def test_a_cold_call_says_where_its_time_went(self):
        # Several names: some are at home on the shard that is asked, some on the other.
        for number in range(8):
            name = f"timed-{number}"
            self.deploy(name, source("gate"))
            began = time.monotonic()
            cold = self.good(Call(self.node, name, {"name": "c", "wait": False}).answer())
            took_ms = (time.monotonic() - began) * 1000
            phases = dict(re.findall(r"(\w+);dur=(\d+\.\d{3})", cold.headers["Server-Timing"]))
            self.assertEqual(list(phases), ["queue", "claim", "attach", "load", "run"])
            self.assertGreater(float(phases["attach"]) * float(phases["load"]) * float(phases["run"]), 0)
            self.assertLessEqual(sum(map(float, phases.values())), took_ms)
            start = instances(self.node, name)[0]["Start"]
            for phase, milliseconds in phases.items():
                self.assertAlmostEqual(start[f"{phase.capitalize()}US"] / 1000, float(milliseconds), delta=0.0015)
            warm = self.good(Call(self.node, name, {"name": "w", "wait": False}).answer())
            self.assertNotIn("Server-Timing", warm.headers)

    def test_64_calls_at_once_share_one_instance(self):
        for language in ("python3", "nodejs"):
            with self.subTest(language):
                name = f"meet-{language}"
                self.deploy(name, source("meet", language), runtime=language, Timeout=30, PodConcurrentQuota=64)
                for temperature in ("cold", "warm"):
                    # None answers before all are inside, and then each sleeps.
                    calls = [Call(self.node, name, {"n": 64, "seconds": 0.1}) for _ in range(64)]
                    self.assertEqual(len(self.tokens(calls)), 1, temperature)
                    self.assertTrue(all(call.result.json()["met"] for call in calls))
                    self.assertEqual(len(instances(self.node, name)), 1, temperature)

    def test_one_more_call_than_an_instance_takes_gets_another(self):
        self.deploy("two", source("gate"), Timeout=60, PodConcurrentQuota=2)
        calls = [Call(self.node, "two", {"name": f"two-{n}"}) for n in range(4)]
        held = [Gate(self.node, f"two-{n}") for n in range(4)]
        self.assertGreaterEqual(len(instances(self.node, "two")), 2)
        for one in instances(self.node, "two"):
            self.assertLessEqual(one["InFlight"], 2)
        for gate in held:
            gate.open()
        self.assertGreaterEqual(len(self.tokens(calls)), 2)

    def test_an_exclusive_function_gets_instances_up_to_its_limit(self):
        self.deploy("limited", source("gate"), Timeout=60, MaxInstances=3)
        calls = [Call(self.node, "limited", {"name": f"limited-{n}"}) for n in range(9)]
        until(lambda: queued(self.node, "limited") == 6, "six calls waiting")
        done = 0
        while done < 9:
            held = until(lambda: len(gates(self.node)) >= min(3, 9 - done) and gates(self.node), "calls running")
            self.assertLessEqual(len(held), 3)
            self.assertLessEqual(len(instances(self.node, "limited")), 3)
            for name in held:
                Gate(self.node, name).open()
                done += 1
        self.assertEqual(len(self.tokens(calls)), 3)

    def test_one_instance_at_a_time_runs_its_calls_in_order(self):
        self.deploy("ordered", source("gate"), Timeout=60, MaxInstances=1)
        with Wire(self.node.controller) as wire:
            wire.send(b"".join(invocation("ordered", {"name": f"{n}", "wait": False}) for n in range(40)))
            names = [wire.answer("POST").json()["name"] for _ in range(40)]
        self.assertEqual(names, [str(n) for n in range(40)])
        self.assertEqual(len(instances(self.node, "ordered")), 1)

    def test_one_call_makes_one_instance_however_long_that_takes(self):
        slow = "import time\ntime.sleep(1)\ndef handler(event, context):\n    return 'at last'\n"
        self.deploy("slow", slow, Timeout=30)
        call, most = Call(self.node, "slow"), 0

        def answered():
            nonlocal most
            most = max(most, len(instances(self.node, "slow")))
            return not call.is_alive()

        until(answered, "the answer")
        self.assertEqual(self.good(call.answer()).text, "at last")
        self.assertEqual(max(most, len(instances(self.node, "slow"))), 1)

    def test_calls_that_fit_one_shared_instance_wait_for_it(self):
        slow = "import os, time\ntime.sleep(1)\ndef handler(event, context):\n    return str(os.getpid())\n"
        self.deploy("patient", slow, Timeout=30, PodConcurrentQuota=64)
        calls = [Call(self.node, "patient") for _ in range(30)]
        for answer in answers(calls):
            self.good(answer)
        self.assertEqual(len(instances(self.node, "patient")), 1)

    def test_a_burst_of_short_calls_makes_few_instances(self):
        self.deploy("burst", "def handler(event, context):\n    return 'ok'\n", Timeout=60)
        for answer in answers([Call(self.node, "burst") for _ in range(50)]):
            self.assertEqual(self.good(answer).text, "ok")
        # Nothing waits any more, so nothing new may come into being: what was asked for and is not needed is taken back.
        made = len(instances(self.node, "burst"))
        self.assertLessEqual(made, 50)
        for _ in range(100):
            self.good(self.node.invoke("burst"))
        self.assertLessEqual(len(instances(self.node, "burst")), made)

    def test_a_burst_is_bounded_by_the_function_s_own_limit(self):
        self.deploy("narrow", "def handler(event, context):\n    return 'ok'\n", Timeout=60, MaxInstances=5)
        for answer in answers([Call(self.node, "narrow") for _ in range(100)]):
            self.assertEqual(self.good(answer).text, "ok")
        self.assertLessEqual(len(instances(self.node, "narrow")), 5)

    def test_a_redeploy_takes_effect_with_the_next_call(self):
        self.deploy("versions", source("gate"), Timeout=60, Environment={"Variables": {"VERSION": "old"}})
        old = Call(self.node, "versions", {"name": "old"})
        gate = Gate(self.node, "old")
        self.deploy("versions", source("gate"), Timeout=60, Environment={"Variables": {"VERSION": "new"}})
        new = self.call("versions", {"name": "new", "wait": False})
        self.assertEqual(new["version"], "new")
        self.assertTrue(old.is_alive(), "the old call goes on")
        gate.open()
        finished = self.good(old.answer()).json()
        self.assertEqual(finished["version"], "old")
        self.assertNotEqual(finished["token"], new["token"])
        until(lambda: gate.dead(), "the old instance gone")
        self.assertEqual(self.call("versions", {"name": "more", "wait": False})["token"], new["token"])

    def test_a_redeploy_reaches_calls_that_wait(self):
        self.deploy("waiting", source("gate"), Timeout=60, MaxInstances=1, Environment={"Variables": {"VERSION": "old"}})
        old = Call(self.node, "waiting", {"name": "waiting-old"})
        gate = Gate(self.node, "waiting-old")
        waiting = Call(self.node, "waiting", {"name": "waiting-new", "wait": False})
        until(lambda: queued(self.node, "waiting") == 1, "a call that waits")
        self.deploy("waiting", source("gate"), Timeout=60, MaxInstances=1, Environment={"Variables": {"VERSION": "new"}})
        self.assertEqual(self.good(waiting.answer()).json()["version"], "new")
        gate.open()
        self.assertEqual(self.good(old.answer()).json()["version"], "old")

    def test_new_code_is_new_and_old_code_is_the_same(self):
        for text in ("one", "two", "one"):
            self.deploy("code", f"def handler(event, context):\n    return {text!r}\n")
            self.assertEqual(self.good(self.node.invoke("code")).text, text)

    def test_a_removed_function_is_gone_for_those_who_wait(self):
        self.deploy("removed", source("gate"), Timeout=60, MaxInstances=1)
        running = Call(self.node, "removed", {"name": "running"})
        gate = Gate(self.node, "running")
        waiting = [Call(self.node, "removed", {"name": "never"}) for _ in range(5)]
        until(lambda: queued(self.node, "removed") == 5, "calls that wait")
        self.assertEqual(remove(self.node, "removed").status, 200)
        for answer in answers(waiting):
            self.assertEqual((answer.status, answer.json()["Code"]), (404, "ResourceNotFoundException"))
        self.assertEqual(self.node.invoke("removed").status, 404)
        self.assertEqual(remove(self.node, "removed").status, 404)
        gate.open()
        self.assertEqual(self.good(running.answer()).json()["name"], "running")
        until(gate.dead, "its instance gone")
        self.assertNotIn("never", gates(self.node))

    def test_a_removed_function_can_come_back(self):
        for round_number in range(3):
            self.deploy("phoenix", f"def handler(event, context):\n    return {round_number}\n")
            self.assertEqual(self.good(self.node.invoke("phoenix")).text, str(round_number))
            self.assertEqual(remove(self.node, "phoenix").status, 200)

    def test_functions_with_another_environment_share_nothing(self):
        for name in ("red", "blue"):
            self.deploy(name, source("gate"), Environment={"Variables": {"VERSION": name, f"ONLY_{name.upper()}": "x"}})
        seen = {name: {self.call(name, {"name": "x", "wait": False})["token"] for _ in range(5)} for name in ("red", "blue")}
        self.assertFalse(seen["red"] & seen["blue"])
        for name in ("red", "blue"):
            self.assertEqual(self.call(name, {"name": "x", "wait": False})["version"], name)
        look = "import os\ndef handler(event, context):\n    return sorted(n for n in os.environ if n.startswith('ONLY'))\n"
        for name in ("red", "blue"):
            self.deploy(f"look-{name}", look, Environment={"Variables": {f"ONLY_{name.upper()}": "x"}})
            self.assertEqual(self.call(f"look-{name}"), [f"ONLY_{name.upper()}"])

    def test_a_changed_environment_never_meets_the_old_process(self):
        seen = {}
        for value in ("1", "2", "3"):
            self.deploy("changing", source("gate"), Environment={"Variables": {"VERSION": value}})
            answer = self.call("changing", {"name": "x", "wait": False})
            self.assertEqual(answer["version"], value)
            self.assertNotIn(answer["token"], seen)
            seen[answer["token"]] = value

    def test_event_calls_are_taken_and_run(self):
        self.deploy("events", source("gate"), Timeout=60)
        answer = self.node.invoke("events", {"name": "event"}, headers={"X-easyfaas-Invoke-Type": "Event"})
        self.assertEqual((answer.status, answer.body), (201, b""))
        gate = Gate(self.node, "event")
        gate.open()
        until(lambda: all(one["State"] == "idle" for one in instances(self.node, "events")), "its end")
        refused = self.node.invoke("not-there", b"{}", headers={"X-easyfaas-Invoke-Type": "event"})
        self.assertEqual(refused.status, 404)

    def test_an_instance_that_is_invalidated_runs_no_more_calls(self):
        self.deploy("invalid", source("gate"))
        before = self.call("invalid", {"name": "x", "wait": False})["token"]
        for one in instances(self.node, "invalid"):
            answer = self.node_request("POST", f"/v1/runtimes/{one['ID']}/invalidate")
            self.assertEqual((answer.status, answer.body), (200, b""))
        self.assertNotEqual(self.call("invalid", {"name": "x", "wait": False})["token"], before)
        self.assertEqual(self.node_request("POST", "/v1/runtimes/nope/invalidate").status, 404)

    def node_request(self, method, path):
        return request(self.node.controller, method, path)


class CoolDownTest(EngineCase):
    """Instances that nobody calls go, and their memory comes back."""

    ARGUMENTS = (f"--max-runtime-idle={patience(1)}s",)

    def test_an_idle_instance_goes_and_its_memory_comes_back(self):
        before = used_memory(self.node)
        self.deploy("idle", source("gate"), MemorySize=256)
        self.call("idle", {"name": "x", "wait": False})
        self.assertEqual(used_memory(self.node), before + 256 * MEGABYTE)
        until(lambda: not instances(self.node, "idle"), "the instance gone")
        until(lambda: used_memory(self.node) == before, "its memory back")
        self.assertEqual(self.call("idle", {"name": "x", "wait": False})["name"], "x")

    def test_an_instance_that_runs_is_not_idle(self):
        self.deploy("long", source("gate"), Timeout=60)
        call = Call(self.node, "long", {"name": "long"})
        gate = Gate(self.node, "long")
        # Another instance is idle for so long that it goes; the one that runs stays.
        self.deploy("other", source("gate"))
        self.call("other", {"name": "x", "wait": False})
        until(lambda: not instances(self.node, "other"), "the idle one gone")
        self.assertFalse(gate.dead())
        gate.open()
        self.assertEqual(self.good(call.answer()).json()["name"], "long")


class ShortMemoryTest(EngineCase):
    """A node with memory for one large function at a time."""

    ARGUMENTS = ("--memory=512MiB", "--memory-overcommit=1")

    def test_idle_instances_make_room_for_others(self):
        first = last = None
        for name in ("a", "b", "a", "b"):
            self.deploy(name, source("gate"), Timeout=30, MemorySize=384)
            last = self.call(name, {"name": "x", "wait": False})["token"]
            self.assertNotEqual(last, first)
            first = last
            until(lambda: {one["FunctionName"] for one in instances(self.node)} == {name}, f"{name} alone")
        self.assertEqual(used_memory(self.node), 384 * MEGABYTE)

    def test_a_call_for_which_there_is_no_memory_is_told_to_come_again(self):
        self.deploy("holds", source("gate"), Timeout=60, MemorySize=384)
        self.deploy("wants", source("gate"), Timeout=timeout(1), MemorySize=384)
        call = Call(self.node, "holds", {"name": "holds"})
        gate = Gate(self.node, "holds")
        refused = self.node.invoke("wants", {"name": "x", "wait": False})
        self.assertEqual(refused.status, 429, refused)
        self.assertRegex(refused.headers["Retry-After"], "^[0-9]+$")
        self.assertEqual(refused.json()["Code"], "TooManyRequestsException")
        self.assertTrue(call.is_alive(), "a call that runs is not ended for another")
        gate.open()
        self.good(call.answer())
        self.assertEqual(self.call("wants", {"name": "x", "wait": False})["name"], "x")

    def test_a_call_that_waits_for_memory_runs_when_there_is_some(self):
        self.deploy("first", source("gate"), Timeout=60, MemorySize=384)
        self.deploy("second", source("gate"), Timeout=60, MemorySize=384)
        call = Call(self.node, "first", {"name": "first"})
        gate = Gate(self.node, "first")
        other = Call(self.node, "second", {"name": "x", "wait": False})
        until(lambda: queued(self.node, "second") == 1, "the other call waiting")
        gate.open()
        self.good(call.answer())
        self.assertEqual(self.good(other.answer()).json()["name"], "x")

    def test_a_function_that_can_never_fit(self):
        self.deploy("giant", source("gate"), Timeout=timeout(2), MemorySize=1024)
        answer = self.node.invoke("giant", {"name": "x", "wait": False})
        self.assertEqual(answer.status, 429, answer)


if __name__ == "__main__":
    unittest.main()
