"""An engine starts only when it can, says in one go what is wrong, and leaves nothing when it does not start."""

import json
import os
import shutil
import socket
import subprocess
import tempfile
import unittest
from pathlib import Path

from support.node import ROOT, Node, clean_environment, program, run_command
from support.wait import PATIENCE_S

AS_NOBODY = ["setpriv", "--reuid=65534", "--regid=65534", "--clear-groups", "--inh-caps=-all"]


class StartTest(unittest.TestCase):
    def setUp(self):
        self.home = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.home.chmod(0o755)
        self.addCleanup(shutil.rmtree, self.home, ignore_errors=True)
        self.places = [f"--data={self.home}/data", f"--run={self.home}/run"]

    def test_an_engine_says_what_it_serves(self):
        with Node() as node:
            self.assertEqual(node.ready["event"], "serving")
            names = {runtime["name"] for runtime in node.ready["runtimes"]}
            self.assertLessEqual({"python3", "nodejs", "provided"}, names)
            self.assertEqual(node.ready["supervisor"], node.process.pid)
            self.assertEqual([node.ready["engine"]], node.children("faaster engine"))

    def test_without_json_it_is_one_sentence(self):
        with Node() as node:
            node.stop()
            node.arguments.remove("--json")
            process = subprocess.Popen(
                [program(), *node.arguments], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=clean_environment(),
            )
            line = process.stdout.readline().decode()
            process.terminate()
            self.assertEqual(process.wait(PATIENCE_S), 0)
            process.stdout.close()
            self.assertRegex(
                line, r"^faaster is serving on http://127\.0\.0\.1:\d+ \(registry http://127\.0\.0\.1:\d+\), "
                r"\d+ shards?, runtimes: .*python3.*\n$",
            )

    def test_all_problems_of_a_configuration_come_at_once(self):
        file = self.home / "faaster.toml"
        file.write_text("lisen = 'x'\ngrace = 'soon'\n")
        environment = clean_environment(FAASTER_SHARDS="0", FAASTER_NONSENSE="1")
        ended = run_command("serve", "--config", file, "--memory=lots", *self.places, env=environment)
        self.assertEqual(ended.returncode, 2)
        for part in ("5 problems", "lisen in", "grace in", "FAASTER_SHARDS", "FAASTER_NONSENSE", "--memory"):
            self.assertIn(part, ended.stderr)
        self.assertFalse((self.home / "run").exists())

    def test_config_shows_where_values_come_from(self):
        file = self.home / "faaster.toml"
        file.write_text("funclets = 2\nshards = 1\n")
        ended = run_command("config", "--json", "--config", file, "--shards=2", env=clean_environment(FAASTER_GRACE="7s"))
        self.assertEqual(ended.returncode, 0, ended.stderr)
        settings = json.loads(ended.stdout)
        self.assertEqual(settings["shards"], {"value": "2", "origin": "--shards"})
        self.assertEqual(settings["funclets"], {"value": "2", "origin": f"funclets in {file}"})
        self.assertEqual(settings["grace"], {"value": "7s", "origin": "FAASTER_GRACE (environment)"})
        self.assertEqual(settings["listen"], {"value": "127.0.0.1:8001", "origin": "default"})

    def test_a_taken_port_names_its_holder(self):
        with socket.create_server(("127.0.0.1", 0)) as holder:
            port = holder.getsockname()[1]
            ended = run_command("serve", f"--listen=127.0.0.1:{port}", "--registry-listen=127.0.0.1:0", *self.places)
        self.assertEqual(ended.returncode, 1)
        self.assertIn(f"127.0.0.1:{port}", ended.stderr)
        self.assertIn(f"(pid {os.getpid()})", ended.stderr)
        self.assertFalse((self.home / "run").exists())

    def test_a_second_engine_on_the_same_data_is_refused(self):
        with Node() as node:
            ended = run_command(*node.arguments)
            self.assertEqual(ended.returncode, 1)
            self.assertIn(f"pid {node.process.pid}", ended.stderr)
            self.assertEqual(node.cli("functions").returncode, 0)

    def test_two_engines_live_side_by_side(self):
        with Node() as first, Node() as second:
            self.assertNotEqual(first.instance, second.instance)
            first.stop()
            first.assert_nothing_left()
            self.assertEqual(second.cli("functions").returncode, 0)

    def test_without_root_it_says_so(self):
        for command in ("serve", "demo"):
            ended = subprocess.run(
                [*AS_NOBODY, self.readable_program(), command], capture_output=True, text=True, timeout=PATIENCE_S,
                env=clean_environment(), cwd="/", check=False,
            )
            self.assertEqual(ended.returncode, 2, ended.stderr)
            self.assertIn("root", ended.stderr)
            self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)

    def test_the_scripts_say_so_before_they_do_anything(self):
        # A copy, because the repository's folders may be closed to others; in a folder where nobody may do anything.
        tree, calls = self.home / "tree", self.home / "tree" / "calls"
        for name in ("quickstart", "tests/run", "tests/support/setup.sh"):
            (tree / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, tree / name)
        # What would install or build tells that it was called, and fails.
        tools = tree / "tools"
        tools.mkdir()
        for name in ("cargo", "rustup", "apt-get"):
            (tools / name).write_text(f"#!/bin/sh\necho {name} \"$@\" >>{calls}\nexit 1\n")
            (tools / name).chmod(0o755)
        for folder in (tree, *(path for path in tree.rglob("*") if path.is_dir())):
            folder.chmod(0o777)
        before = sorted(tree.rglob("*"))
        environment = clean_environment(PATH=f"{tools}:/usr/sbin:/usr/bin:/sbin:/bin", HOME="/nonexistent")
        for command in (["quickstart"], ["quickstart", "--once"], ["tests/run"], ["tests/run", "unit"]):
            with self.subTest(command):
                ended = subprocess.run(
                    [*AS_NOBODY, str(tree / command[0]), *command[1:]], capture_output=True, text=True, timeout=PATIENCE_S,
                    env=environment, cwd="/", check=False,
                )
                self.assertEqual((ended.returncode, ended.stdout), (2, ""), ended.stderr)
                self.assertIn("root", ended.stderr)
                self.assertEqual(ended.stderr.count("\n"), 1, ended.stderr)
                self.assertEqual(sorted(tree.rglob("*")), before, "nothing made, nothing called")

    def test_without_io_uring_it_says_so(self):
        # As a container engine's default profile does it: io_uring_setup (425 everywhere) is not permitted.
        refuse = (
            "import ctypes, os, struct, sys\n"
            "steps = [(0x20, 0, 0, 0), (0x15, 0, 1, 425), (0x06, 0, 0, 0x50001), (0x06, 0, 0, 0x7fff0000)]\n"
            "code = ctypes.create_string_buffer(b''.join(struct.pack('HBBI', *step) for step in steps))\n"
            "program = ctypes.create_string_buffer(struct.pack('HxxxxxxQ', len(steps), ctypes.addressof(code)))\n"
            "libc = ctypes.CDLL(None, use_errno=True)\n"
            "assert libc.prctl(22, 2, program, 0, 0) == 0, os.strerror(ctypes.get_errno())\n"
            "os.execv(sys.argv[1], sys.argv[1:])\n"
        )
        ended = subprocess.run(
            ["/usr/bin/python3", "-c", refuse, program(), "serve", *self.places],
            capture_output=True, text=True, timeout=PATIENCE_S, env=clean_environment(),
        )
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("io_uring", ended.stderr)
        self.assertEqual(len(ended.stderr.strip().splitlines()), 1, ended.stderr)
        self.assertFalse((self.home / "run").exists())

    def test_without_a_capability_it_says_which(self):
        ended = subprocess.run(
            ["setpriv", "--bounding-set=-sys_admin", program(), "serve", *self.places], capture_output=True, text=True,
            timeout=PATIENCE_S, env=clean_environment(), check=False,
        )
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("CAP_SYS_ADMIN", ended.stderr)
        self.assertFalse((self.home / "run").exists())

    def test_a_container_must_not_begin_with_a_program_that_needs_libraries(self):
        ended = run_command("serve", *self.places, "--init=/usr/bin/env")
        self.assertEqual(ended.returncode, 2, ended.stderr)
        self.assertIn("/usr/bin/env cannot be process 1 of containers: it loads shared libraries", ended.stderr)
        examined = run_command("doctor", *self.places, "--init=/usr/bin/env")
        self.assertEqual(examined.returncode, 2, examined.stdout)
        self.assertIn("/usr/bin/env cannot be process 1", examined.stdout)

    def test_ephemeral_data_is_removed_and_foreign_data_is_not(self):
        with Node("--ephemeral") as node:
            self.assertTrue(node.data.exists())
            node.stop()
            self.assertFalse(node.data.exists())
            node.data.mkdir()
            (node.data / "precious").write_text("x")
            ended = run_command(*node.arguments)
            self.assertEqual(ended.returncode, 1)
            self.assertTrue((node.data / "precious").exists())

    def readable_program(self):
        """A copy that nobody may run: the repository's folders may be closed to others."""
        copy = self.home / "faaster"
        if not copy.exists():
            shutil.copy(program(), copy)
            copy.chmod(0o755)
        return copy


if __name__ == "__main__":
    unittest.main()
