"""The command line against a running engine: what it prints for people and for scripts, and its exit codes."""

import json
import os
import select
import shutil
import signal
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

from support.deploy import EngineCase, brn
from support.node import clean_environment, program, run_command, zipped
from support.wait import PATIENCE_S, timeout, until

DONE, FAILED, REFUSED, UNREACHABLE, MISSING = range(5)
ECHO = "def handler(event, context):\n    print('was called')\n    return event\n"


class CliTest(EngineCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.home = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        cls.addClassCleanup(shutil.rmtree, cls.home, ignore_errors=True)
        cls.deploy("echo", ECHO)
        cls.deploy("fails", "def handler(event, context):\n    raise ValueError('boom')\n")

    def cli(self, *arguments, code=DONE, **options):
        ended = self.node.cli(*arguments, **options)
        self.assertEqual(ended.returncode, code, (arguments, ended.stdout, ended.stderr))
        return ended

    def data(self, *arguments, **options):
        """What a command says as JSON, in one line."""
        ended = self.cli(*arguments, "--json", **options)
        self.assertEqual(ended.stdout.count("\n"), 1, ended.stdout)
        return json.loads(ended.stdout)

    def folder(self, name, files):
        folder = self.home / name
        for path, content in files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(content)
        return folder

    def test_deploy_a_folder(self):
        folder = self.folder("my-function", {"index.py": ECHO, "lib/more.py": "", ".git/config": "secret", "__pycache__/x.pyc": ""})
        type(self).deployed |= {"my-function", "named"}
        said = self.cli("deploy", folder).stdout
        self.assertIn("my-function is deployed (python3, 2 files", said)
        self.assertEqual(self.cli("invoke", "my-function", "-d", "[1]").stdout, "[1]")
        said = self.data("deploy", folder, "--name=named", "--runtime=python3.9", "--handler=index.handler", "--memory=256", "--timeout=7",
                         "--concurrency=3", "--max-instances=2", "--env=A=b=c", "--env=D=", "--description=words")
        self.assertEqual((said["name"], said["runtime"], said["files"]), ("named", "python3.9", 2))
        shown = [one for one in self.data("functions") if one["FunctionName"] == "named"][0]
        self.assertEqual({key: shown[key] for key in ("Runtime", "MemorySize", "Timeout", "PodConcurrentQuota", "MaxInstances", "Description")},
                         {"Runtime": "python3.9", "MemorySize": 256, "Timeout": 7, "PodConcurrentQuota": 3, "MaxInstances": 2,
                          "Description": "words"})
        self.assertEqual(shown["Environment"]["Variables"], {"A": "b=c", "D": ""})

    def test_deploy_a_zip(self):
        path = self.home / "zipped.zip"
        path.write_bytes(zipped({"index.js": "exports.handler = async (event) => event;"}))
        type(self).deployed.add("zipped")
        self.assertIn("zipped is deployed (nodejs, 1 files", self.cli("deploy", path).stdout)
        self.assertEqual(self.cli("invoke", "zipped", "-d", '{"a":"☃"}').stdout, '{"a":"☃"}')

    def test_deploy_of_what_is_no_code(self):
        empty = self.folder("empty", {})
        empty.mkdir()
        text = self.home / "text.zip"
        text.write_text("no zip")
        for arguments, code, words in (
            (["deploy", self.home / "nowhere"], FAILED, "nowhere"), (["deploy", empty], FAILED, "holds no file"),
            (["deploy", text], FAILED, "zip"), (["deploy", self.folder("odd", {"a.xyz": "?"})], REFUSED, "--runtime"),
            (["deploy", self.folder("cobol", {"index.py": ECHO}), "--runtime=cobol"], FAILED, "cobol"),
            (["deploy", self.folder("big", {"index.py": ECHO}), "--memory=99999"], FAILED, "MemorySize"),
            (["deploy", self.folder("bad", {"index.py": ECHO}), "--env=NOVALUE"], REFUSED, "NAME=VALUE"),
        ):
            with self.subTest(arguments[1:]):
                ended = self.cli(*arguments, code=code)
                self.assertEqual(ended.stdout, "")
                self.assertIn(words, ended.stderr)

    def test_invoke(self):
        self.assertEqual(self.cli("invoke", "echo").stdout, "{}")
        self.assertEqual(self.cli("invoke", "echo", "-d", '{"a":1}').stdout, '{"a":1}')
        self.assertEqual(self.cli("invoke", brn("echo"), "-d", "[2]").stdout, "[2]")
        event = self.home / "event.json"
        event.write_text('{"from":"a file"}')
        self.assertEqual(self.cli("invoke", "echo", "-d", f"@{event}").stdout, '{"from":"a file"}')
        self.assertEqual(self.cli("invoke", "echo", "-d", "-", input='{"from":"standard input"}').stdout, '{"from":"standard input"}')
        large = json.dumps("x" * 1_000_000)
        event.write_text(large)
        self.assertEqual(len(self.cli("invoke", "echo", "-d", f"@{event}").stdout), 1_000_000)

    def test_invoke_with_the_log(self):
        ended = self.cli("invoke", "echo", "-d", "[1]", "--tail")
        self.assertEqual(ended.stdout, "[1]")
        self.assertRegex(ended.stderr, r"(?s)^START RequestID: .*was called\nEND RequestID: .*\nREPORT RequestID: ")
        said = self.data("invoke", "echo", "-d", '{"a":1}', "--tail")
        self.assertEqual((said["status"], said["payload"], said["functionError"]), (200, {"a": 1}, None))
        self.assertIn("was called\n", said["log"])
        self.assertGreater(said["durationMs"], 0)

    def test_invoke_that_fails(self):
        ended = self.cli("invoke", "fails", code=FAILED)
        self.assertEqual(json.loads(ended.stdout)["errorMessage"], "boom")
        self.assertIn("fails failed", ended.stderr)
        said = self.data("invoke", "fails", code=FAILED)
        self.assertEqual((said["functionError"], said["payload"]["errorType"]), ("Unhandled", "ValueError"))
        self.assertIn("missing", self.cli("invoke", "missing", code=MISSING).stderr + "missing")
        self.cli("invoke", "echo", "--qualifier=9", code=MISSING)
        self.cli("invoke", "echo", "-d", "@/no/such/file", code=FAILED)
        self.cli("invoke", "echo", "--event", "--tail", code=REFUSED)

    def test_invoke_that_never_runs(self):
        sleeps = {"bootstrap": "#!/bin/sh\nexec sleep 3600\n"}
        self.node.deploy("sleeps", sleeps, runtime="provided", Timeout=1)
        ended = self.cli("invoke", "sleeps", code=FAILED)
        self.assertIn("not ready", json.loads(ended.stdout)["errorMessage"])
        self.assertEqual(self.data("invoke", "sleeps", code=FAILED)["functionError"], "Unhandled")

    def test_listings(self):
        self.cli("invoke", "echo")
        names = {one["FunctionName"] for one in self.data("functions")}
        self.assertLessEqual({"echo", "fails"}, names)
        table = self.cli("functions").stdout
        self.assertRegex(table, r"(?m)^NAME +VERSION +RUNTIME")
        self.assertRegex(table, r"(?m)^echo +\$LATEST +python3 +index\.handler +128 +%d +0 " % timeout(5))
        listed = [one for one in self.data("instances") if one["FunctionName"] == "echo"]
        self.assertEqual(len(listed), 1)
        table = self.cli("instances").stdout
        row = next(line for line in table.splitlines() if line.startswith("echo "))
        self.assertRegex(row, rf"^echo +\$LATEST .*{listed[0]['ID']} +idle +0 +{listed[0]['Accepted']} +\d+ +\d+\.\d")
        self.assertEqual(self.data("resource")["Default"]["Memory"], 128 << 20)
        self.assertRegex(self.cli("resource").stdout, r"(?m)^Capacity +\d+ +\d+")
        runtimes = {one["Name"]: one for one in self.data("runtimes")}
        self.assertEqual(runtimes["python3"]["Names"], ["python3*", "python"])
        self.assertRegex(self.cli("runtimes").stdout, r"(?m)^python3 +Python 3\.\d+\.\d+ +python3\*, python +pooled +\d+$")

    def test_logs(self):
        self.deploy("talks", ECHO)
        self.assertEqual(self.cli("logs", "talks").stdout, "")
        self.cli("invoke", "talks")
        until(lambda: "was called" in self.cli("logs", "talks").stdout, "the line in the log")
        self.assertRegex(self.cli("logs", "talks").stdout, r"^\S+Z [0-9a-f-]{36} was called\n$")
        entry = self.data("logs", "talks")
        self.assertEqual(entry["Text"], "was called\n")
        self.cli("logs", "missing", code=MISSING)

    def test_logs_that_go_on(self):
        self.deploy("follows", "def handler(event, context):\n    print(event)\n")
        for text in ("one", "two"):
            self.call("follows", json.dumps(text))
        until(lambda: "two" in self.cli("logs", "follows").stdout, "the first lines")
        reader = subprocess.Popen(
            [program(), "logs", "follows", "-f", f"--controller=http://{self.node.controller}"], stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL, env=clean_environment(),
        )
        try:
            seen = self.lines(reader, 2)
            self.call("follows", '"three"')
            seen += self.lines(reader, 1)
            self.call("follows", '"four"')
            seen += self.lines(reader, 1)
            reader.send_signal(signal.SIGINT)
            self.assertIn(reader.wait(PATIENCE_S), (0, 130, -signal.SIGINT))
            seen += reader.stdout.read().decode().splitlines()
        finally:
            if reader.poll() is None:
                reader.kill()
                reader.wait()
            reader.stdout.close()
        self.assertEqual([line.rsplit(" ", 1)[-1] for line in seen], ["one", "two", "three", "four"])

    def lines(self, process, count):
        """The next lines of a process's output."""
        found = []
        for _ in range(count):
            line = b""
            while not line.endswith(b"\n"):
                readable, _, _ = select.select([process.stdout], [], [], PATIENCE_S)
                self.assertTrue(readable, f"no line after {found}")
                byte = os.read(process.stdout.fileno(), 1)
                self.assertTrue(byte, f"the output ended after {found}")
                line += byte
            found.append(line.decode().rstrip("\n"))
        return found

    def test_rm(self):
        for version in ("1", "2"):
            self.deploy("goes", ECHO, Version=version)
        self.cli("rm", "goes", "--qualifier=1")
        self.cli("invoke", "goes", "--qualifier=1", code=MISSING)
        self.cli("invoke", "goes", "--qualifier=2")
        self.assertEqual(self.data("rm", "goes"), {"removed": "goes"})
        self.assertIn("not found", self.cli("rm", "goes", code=MISSING).stderr)

    def test_names_by_brn_and_account(self):
        self.deploy("owned", ECHO, account="somebody")
        self.assertNotIn("owned", self.cli("functions").stdout)
        self.assertIn("owned", self.cli("functions", "--account=somebody").stdout)
        self.cli("invoke", "owned", code=MISSING)
        self.assertEqual(self.cli("invoke", "owned", "--account=somebody", "-d", "[1]").stdout, "[1]")
        self.cli("rm", "owned", "--account=somebody")

    def test_addresses_come_from_the_environment(self):
        environment = clean_environment(FAASTER_CONTROLLER=f"http://{self.node.controller}", FAASTER_REGISTRY=f"http://{self.node.registry}")
        ended = run_command("invoke", "echo", "-d", "[7]", env=environment)
        self.assertEqual((ended.returncode, ended.stdout), (DONE, "[7]"))

    def test_no_engine(self):
        with socket.socket() as closed:
            closed.bind(("127.0.0.1", 0))
            nobody = f"http://127.0.0.1:{closed.getsockname()[1]}"
            where = [f"--controller={nobody}", f"--registry={nobody}"]
            folder = self.folder("code", {"index.py": ECHO})
            for arguments in (["invoke", "x"], ["functions"], ["instances"], ["resource"], ["runtimes"], ["logs", "x"], ["rm", "x"],
                              ["deploy", folder]):
                with self.subTest(arguments):
                    ended = run_command(*arguments, *where)
                    self.assertEqual((ended.returncode, ended.stdout), (UNREACHABLE, ""))
                    self.assertIn("faaster serve", ended.stderr)
                    self.assertEqual(ended.stderr.count("\n"), 1)
            self.assertIn("error", json.loads(run_command("functions", "--json", *where).stderr))

    def test_wrong_usage(self):
        for arguments in ([], ["nonsense"], ["invoke"], ["functions", "--nonsense"], ["deploy"], ["invoke", "x", "--controller=nonsense"],
                          ["completions", "nosuchshell"]):
            with self.subTest(arguments):
                ended = run_command(*arguments)
                self.assertEqual(ended.returncode, REFUSED, ended)
                self.assertTrue(ended.stderr)
        for arguments in (["--help"], ["deploy", "--help"], ["--version"]):
            ended = run_command(*arguments)
            self.assertEqual((ended.returncode, ended.stderr), (DONE, ""))
        self.assertIn("Exit codes", run_command("--help").stdout)

    def test_doctor(self):
        places = [f"--data={self.home}/data", "--registry-listen=127.0.0.1:0"]
        taken = f"--listen={self.node.controller}"
        ended = run_command("doctor", *places, taken)
        self.assertEqual(ended.returncode, DONE, ended.stdout)
        self.assertIn(f"{self.node.controller} is taken by", ended.stdout)
        places.append("--listen=127.0.0.1:0")
        ended = run_command("doctor", *places)
        self.assertEqual(ended.returncode, DONE, ended.stdout)
        self.assertIn("The engine can start here.", ended.stdout)
        for what in ("kernel", "io_uring", "containers", "runtime"):
            self.assertIn(what, ended.stdout)
        findings = json.loads(run_command("doctor", "--json", *places).stdout)
        self.assertEqual({one["verdict"] for one in findings} - {"ok", "weak"}, set())
        names = {one["what"] for one in findings}
        self.assertLessEqual({"frozen memory", "processes", "disk budgets", "swap accounting", "nested user namespaces"}, names)
        # A budget that no disk has is weak, and what to do is said.
        greedy = json.loads(run_command("doctor", "--json", *places, "--code-disk=1048576GiB").stdout)
        [budgets] = [one for one in greedy if one["what"] == "disk budgets"]
        self.assertEqual(budgets["verdict"], "weak")
        self.assertIn("lower `code_disk`", budgets["text"])

    def test_doctors_in_sibling_pid_namespaces_do_not_meet(self):
        # Each is process 1 of its own; the cgroups that they try are the host's.
        command = ["unshare", "--pid", "--fork", "--mount-proc", "--", program(), "doctor", "--json", f"--data={self.home}/data"]
        for _ in range(3):
            running = [subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=clean_environment()) for _ in range(4)]
            for one in running:
                findings = {found["what"]: found for found in json.loads(one.communicate(timeout=PATIENCE_S)[0])}
                for what in ("cgroups", "cgroup kill and freeze", "swap accounting"):
                    self.assertEqual(findings[what]["verdict"], "ok", findings[what])

    def test_doctor_names_what_nested_user_namespaces_lack(self):
        """A user namespace has few ids of its host's."""
        ended = subprocess.run(["unshare", "--user", "--map-root-user", "--", program(), "doctor", "--json"], stdout=subprocess.PIPE, text=True,
                               env=clean_environment(), timeout=PATIENCE_S, check=False)
        [nested] = [found for found in json.loads(ended.stdout) if found["what"] == "nested user namespaces"]
        self.assertEqual(nested["verdict"], "weak")
        self.assertRegex(nested["text"], "cannot have ids.*one by one.*where these ids are mapped")

    def test_completions(self):
        for shell in ("bash", "zsh", "fish"):
            ended = run_command("completions", shell)
            self.assertEqual(ended.returncode, DONE)
            for command in ("deploy", "invoke", "doctor"):
                self.assertIn(command, ended.stdout)
        script = run_command("completions", "bash").stdout
        checked = subprocess.run(["bash", "-n"], input=script, capture_output=True, text=True, check=False)
        self.assertEqual((checked.returncode, checked.stderr), (0, ""))

    def test_a_reader_that_wants_no_more_is_no_error(self):
        where = f"--registry=http://{self.node.registry}"
        ended = subprocess.run(["bash", "-c", 'set -o pipefail; "$0" functions "$1" | head -0', program(), where], capture_output=True,
                               text=True, env=clean_environment(), check=False, timeout=PATIENCE_S)
        self.assertEqual((ended.returncode, ended.stderr), (0, ""))


if __name__ == "__main__":
    unittest.main()
