"""A funclet that ends at each of its fault points: what is in flight fails clearly, all else goes on, nothing leaks.

An engine has two funclets. At the first one a call is held and another function makes it come to the place at which it
ends; the second one has a warm function that must not notice. A funclet's quick deaths delay its next start, and the
eighth ends the engine; so an engine sees a few and then another is started, three engines at a time.
"""

import concurrent.futures
import os
import shutil
import socket
import subprocess
import tempfile
import time
import traceback
import unittest
from pathlib import Path

from support import machine
from support.deploy import Call, Gate, Told, Wire, gates, get_json, head, instances, invocation, remove, source, state
from support.deploy import steady_state
from support.node import Node
from support.wait import patience, timeout, until

ENGINES_AT_ONCE = 3
# Beginnings of the names of the places to come to, where all would take too long (tests/vm); none is all.
CHOSEN = tuple(os.environ.get("FAASTER_TEST_FAULTS", "").split())
# The next start comes after 0, 100 and 200 ms.
DEATHS_PER_ENGINE = 3
# Not what is promised (a second, on a machine of its own): when something is wrong. Times are printed.
BACK_WITHIN_S = patience(20)
# A held call never ends by time; 900 s is the most that a function may have.
HELD_S = min(patience(60), 900)
PREPARED = 1

HELLO = "def handler(event, context):\n    return 'hello'\n"
# Is killed when its time is over.
SLEEPER = "import time\ndef handler(event, context):\n    time.sleep(600)\n"
# Says which process it is in: a mark in /tmp, by which the test finds it.
MARKED = "import os\nnumber = 0\ndef handler(event, context):\n" \
         "    global number\n    number += 1\n    open('/tmp/gate-mark', 'w').close()\n    return {'number': number}\n"

# What makes a funclet come to a place.
CLAIM, CROWD, START, FREEZE, THAW, KILL, END = "claim", "crowd", "start", "freeze", "thaw", "kill", "end"
TRIGGERS = {
    "start-": START, "create-": CLAIM, "claim-": CLAIM, "claim-waiting": CROWD, "freeze-": FREEZE, "thaw-": THAW,
    "fork-": START, "fork-ordered": CLAIM, "fork-taken": CLAIM, "end-asked": KILL, "end-killed": KILL, "end-": END,
}
# Only where /proc is masked, as in Docker, does a helper mount it.
MASKED = {"create-helper"}
MASK = ("unshare", "--mount", "sh", "-c", "mount --bind /proc/sys /proc/sys && exec \"$@\"", "masked")


def trigger_of(place):
    """The trigger of the longest beginning of its name."""
    fitting = [known for known in TRIGGERS if place.startswith(known)]
    assert fitting, f"nothing is known to bring a funclet to {place}: give it a trigger"
    return TRIGGERS[max(fitting, key=len)]


def index_of(pid):
    """Which funclet a process is."""
    return int(machine.command_of(pid).rsplit(" ", 1)[1])


def links():
    """Containers' links of any engine in this network."""
    return sorted(name for _, name in socket.if_nameindex() if name.startswith("faas"))


def tables():
    listed = subprocess.run(["nft", "list", "tables"], capture_output=True, text=True, check=True)
    return sorted(line for line in listed.stdout.splitlines() if "faaster-" in line)


def rest_of(node):
    """What a node has, with what else than itself it may leave behind."""
    mine = [line for line in tables() if node.instance in line]
    return {**state(node), "tables": len(mine)}


