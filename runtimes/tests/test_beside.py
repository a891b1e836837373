"""A process that shares this one's memory: what it changes is seen, what it forks goes on alone, and one that is killed on
its way takes this one with it. Each in a process of its own, for it changes how the whole process behaves."""

import os
import subprocess
import sys
import unittest
from pathlib import Path

RUNTIME = Path(__file__).resolve().parent.parent / "python3"
DEADLINE_S = 60

BEGIN = """
import os, signal, sys
sys.path.insert(0, sys.argv[1])
from faaster_runtime import beside
signal.signal(signal.SIGCHLD, signal.SIG_IGN)
"""
SHARED = """
seen = []
run = beside.make(lambda: seen.append(os.getpid()))
assert run is not None
for _ in range(100):
    number = run()
    assert seen.pop() == number != os.getpid() and not seen
print("whole")
"""
# Deep enough to need most of a main thread's stack, and with a thread and a signal of its own.
GRANDCHILD = """
import functools, threading
read, write = os.pipe()
def grandchild():
    while os.getppid() == between:
        os.sched_yield()
    sys.setrecursionlimit(100_000)
    deep = lambda n: 0 if n == 0 else 1 + max([n - 1], key=lambda rest: deep(rest)) * 0 + deep(0)
    nested = functools.reduce(lambda inner, _: [inner], range(200), [])
    told = []
    thread = threading.Thread(target=lambda: told.append(len(repr(nested))))
    thread.start()
    thread.join()
    signal.signal(signal.SIGUSR1, lambda *_: told.append("signal"))
    signal.pthread_kill(threading.main_thread().ident, signal.SIGUSR1)
    os.write(write, repr((deep(1000), told, threading.current_thread() is threading.main_thread())).encode())
    os._exit(0)
def work():
    global between
    between = os.getpid()
    if os.fork() == 0:
        grandchild()
run = beside.make(work)
assert run is not None
for _ in range(20):
    run()
    assert os.read(read, 100) == b"(1, [402, 'signal'], True)"
print("whole")
"""
TORN = """
def work():
    signal.pidfd_send_signal(os.pidfd_open(os.getpid()), signal.SIGKILL)
    signal.pause()
run = beside.make(work)
run()
print("whole")
"""
SMALL_STACK = """
import resource
resource.setrlimit(resource.RLIMIT_STACK, (1 << 20, resource.getrlimit(resource.RLIMIT_STACK)[1]))
assert beside.make(print) is None
print("whole")
"""


def run(program):
    """Exit status and output of a Python process."""
    command = [sys.executable, "-c", BEGIN + program, str(RUNTIME)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    return done.returncode, done.stdout + done.stderr


@unittest.skipUnless(os.confstr("CS_GNU_LIBC_VERSION"), "the C library does not say where the stack is")
class BesideTest(unittest.TestCase):
    def test_its_memory_is_ours(self):
        self.assertEqual(run(SHARED), (0, "whole\n"))

    def test_what_it_forks_lives_on_as_a_main_thread(self):
        self.assertEqual(run(GRANDCHILD), (0, "whole\n"))

    def test_one_that_is_killed_on_its_way_takes_us_with_it(self):
        self.assertEqual(run(TORN), (70, ""))

    def test_a_small_stack_is_not_divided(self):
        self.assertEqual(run(SMALL_STACK), (0, "whole\n"))


if __name__ == "__main__":
    unittest.main()
