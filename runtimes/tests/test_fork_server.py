"""What a fork server's children must not share, tried on forks of this process: numpy's generator, by a stand-in.

numpy is not among the project's packages. The stand-in has the part of its surface that the fork server uses:
`numpy.random.seed()`, which takes new state from the kernel, and `numpy.random.random()` for the test to look at.
It shows that the call is made where numpy is loaded, not what numpy makes of it.
"""
import os
import random
import sys
import types
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "python3"))

from faaster_runtime import fork_server  # noqa: E402

SIBLINGS = 4


def stand_in():
    """A module named numpy whose one generator is copied by a fork, as numpy's is."""
    generator = random.Random(1)
    numpy = types.ModuleType("numpy")
    numpy.random = types.ModuleType("numpy.random")
    numpy.random.seed, numpy.random.random = generator.seed, generator.random
    return numpy


def told_by_a_child(action, source):
    """What a child of this process draws after an action."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            action()
            os.write(write, repr(source()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        told = pipe.read()
    os.waitpid(child, 0)
    return told


class SiblingsTest(unittest.TestCase):
    def drawn(self, action):
        numpy = stand_in()
        with mock.patch.dict(sys.modules, {"numpy": numpy}):
            drawn = [told_by_a_child(action, numpy.random.random) for _ in range(SIBLINGS)]
        self.assertNotIn("", drawn, "a child ended before it drew")
        return set(drawn)

    def test_siblings_share_no_state_of_numpys_generator(self):
        self.assertEqual(len(self.drawn(lambda: None)), 1, "without renewal they would")
        self.assertEqual(len(self.drawn(fork_server.renew)), SIBLINGS)

    def test_a_numpy_that_is_half_loaded_costs_no_child(self):
        with mock.patch.dict(sys.modules, {"numpy": types.ModuleType("numpy")}):
            fork_server.renew()


if __name__ == "__main__":
    unittest.main()
