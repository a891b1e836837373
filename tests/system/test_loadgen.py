"""The load generator against a real engine: calls by the preset, and first calls of functions that it deploys itself."""

import json
import os
import shutil
import signal
import subprocess
import tempfile
import unittest
from pathlib import Path

from support.deploy import EngineCase, brn, counter, get_json, instances
from support.http_client import request
from support.loadgen import FAILED, INVALID, loadgen, measured, start
from support.node import ROOT, zipped
from support.wait import PATIENCE_S, until

HELLO = "def handler(event, context):\n    return 'Hello world!'\n"
EXAMPLE = ROOT / "runtimes" / "provided"


def functions(node):
    """Names of the functions that are deployed."""
    listed = get_json(node.registry, "/v1/functions")
    return {one["FunctionName"] for one in listed["Functions"]}


class LoadgenCase(EngineCase):
    def where(self):
        return f"http://{self.node.controller}"

    def run_preset(self, *flags, **options):
        return measured("run", "--target=faaster", "-w", "0", *flags, self.where(), **options)


class PresetTest(LoadgenCase):
    """`--target faaster` against the API of the engine."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("hello", HELLO)

    def test_a_function_by_name_and_by_brn(self):
        for function in ("hello", brn("hello")):
            result = self.run_preset("--function", function, "-n", "300", "-c", "4", "--expect-body", "Hello world!")
            self.assertEqual((result["succeeded"], result["requests"]), (300, 300), result["failed"])
        spaced = self.run_preset("--function", "hello", "-n", "200", "-r", "400", "-b", '{"a":1}')
        self.assertEqual((spaced["succeeded"], spaced["setting"]["loop"]), (200, "open"), spaced["failed"])
        missing = self.run_preset("--function", "hello", "--qualifier", "7", "-n", "10", codes=(INVALID,))
        self.assertEqual(missing["failed"]["status"], 10)

    def test_the_account_decides(self):
        stranger = "0" * 32
        result = self.run_preset("--function", "hello", "--account", stranger, "-n", "10", codes=(INVALID,))
        self.assertEqual((result["succeeded"], result["failed"]["status"]), (0, 10))

    def test_a_failed_function_is_no_success_although_its_status_is_200(self):
        self.deploy("fails", "def handler(event, context):\n    raise ValueError('boom')\n")
        result = self.run_preset("--function", "fails", "-n", "20", codes=(INVALID,))
        self.assertEqual((result["succeeded"], result["failed"]["function"]), (0, 20))
        as_url = measured("run", "-w", "0", "-n", "20", "-b", "{}", f"{self.where()}/v1/functions/fails/invocations?Qualifier=1",
                          codes=(INVALID,))
        self.assertEqual(as_url["failed"]["function"], 0, "a plain URL knows nothing of functions")

    def test_many_functions_alike_and_by_zipf(self):
        names = [f"many{number}" for number in range(6)]
        for name in names:
            self.deploy(name, HELLO)
        for choice in ("uniform:6", "zipf:6:1.2"):
            result = self.run_preset("--template", "--function", f"many{{{{{choice}}}}}", "-n", "200", "-c", "2", "--timeout=60s")
            self.assertEqual(result["succeeded"], 200, result["failed"])
        # With this seed each of them was called.
        called = {one["FunctionName"] for one in get_json(self.node.controller, "/v1/instances")["Instances"]}
        self.assertLessEqual(set(names), called)


class ColdTest(LoadgenCase):
    """`loadgen cold`: deployed, called once, removed."""

    POOL = {"python3": 2, "nodejs": 0, "ruby": 0, "provided": 1}

    def cold(self, *flags, **options):
        before = functions(self.node)
        calls = counter(self.node, "requests_total")
        result = measured("cold", f"--registry=http://{self.node.registry}", *flags, self.where(), **options)
        self.assertEqual(functions(self.node), before, "what was deployed is removed")
        self.assertEqual(result["latency"]["sent_to_done"]["count"], result["requests"])
        self.assertGreaterEqual(counter(self.node, "requests_total") - calls, result["requests"])
        return result

    def test_functions_of_python(self):
        result = self.cold("-n", "20", "--concurrency", "2", "--expect-body", "Hello world!")
        self.assertEqual((result["succeeded"], result["requests"]), (20, 20), result["failed"])
        told = result["cold"]
        self.assertEqual((told["functions"], told["runtime"], told["concurrency"], told["spacing_s"]), (20, "python3", 2, None))
        phases = {phase["name"]: phase["times"] for phase in result["phases"]}
        self.assertEqual({phase["count"] for phase in phases.values()}, {20}, phases)
        self.assertIn("run", phases)
        # A call's phases and the rest are no more than the call: the longest phase is shorter than the longest call.
        self.assertLessEqual(phases["run"]["max_us"], result["latency"]["sent_to_done"]["max_us"])
        self.assertLessEqual(phases["elsewhere"]["max_us"], result["latency"]["sent_to_done"]["max_us"])

    def test_given_code_that_tells_which_calls_are_first(self):
        code = {"index.py": "calls = 0\ndef handler(event, context):\n    global calls\n    calls += 1\n    return calls\n"}
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "code.zip"
            path.write_bytes(zipped(code))
            result = self.cold("-n", "20", "--spacing", "40ms", "--code", path, "--expect-body", "1")
        self.assertEqual(result["succeeded"], 20, result["failed"])
        self.assertEqual((result["cold"]["spacing_s"], result["setting"]["loop"]), (0.04, "open"))
        self.assertEqual(result["latency"]["intended_to_done"]["count"], 20)
        self.assertGreater(result["cold"]["zip_bytes"], 0)

    def test_functions_that_are_programs(self):
        if shutil.which("cargo") is None:
            self.skipTest("cargo is not installed")
        folder = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        built = subprocess.run([EXAMPLE / "conformance" / "build", "hello", folder], capture_output=True, text=True, check=False)
        self.assertEqual(built.returncode, 0, built.stderr)
        result = self.cold("-n", "20", "--runtime=provided", "--handler=hello", "--code", folder, "--expect-body", "Hello world!")
        self.assertEqual((result["succeeded"], result["cold"]["runtime"]), (20, "provided"), result["failed"])

    def test_functions_that_fail_are_counted_by_kind(self):
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "index.py").write_text("def handler(event, context):\n    raise ValueError('boom')\n")
            result = self.cold("-n", "3", "--code", folder, codes=(INVALID,))
        self.assertEqual((result["succeeded"], result["failed"]["function"], result["phases"]), (0, 3, []))

    def test_the_forms_of_a_result(self):
        with tempfile.TemporaryDirectory() as folder:
            out, hgrm, html = (Path(folder) / name for name in ("out.json", "out.hgrm", "out.html"))
            ended = loadgen("cold", f"--registry=http://{self.node.registry}", "-n", "20", "--out", out, "--hgrm", hgrm, "--html", html,
                            self.where())
            result = json.loads(out.read_text())
            self.assertIn("first calls of 20 functions (python3, the engine's own hello)", ended.stdout)
            self.assertRegex(ended.stdout, r"(?s)first call\nmean .*p50 .*phases, as the server tells them, of 20 answers")
            self.assertIn("Total count    =           20", hgrm.read_text())
            self.assertIn("first calls of 20 functions", html.read_text())
            compared = loadgen("compare", "--json", out, out)
        self.assertIn("p50, us", [row["metric"] for row in json.loads(compared.stdout)["rows"]], result)

    def test_a_signal_in_the_middle_leaves_nothing(self):
        before = functions(self.node)
        deployed = lambda: functions(self.node) - before
        called = lambda: [one for one in instances(self.node) if one["FunctionName"].startswith("loadgen-cold-")]
        # While functions are being deployed, and while they are being called.
        for number, reached in ((signal.SIGTERM, deployed), (signal.SIGINT, called)):
            process = start("cold", f"--registry=http://{self.node.registry}", "-n", "40", "--spacing=1s", self.where())
            pidfd = os.pidfd_open(process.pid)
            self.addCleanup(os.close, pidfd)
            until(reached, "functions of the tool")
            signal.pidfd_send_signal(pidfd, number)
            stdout, stderr = process.communicate(timeout=PATIENCE_S)
            self.assertEqual((process.returncode, stdout), (130, ""), stderr)
            self.assertEqual(functions(self.node), before)

    def test_a_refused_deployment_says_why_and_leaves_nothing(self):
        before = functions(self.node)
        ended = loadgen("cold", f"--registry=http://{self.node.registry}", "--runtime=cobol", self.where(), codes=(FAILED,))
        self.assertRegex(ended.stderr, r"^loadgen: cannot deploy loadgen-cold-\S+-0: the engine answers 400: .*cobol")
        self.assertEqual(functions(self.node), before)
        self.assertEqual(request(self.node.controller, "GET", "/readyz").status, 200)


if __name__ == "__main__":
    unittest.main()
