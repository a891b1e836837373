"""The command line against a running engine: what it prints, and exit codes that scripts can use."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

from support.node import Node, clean_environment, program, run_command, zipped
from support.wait import until

ECHO = "import os\ndef handler(event, context):\n    print('seen', event)\n" \
       "    return {'event': event, 'greeting': os.environ.get('GREETING')}\n"


class CliTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.node = Node()
        cls.node.start()
        cls.addClassCleanup(cls.node.__exit__, None, None, None)

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.folder)

    def cli(self, *arguments, code=0, **options):
        ended = self.node.cli(*arguments, **options)
        self.assertEqual(ended.returncode, code, ended.stderr or ended.stdout)
        return ended

    def write(self, **files):
        code = self.folder / "code"
        code.mkdir()
        for name, text in files.items():
            (code / name.replace("_", ".")).write_text(text)
        return code

    def test_a_function_from_deploy_to_rm(self):
        code = self.write(index_py=ECHO)
        deployed = self.cli(
            "deploy", code, "--name=echo", "--env=GREETING=a=b", "--memory=256", "--timeout=7", "--concurrency=3",
            "--description=says it again",
        )
        self.assertIn("echo is deployed (python3, 1 files", deployed.stdout)
        answer = self.cli("invoke", "echo", "-d", '{"a":1}')
        self.assertEqual(json.loads(answer.stdout), {"event": {"a": 1}, "greeting": "a=b"})

        listed = {row["FunctionName"]: row for row in json.loads(self.cli("functions", "--json").stdout)}["echo"]
        self.assertEqual(
            (listed["Runtime"], listed["Handler"], listed["MemorySize"], listed["Timeout"], listed["PodConcurrentQuota"]),
            ("python3", "index.handler", 256, 7, 3),
        )
        table = self.cli("functions").stdout
        self.assertRegex(table, r"(?m)^NAME +VERSION +RUNTIME")
        self.assertRegex(table, r"(?m)^echo +\$LATEST +python3 +index\.handler +256 +7 +3")

        instances = json.loads(self.cli("instances", "--json").stdout)
        self.assertIn("echo", [row["FunctionName"] for row in instances])
        self.assertIn("echo", self.cli("instances").stdout)

        self.cli("rm", "echo")
        self.cli("invoke", "echo", code=4)
        self.cli("rm", "echo", code=4)
        self.assertNotIn("echo ", self.cli("functions").stdout)

    def test_events_come_from_everywhere(self):
        self.cli("deploy", self.write(index_py=ECHO), "--name=events")
        file = self.folder / "event.json"
        file.write_text("[1, 2]")
        for arguments, options, event in [
            ([], {}, {}),
            (["-d", "[3]"], {}, [3]),
            (["-d", f"@{file}"], {}, [1, 2]),
            (["-d", "-"], {"input": "\"x\""}, "x"),
        ]:
            answer = self.cli("invoke", "events", *arguments, **options)
            self.assertEqual(json.loads(answer.stdout)["event"], event)

    def test_the_answer_is_printed_as_it_came(self):
        self.cli("deploy", self.write(index_py="def handler(e, c):\n    return 'héllo'\n"), "--name=raw")
        self.assertEqual(self.cli("invoke", "raw").stdout, "héllo")
        described = json.loads(self.cli("invoke", "raw", "--json").stdout)
        self.assertEqual((described["status"], described["payload"], described["functionError"]), (200, "héllo", None))
        self.assertTrue(described["requestId"])

    def test_a_tail_shows_what_the_call_printed(self):
        self.cli("deploy", self.write(index_py=ECHO), "--name=tail")
        answer = self.cli("invoke", "tail", "--tail", "-d", '{"tail":true}')
        self.assertIn("seen {'tail': True}", answer.stderr)
        self.assertIn("START RequestID", answer.stderr)

    def test_logs_are_kept_and_followed(self):
        self.cli("deploy", self.write(index_py=ECHO), "--name=logs")
        self.cli("invoke", "logs", "-d", '"first"')
        until(lambda: "seen first" in self.cli("logs", "logs").stdout, "the first line")
        follow = subprocess.Popen(
            [program(), "logs", "logs", "-f", f"--controller=http://{self.node.controller}"],
            stdout=subprocess.PIPE, text=True, env=clean_environment(),
        )
        self.addCleanup(follow.stdout.close)
        self.addCleanup(follow.wait)
        self.addCleanup(follow.kill)
        lines = iter(follow.stdout.readline, "")
        self.assertIn("seen first", next(lines))
        self.cli("invoke", "logs", "-d", '"second"')
        self.assertIn("seen second", next(lines))

    def test_an_error_of_the_function_is_exit_code_1(self):
        code = self.write(index_py="def handler(e, c):\n    raise ValueError('boom')\n")
        self.cli("deploy", code, "--name=boom")
        failed = self.cli("invoke", "boom", code=1)
        self.assertEqual(json.loads(failed.stdout)["errorMessage"], "boom")
        self.assertIn("failed", failed.stderr)

    def test_a_zip_and_other_languages(self):
        file = self.folder / "hello.zip"
        file.write_bytes(zipped({"index.js": "exports.handler = async () => 'from node';"}))
        self.assertIn("nodejs", self.cli("deploy", file).stdout)
        self.assertEqual(self.cli("invoke", "hello").stdout, "from node")

    def test_what_the_engine_refuses_is_said_once_and_clearly(self):
        code = self.write(index_py=ECHO)
        for name, *settings in (
            ("refused", "--memory=1"), ("refused", "--runtime=python2.7"), ("refused", "--timeout=100000"), ("a b",),
        ):
            refused = self.node.cli("deploy", code, f"--name={name}", *settings)
            self.assertEqual(refused.returncode, 1, refused.stderr)
            self.assertTrue(refused.stderr.startswith("faaster: "), refused.stderr)
            self.assertEqual(refused.stderr.count("\n"), 1, refused.stderr)
        self.assertEqual(self.node.cli("invoke", "refused").returncode, 4)

    def test_usage_errors_are_exit_code_2(self):
        for arguments in (["deploy"], ["invoke"], ["nonsense"], ["deploy", str(self.write(x_txt="")), "--name=x"]):
            self.assertEqual(run_command(*arguments).returncode, 2, arguments)

    def test_no_engine_is_exit_code_3(self):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
        ended = run_command("functions", f"--registry=http://127.0.0.1:{port}")
        self.assertEqual(ended.returncode, 3)
        self.assertIn("faaster serve", ended.stderr)
        environment = clean_environment(FAASTER_CONTROLLER=f"http://127.0.0.1:{port}")
        self.assertEqual(run_command("resource", env=environment).returncode, 3)

    def test_the_account_is_the_callers(self):
        code = self.write(index_py=ECHO)
        self.cli("deploy", code, "--name=mine", "--account=alice")
        self.cli("invoke", "mine", code=4)
        self.cli("invoke", "mine", "--account=alice")
        names = [row["FunctionName"] for row in json.loads(self.cli("functions", "--json", "--account=alice").stdout)]
        self.assertEqual(names, ["mine"])

    def test_resource_and_runtimes(self):
        resource = json.loads(self.cli("resource", "--json").stdout)
        self.assertGreater(resource["Capacity"]["Memory"], 0)
        self.assertIn("Allocatable", self.cli("resource").stdout)
        names = [row["Name"] for row in json.loads(self.cli("runtimes", "--json").stdout)]
        self.assertLessEqual({"python3", "nodejs", "provided"}, set(names))
        self.assertRegex(self.cli("runtimes").stdout, r"(?m)^python3 +Python 3")

    def test_completions_for_every_shell(self):
        for shell in ("bash", "zsh", "fish"):
            script = run_command("completions", shell)
            self.assertEqual(script.returncode, 0)
            self.assertIn("deploy", script.stdout)

    def test_help_documents_exit_codes(self):
        self.assertIn("Exit codes", run_command("--help").stdout)


class DoctorTest(unittest.TestCase):
    def test_doctor_shows_the_whole_picture(self):
        ended = run_command("doctor", "--json", "--listen=127.0.0.1:0", "--registry-listen=127.0.0.1:0")
        self.assertEqual(ended.returncode, 0, ended.stdout)
        found = {row["what"]: row for row in json.loads(ended.stdout)}
        for what in ("kernel", "io_uring", "cgroups", "namespaces", "open files", "locked memory", "faaster-init"):
            self.assertIn(what, found)

    def test_doctor_says_what_is_missing(self):
        folder = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, folder)
        folder.chmod(0o755)
        copy = shutil.copy(program(), folder / "faaster")
        os.chmod(copy, 0o755)
        ended = subprocess.run(
            ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", copy, "doctor"],
            capture_output=True, text=True, timeout=60, env=clean_environment(), cwd="/", check=False,
        )
        self.assertEqual(ended.returncode, 2)
        self.assertRegex(ended.stdout, r"(?m)^MISSING +user .*root")


class DemoTest(unittest.TestCase):
    def test_the_demo_measures_every_language_and_leaves_nothing(self):
        ended = run_command("demo", "--once", "--json", timeout_s=300)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        rows = {row["runtime"]: row for row in json.loads(ended.stdout)}
        self.assertLessEqual({"python3", "nodejs"}, set(rows))
        for row in rows.values():
            self.assertIn("Hello", row["answer"])
            self.assertGreater(row["coldUs"], 0)
            self.assertGreaterEqual(row["warmP99Us"], row["warmMedianUs"])
        self.assertFalse(list(Path("/var/tmp").glob("faaster-demo-*")))

    def test_the_demo_goes_on_serving_until_it_is_stopped(self):
        with tempfile.TemporaryFile("w+") as output:
            process = subprocess.Popen([program(), "demo"], stdout=output, stderr=subprocess.STDOUT, env=clean_environment())

            def said():
                output.seek(0)
                return output.read()

            until(lambda: "goes on serving" in said() or process.poll() is not None, "the farewell", patience_s=300)
            line = next(line for line in said().splitlines() if "curl -d" in line)
            called = subprocess.run(line, shell=True, capture_output=True, text=True, timeout=60, check=False)
            self.assertIn("Hello", called.stdout, said())
            process.send_signal(2)
            self.assertEqual(process.wait(120), 0)
        self.assertFalse(list(Path("/var/tmp").glob("faaster-demo-*")))


if __name__ == "__main__":
    unittest.main()