class Site:
    """An engine with functions at both funclets, which dies and is looked at."""

    # {name: index of its funclet}: a function's funclet follows from its name.
    HOMES = {}

    def __init__(self, places):
        self.places = places
        self.folder = Path(tempfile.mkdtemp(prefix="faaster-faults-", dir="/var/tmp"))
        rests = {trigger_of(place) for place in places} & {FREEZE, THAW}
        self.node = Node(
            "--funclets=2", f"--pool=python3={PREPARED},nodejs=0,ruby=0,provided=0", f"--fault-points={self.folder}",
            f"--freeze-after={'100ms' if rests else 'never'}", before=MASK if MASKED & set(places) else (),
        )
        self.told = []

    def __enter__(self):
        self.node.start()
        return self

    def __exit__(self, *about):
        try:
            self.node.__exit__(*about)
        finally:
            shutil.rmtree(self.folder)

    # --- where functions are ------------------------------------------------------------------------------

    @classmethod
    def learn_homes(cls):
        """Which of some names belongs to which funclet."""
        with Node("--funclets=2", "--pool=python3=1,nodejs=0,ruby=0,provided=0") as node:
            for name in [f"f{number}" for number in range(16)]:
                node.deploy(name, MARKED)
                assert node.invoke(name).json() == {"number": 1}
                [init] = [pid for pid in gates(node)["mark"] if machine.stat_of(pid)[2] in node.funclet_pids()]
                cls.HOMES[name] = index_of(machine.stat_of(init)[2])
                remove(node, name)
                until(lambda: not instances(node) and not gates(node), "it is gone")

    def named(self, home):
        return [name for name, index in self.HOMES.items() if index == home]

    # --- the tests' steps ---------------------------------------------------------------------------------

    def run(self):
        """All places of this engine, one after the other."""
        node = self.node
        self.held, self.served, *self.victims = self.named(0)
        self.bystander = self.named(1)[0]
        node.deploy(self.bystander, MARKED)
        assert node.invoke(self.bystander).json() == {"number": 1}
        until(lambda: len(cold(node)) == 2 * PREPARED, "full pools")
        at_rest = self.steady()
        for number, place in enumerate(self.places):
            self.die_at(place, number + 2)
        assert self.node.funclet_pids(), node.errors()
        for name in (self.held, self.served, *self.victims):
            remove(node, name)
        until(lambda: len(instances(node)) == 1, "the bystander alone")
        until(lambda: rest_of(node) == at_rest, Told(lambda: f"after {self.places}: {at_rest}, not {rest_of(node)}"))

    def steady(self):
        steady_state(self.node, 2 * PREPARED)
        return rest_of(self.node)

    def die_at(self, place, calls):
        node, trigger = self.node, trigger_of(place)
        ours, other = sorted(node.funclet_pids(), key=index_of)
        node.deploy(self.held, source("gate"), Timeout=HELD_S)
        node.deploy(self.served, HELLO)
        self.prepare(trigger)
        with Wire(node.controller) as held, Wire(node.controller) as idle:
            held.send(invocation(self.held, {"name": "held"}))
            idle.send(head("GET", "/healthz"))
            assert idle.answer().status == 200
            Gate(node, "held")
            family = node.note_processes() and machine.descendants(ours)
            self.arm(place, trigger)
            triggered = self.pull(place, trigger)
            fired = time.monotonic()
            self.assert_lost(held.answer("POST"), f"the held call, {place}")
            # The connections of before, one after a failed call and one that was idle.
            for wire in (held, idle):
                answer = wire.send(invocation(self.served)).answer("POST")
                assert (answer.status, answer.text) == (200, "hello"), (place, answer)
                took = time.monotonic() - fired
                assert took < BACK_WITHIN_S, f"{place}: service is back after {took:.1f} s"
                self.told.append((place, took)) if wire is held else None
        for call in triggered:
            answer = call.answer()
            if trigger == KILL and "Task timed out" in answer.text:
                continue
            if answer.text != "hello":
                self.assert_lost(answer, f"what came to {place}")
        pids = node.funclet_pids()
        assert other in pids and ours not in pids and len(pids) == 2, (place, pids, node.errors())
        numbered = node.invoke(self.bystander).json()
        assert numbered == {"number": calls}, f"{place}: a warm function of another funclet noticed: {numbered}"
        until(lambda: not any(map(machine.stat_of, family)), f"{place}: the dead funclet's processes gone and reaped")

    def prepare(self, trigger):
        """The victims as they must be before the place is armed."""
        node, victim = self.node, self.victims[0]
        if trigger in (CLAIM, CROWD, START):
            # Two that have no instance.
            for name in self.victims[:2]:
                remove(node, name)
            until(lambda: not any(instances(node, name) for name in self.victims[:2]), "no instance of the victims")
            for name in self.victims[:2]:
                node.deploy(name, HELLO)
        elif trigger == KILL:
            node.deploy(victim, SLEEPER, Timeout=timeout(1))
        else:
            node.deploy(victim, HELLO)
            assert node.invoke(victim).text == "hello"
        until(lambda: len(cold(node)) == 2 * PREPARED, "full pools")
        if trigger in (FREEZE, THAW):
            # Or the bystander would come to the place first.
            until(lambda: self.state_of(self.bystander) == "frozen", "the bystander frozen")
        if trigger == THAW:
            until(lambda: self.state_of(victim) == "frozen", "the victim frozen")

    def state_of(self, name):
        return [one["State"] for one in instances(self.node, name)] == ["frozen"] and "frozen"

    def arm(self, place, trigger):
        if trigger == START:
            (self.folder / "claim-received").touch()
        (self.folder / place).touch()

    def pull(self, place, trigger):
        """Brings the funclet to the place; gives the calls that were made for that."""
        node, victim, calls = self.node, self.victims[0], []
        if trigger in (CLAIM, START, THAW, KILL):
            calls.append(Call(node, victim))
        elif trigger == CROWD:
            calls.extend(Call(node, name) for name in self.victims[:2])
        elif trigger == FREEZE:
            assert node.invoke(victim).text == "hello"
        else:
            remove(node, victim)
        armed = [self.folder / place, self.folder / "claim-received"]
        until(lambda: not any(map(os.path.exists, armed)), f"a funclet ends at {place}")
        return calls

    @staticmethod
    def assert_lost(answer, what):
        headers = {name.lower(): value for name, value in answer.headers.items()}
        request_id = headers["x-easyfaas-request-id"]
        sentence = f"RequestID: {request_id} Process exited before completing request"
        found = (answer.status, headers.get("x-easyfaas-function-error"), answer.text)
        assert found == (200, "Unhandled", sentence), f"{what}: {found}"


