"""What becomes of instances without a call: frozen and thawed, kept, replaced."""

from support.deploy import EngineCase, counter, instances
from support.wait import until

# Counts as long as its processes run.
TICKING = (
    "import os, threading, time\n"
    "ticks = 0\n"
    "def tick():\n"
    "    global ticks\n"
    "    while True:\n"
    "        ticks += 1\n"
    "        time.sleep(0.01)\n"
    "threading.Thread(target=tick, daemon=True).start()\n"
    "def handler(event, context):\n"
    "    if event.get('exit'):\n"
    "        os._exit(3)\n"
    "    return {'ticks': ticks, 'kept': os.getpid()}\n"
)


class FreezingTest(EngineCase):
    ARGUMENTS = ("--freeze-after=1s", "--max-runtime-idle=20s")

    def frozen(self, name):
        def one_is():
            listed = instances(self.node, name)
            return len(listed) == 1 and listed[0]["State"] == "frozen" and listed[0]

        return until(one_is, "the instance frozen")

    def test_an_idle_instance_is_frozen_and_the_next_call_finds_it_as_it_was(self):
        self.deploy("rests", TICKING)
        self.call("rests")
        for _ in range(3):
            before = self.frozen("rests")
            # Frozen for as long as it takes to say so a few times over: its thread does not go on meanwhile.
            again = self.frozen("rests")
            self.assertEqual(before["ID"], again["ID"])
            self.assertGreater(self.call("rests")["ticks"], 0)
        self.assertEqual(len(instances(self.node, "rests")), 1)
        self.assertGreaterEqual(counter(self.node, "instances_frozen_total"), 3)

    def test_every_runtime_bears_it(self):
        hello = {"nodejs": {"index.js": "exports.handler = async (event) => ({n: event.n});\n"},
                 "ruby": {"index.rb": "def handler(event, context)\n  {n: event['n']}\nend\n"}}
        for language, text in hello.items():
            with self.subTest(language):
                self.deploy(f"rests-{language}", text, runtime=language)
                self.assertEqual(self.call(f"rests-{language}", {"n": 1}), {"n": 1})
                self.frozen(f"rests-{language}")
                self.assertEqual(self.call(f"rests-{language}", {"n": 2}), {"n": 2})

    def test_a_redeploy_ends_what_is_frozen(self):
        self.deploy("redeployed", TICKING)
        self.call("redeployed")
        old = self.frozen("redeployed")["ID"]
        self.deploy("redeployed", TICKING + "# newer\n")
        until(lambda: all(one["ID"] != old for one in instances(self.node, "redeployed")), "the old one gone")

    def test_a_frozen_instance_is_ended_when_nobody_calls(self):
        self.deploy("forgotten", TICKING)
        self.call("forgotten")
        self.frozen("forgotten")
        until(lambda: not instances(self.node, "forgotten"), "the instance gone")

    def test_what_dies_in_demand_is_replaced_before_the_next_call(self):
        self.deploy("dies", TICKING)
        self.call("dies")
        self.node.invoke("dies", {"exit": True})

        def replaced():
            listed = instances(self.node, "dies")
            return len(listed) == 1 and listed[0]["Accepted"] == 0 and listed[0]["State"] in ("idle", "frozen")

        until(replaced, "a successor that nobody called")
        before = counter(self.node, "cold_starts_total")
        self.call("dies")
        self.assertEqual(counter(self.node, "cold_starts_total"), before)


class KeepingTest(EngineCase):
    ARGUMENTS = ("--freeze-after=1s", "--max-runtime-idle=2s")

    def test_a_function_keeps_its_least_instances_called_or_not(self):
        self.deploy("kept", TICKING, MinInstances=2)
        self.deploy("other", TICKING)

        def ready(count):
            listed = instances(self.node, "kept")
            return len(listed) == count and all(one["State"] == "idle" for one in listed) and listed

        first = until(lambda: ready(2), "two instances without a call")
        self.call("other")
        until(lambda: not instances(self.node, "other"), "what nobody keeps is gone")
        self.assertEqual({one["ID"] for one in ready(2) or []}, {one["ID"] for one in first}, "neither ended nor frozen")
        before = counter(self.node, "cold_starts_total")
        for _ in range(5):
            self.call("kept")
        self.assertEqual(counter(self.node, "cold_starts_total"), before, "calls find them ready")
        # One dies and is replaced, without a call.
        self.node.invoke("kept", {"exit": True})
        until(lambda: all(one["Accepted"] == 0 for one in ready(2) or [{"Accepted": 1}]), "a successor")
        self.deploy("kept", TICKING, MinInstances=0)
        until(lambda: not instances(self.node, "kept"), "none is kept any more")
