"""Hooks around a fork in children of Python's fork server: held back while it forks, in force for a function's own forks."""
import pathlib
import subprocess
import sys
import textwrap
import unittest

RUNTIME = pathlib.Path(__file__).parent.parent / "python3"
PREFACE = """
    import os, sys
    sys.path.insert(0, sys.argv[1])
    from faaster_runtime import at_fork

    at_fork.collect()
    log = []

    def register(module):
        named = {"__name__": module, "os": os, "log": log, "me": module}
        exec("os.register_at_fork(before=lambda: log.append('before ' + me), "
             "after_in_parent=lambda: log.append('parent ' + me), after_in_child=lambda: log.append('child ' + me))", named)

    def forked():
        del log[:]
        read, write = os.pipe()
        if os.fork() == 0:
            os.write(write, repr(log).encode())
            os._exit(0)
        os.wait()
        return eval(os.read(read, 4096)), list(log)
"""


def output_of(program):
    whole = textwrap.dedent(PREFACE) + textwrap.dedent(program)
    return subprocess.run(
        [sys.executable, "-c", whole, str(RUNTIME)], capture_output=True, text=True, check=True, timeout=60
    ).stdout.splitlines()


class AtFork(unittest.TestCase):
    def test_known_hooks_wait_until_the_child_is_in_its_container_and_others_do_not(self):
        child, parent, child_later, parent_later = output_of(
            """
            register("threading"); register("logging"); register("grpc")
            at_fork.collected()
            for _ in range(2):
                for ran in forked():
                    print(ran)
                at_fork.put_in_force()
            """
        )
        self.assertEqual(child, "['before grpc', 'child grpc']")
        self.assertEqual(parent, "['before grpc', 'parent grpc']")
        self.assertEqual(
            child_later,
            "['before grpc', 'before logging', 'before threading', 'child threading', 'child logging', 'child grpc']",
        )
        self.assertEqual(
            parent_later,
            "['before grpc', 'before logging', 'before threading', 'parent threading', 'parent logging', 'parent grpc']",
        )

    def test_the_modules_of_the_list_register_under_these_names(self):
        (held,) = output_of(
            """
            import concurrent.futures.thread, logging, random, threading
            print(len(at_fork._after_in_child), len(at_fork._before))
            """
        )
        # threading has one for children alone, random too; the others also take a lock before.
        self.assertEqual(held, "4 2")

    def test_what_a_function_registers_is_the_interpreters_own(self):
        child, _ = output_of(
            """
            at_fork.collected()
            register("random")
            for ran in forked():
                print(ran)
            """
        )
        self.assertEqual(child, "['before random', 'child random']")


if __name__ == "__main__":
    unittest.main()
