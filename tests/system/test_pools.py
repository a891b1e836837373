"""Pools of prepared containers follow demand: many first calls at once, and again, and then none."""

import unittest

from support.deploy import Call, answers, cold_containers, get_json, remove
from support.node import Node
from support.wait import until

FLOOR = 2
AT_ONCE = 64
SETTINGS = (
    f"--pool=python3={FLOOR},nodejs=0,ruby=0,provided=0", f"--pool-max={AT_ONCE}", "--slots-max=200",
    # All of the memory may be promised many times over: the test's bound is pool-max, on every machine.
    "--memory-overcommit=100",
)


def pool(node):
    """What the node says of python3's; nothing yet where its funclet has not answered."""
    funclets = get_json(node.controller, "/v1/node")["Funclets"]
    pools = funclets[0]["Pools"] if funclets else []
    return next((one for one in pools if one["Runtime"] == "python3"), {"Cold": None, "Target": None})


def first_calls(node, series):
    """Deploys functions that nobody has called, and calls all of them at once; the answers' texts."""
    names = [f"{series}-{number}" for number in range(AT_ONCE)]
    for name in names:
        node.deploy(name, f"def handler(event, context):\n    return '{name}'\n", Timeout=60)
    got = answers([Call(node, name) for name in names])
    wrong = [(name, answer) for name, answer in zip(names, got) if (answer.status, answer.text) != (200, name)]
    assert not wrong, wrong[:3]
    for name in names:
        remove(node, name)


class DemandTest(unittest.TestCase):
    def test_many_first_calls_at_once_succeed_and_enlarge_the_pool(self):
        with Node(*SETTINGS, "--pool-fall-after=3600s") as node:
            until(lambda: pool(node)["Cold"] == FLOOR, "a full pool")
            first_calls(node, "first")
            self.assertGreater(pool(node)["Target"], AT_ONCE / 2)
            until(lambda: pool(node)["Cold"] == pool(node)["Target"], "the larger pool filled")
            first_calls(node, "second")
            self.assertLessEqual(pool(node)["Target"], AT_ONCE)

    def test_quiet_lowers_it_to_its_floor(self):
        with Node(*SETTINGS, "--pool-fall-after=1s") as node:
            until(lambda: pool(node)["Cold"] == FLOOR, "a full pool")
            first_calls(node, "burst")
            until(lambda: pool(node)["Target"] == FLOOR, "the floor")
            until(lambda: len(cold_containers(node)) == FLOOR, "what was prepared beyond it gone")
