"""Runtimes that stop answering while their process lives: found, ended, replaced; the others never notice."""

from support.deploy import EngineCase, counter, instances
from support.wait import patience, until

WELL = {
    "python3": "def handler(event, context):\n    return {'well': True}\n",
    "nodejs": {"index.js": "exports.handler = async () => ({well: true});\n"},
    "ruby": {"index.rb": "def handler(event, context)\n  {well: true}\nend\n"},
}

# Each answers its call and hangs a moment later, for good.
STOPS_ITSELF = (
    "import os, signal, threading\n"
    "def handler(event, context):\n"
    "    if event.get('hang'):\n"
    "        threading.Timer(0.1, os.kill, (os.getpid(), signal.SIGSTOP)).start()\n"
    "    return {'well': True}\n"
)
KEEPS_THE_INTERPRETER = (
    "import re, threading\n"
    "def spin():\n"
    "    re.match('(a+)+$', 'a' * 64 + 'b')\n"
    "def handler(event, context):\n"
    "    if event.get('hang'):\n"
    "        threading.Timer(0.1, spin).start()\n"
    "    return {'well': True}\n"
)
KEEPS_THE_LOOP = {
    "index.js": "exports.handler = async (event) => {\n"
                "  if (event.hang) setTimeout(() => { for (;;); }, 100);\n"
                "  return {well: true};\n"
                "};\n"
}


def life(instance):
    """Slots come back: only with the generation it is this one."""
    return instance["ID"], instance["Generation"]


class HealthTest(EngineCase):
    ARGUMENTS = ("--health-interval=1s", f"--health-timeout={patience(2)}s", "--freeze-after=never")

    def only(self, name):
        listed = instances(self.node, name)
        self.assertEqual(len(listed), 1, listed)
        return life(listed[0])

    def hangs(self, name, files, **options):
        self.deploy(name, files, **options)
        for runtime, text in WELL.items():
            self.deploy(f"{name}-well-{runtime}", text, runtime=runtime)
            self.call(f"{name}-well-{runtime}")
        well = {runtime: self.only(f"{name}-well-{runtime}") for runtime in WELL}
        before = counter(self.node, "instances_unresponsive_total")
        self.call(name, {"hang": True})
        hung = self.only(name)
        # It was in demand: there is a successor before the next call.
        until(
            lambda: [one for one in instances(self.node, name) if life(one) != hung and one["State"] == "idle"],
            "a successor",
        )
        until(lambda: all(life(one) != hung for one in instances(self.node, name)), "the one that hangs gone")
        self.assertEqual(counter(self.node, "instances_unresponsive_total"), before + 1)
        self.log_says(name, "(?s)^(?!.*health check.*health check).*did not answer a health check")
        self.assertEqual(self.call(name), {"well": True})
        # They were asked as often.
        self.assertEqual({runtime: self.only(f"{name}-well-{runtime}") for runtime in WELL}, well)

    def test_a_process_that_stopped_itself(self):
        self.hangs("stops", STOPS_ITSELF)

    def test_a_thread_that_never_lets_go_of_the_interpreter(self):
        self.hangs("spins", KEEPS_THE_INTERPRETER)

    def test_a_loop_that_never_turns(self):
        self.hangs("loops", KEEPS_THE_LOOP, runtime="nodejs")

    def test_concurrent_instances_are_asked_too(self):
        self.hangs("crew", STOPS_ITSELF, PodConcurrentQuota=4)