def cold(node):
    return [one for one in get_json(node.controller, "/v1/runtimes") if one["State"] == "cold"]


def all_places():
    """The list that a funclet writes when it is told of the folder."""
    with Site([]) as site:
        return until(lambda: (site.folder / "places").read_text().split(), "the list of places")


def shares(places):
    """Places that one engine dies at: alike ones, which want the same settings, and no more deaths than it bears."""
    by_engine = {}
    for place in places:
        kind = (trigger_of(place) in (FREEZE, THAW), place in MASKED)
        deaths = 2 if trigger_of(place) == START else 1
        filled = by_engine.setdefault(kind, [])
        if not filled or filled[-1][0] + deaths > DEATHS_PER_ENGINE:
            filled.append([0, []])
        filled[-1][0] += deaths
        filled[-1][1].append(place)
    return [share for filled in by_engine.values() for _, share in filled]


def run_one(places):
    """Lets the funclet of one engine die at some places; gives how long each was without service."""
    try:
        with Site(places) as site:
            site.run()
    except Exception as error:
        raise AssertionError(f"{places}: {''.join(traceback.format_exception(error))}") from error
    return site.told


class FaultTest(unittest.TestCase):
    def test_a_funclet_may_end_anywhere(self):
        places = all_places()
        self.assertGreater(len(places), 40)
        places = [place for place in places if place.startswith(CHOSEN or "")]
        self.assertTrue(places, f"no place begins with any of {CHOSEN}")
        Site.learn_homes()
        # Some may be leaving: the kernel takes its time with links.
        before = set(links()), set(tables())
        with concurrent.futures.ThreadPoolExecutor(ENGINES_AT_ONCE) as pool:
            results = [pool.submit(run_one, share) for share in shares(places)]
        failures = [str(error) for error in map(concurrent.futures.Future.exception, results) if error]
        self.assertEqual(failures, [], "\n".join(failures))
        told = [times for result in results for times in result.result()]
        self.assertEqual(sorted(place for place, _ in told), sorted(places), "every place has been come to")
        worst = sorted(((took, place) for place, took in told), reverse=True)
        middle = worst[len(worst) // 2][0]
        print(f"\n{len(told)} places; service back after {middle:.2f} s (median), {worst[0][0]:.2f} s at worst ({worst[0][1]})")

        def left():
            return set(links()) - before[0], set(tables()) - before[1]

        until(lambda: not any(left()), Told(lambda: f"links and tables left behind: {left()}"))


if __name__ == "__main__":
    unittest.main()
