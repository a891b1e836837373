"""`faaster demo`: an engine of its own, an example for each language, figures, and nothing left."""

import collections
import contextlib
import json
import signal
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

from support import machine
from support.deploy import Told
from support.node import clean_environment, program, run_command
from support.wait import patience, until


def folders():
    """Data of demos."""
    return {str(path) for path in Path("/var/tmp").glob("faaster-demo-*")}


def held():
    """Mount points, and cgroups that no process is in any more."""
    return collections.Counter([*machine.mounts(), *machine.abandoned_cgroups()])


class DemoTest(unittest.TestCase):
    def setUp(self):
        self.before = set(machine.processes()), folders(), held()

    def assert_nothing_left(self):
        """Nothing is there that was not there before the test."""
        processes, data, others = self.before
        until(lambda: not set(machine.processes()) - processes, "processes gone")
        self.assertEqual(folders() - data, set())
        until(lambda: not held() - others, Told(lambda: f"mounts and cgroups gone: {held() - others}"))

    def test_every_language_is_measured_and_nothing_is_left(self):
        ended = run_command("demo", "--once", "--json", timeout_s=patience(300))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        rows = {row["runtime"]: row for row in json.loads(ended.stdout)}
        self.assertLessEqual({"python3", "nodejs", "provided"}, set(rows), ended.stderr)
        for row in rows.values():
            self.assertIn("Hello", row["answer"])
            self.assertGreater(row["coldUs"], 0)
            self.assertGreaterEqual(row["warmP99Us"], row["warmMedianUs"])
        self.assert_nothing_left()

    def test_it_goes_on_serving_until_it_is_stopped(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            with tempfile.TemporaryFile("w+") as output:
                process = subprocess.Popen(
                    [program(), "demo"], stdout=output, stderr=subprocess.STDOUT, env=clean_environment(),
                )

                def said():
                    output.seek(0)
                    return output.read()

                until(lambda: "goes on serving" in said() or process.poll() is not None, "the farewell", patience_s=patience(300))
                line = next((line for line in said().splitlines() if "curl -d" in line), "false")
                called = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=patience(60), check=False)
                self.assertIn("Hello", called.stdout, said())
                process.send_signal(number)
                self.assertEqual(process.wait(120), 0, said())
            self.assert_nothing_left()

    def test_other_ports_are_taken_when_the_usual_ones_are_not_free(self):
        with contextlib.ExitStack() as stack:
            # If somebody else has them already, so much the better.
            for port in (8001, 8002):
                with contextlib.suppress(OSError):
                    stack.enter_context(socket.create_server(("127.0.0.1", port)))
            ended = run_command("demo", "--once", "--json", "--shards=1", "--pool=ruby=0", timeout_s=patience(300))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertRegex(ended.stderr, r"serving on http://127\.0\.0\.1:(?!8001)\d+ \(registry http://127\.0\.0\.1:(?!8002)\d+\)")
        self.assertTrue(json.loads(ended.stdout))
        self.assert_nothing_left()

    def test_a_killed_demo_takes_its_engine_with_it(self):
        process = subprocess.Popen(
            [program(), "demo"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment(), text=True,
        )
        with process.stdout:
            until(lambda: "goes on serving" in process.stdout.readline(), "the farewell", patience_s=patience(300))
            process.kill()
            process.wait(patience(60))
        self.assert_nothing_left()


if __name__ == "__main__":
    unittest.main()
