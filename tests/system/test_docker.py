"""The engine inside a Docker container that is not privileged; and beside Docker, whose firewall it has to name."""

import json
import socket
import subprocess
import tempfile
import threading
import unittest
from pathlib import Path

from support import netns
from support.deploy import instances, source
from support.docker import FLAGS, Contained, Docker, NoDocker
from support.netns import HOST_V4, PORT, PUBLIC_V4
from support.node import ROOT, Node
from support.wait import until

HELLO = "def handler(event, context):\n    return 'hello'\n"
BRIDGE = "172.17.0.1"


def without(flag):
    """The manual's flags but one."""
    left = [one for one in FLAGS if flag not in one]
    assert len(left) == len(FLAGS) - 1, flag
    return left


class Guest(Contained):
    """With a node's ways to deploy and call."""

    deploy, invoke = Node.deploy, Node.invoke


class DockerTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.lab = netns.Lab()
        cls.addClassCleanup(cls.lab.leave)
        try:
            cls.docker = Docker()
        except NoDocker as lack:
            raise unittest.SkipTest(f"no Docker engine here: {lack}") from lack
        cls.addClassCleanup(cls.docker.close)
        cls.docker.make_image()

    def guest(self, *arguments, **options):
        return Guest(self.docker, "--pool=python3=1,provided=1", *arguments, **options)

    def verdicts(self, flags):
        """What doctor finds in a container with these flags: (verdict, text) by name."""
        ended = self.docker.faaster("doctor", "--json", flags=flags, check=False)
        self.assertTrue(ended.stdout, ended.stderr)
        return {row["what"]: (row["verdict"], row["text"]) for row in json.loads(ended.stdout)}

    # --- inside -------------------------------------------------------------------------------------------

    def test_functions_run_and_reach_the_world(self):
        with self.guest() as node:
            node.deploy("hello", HELLO)
            self.assertEqual(node.invoke("hello").text, "hello")
            with tempfile.TemporaryDirectory() as folder:
                built = subprocess.run([ROOT / "runtimes/provided/conformance/build", "hello", folder], capture_output=True, text=True)
                self.assertEqual(built.returncode, 0, built)
                files = {"bootstrap": Path(folder, "bootstrap").read_bytes()}
            node.deploy("static", files, runtime="provided", handler="hello")
            self.assertIn("Hello", node.invoke("static").text)
            # Through the engine's rules, and then Docker's.
            node.deploy("net", source("net"), Timeout=60)
            node.deploy("full", source("net"), Timeout=60, NetworkMode="full")
            world = {"to": [("tcp", PUBLIC_V4, PORT)]}
            self.assertEqual(node.invoke("net", world).json()["reached"], {f"tcp {PUBLIC_V4} {PORT}": HOST_V4})
            # Docker's host is a private network of the engine's: for `full` alone.
            with socket.create_server((BRIDGE, 0)) as server:
                threading.Thread(target=greet, args=(server,), daemon=True).start()
                port = server.getsockname()[1]
                host, key = {"to": [("tcp", BRIDGE, port)]}, f"tcp {BRIDGE} {port}"
                self.assertEqual(node.invoke("full", host).json()["reached"][key], "greeting")
                self.assertNotEqual(node.invoke("net", host).json()["reached"][key], "greeting")

    def test_its_functions_are_limited_frozen_and_gone_when_it_stops(self):
        with self.guest("--freeze-after=100ms") as node:
            node.deploy("fat", "def handler(event, context):\n    return len(bytearray(event['mb'] << 20))\n", MemorySize=128)
            self.assertEqual(node.invoke("fat", {"mb": 1}).json(), 1 << 20)
            until(lambda: [one["State"] for one in instances(node, "fat")] == ["frozen"], "the instance frozen")
            self.assertIn("out of memory", node.invoke("fat", {"mb": 300}).text)
            self.docker.run("stop", "--time=20", node.name)
            self.assertEqual(node.state("ExitCode"), "0", node.said())
            left = [group for group in self.docker.left_cgroups() if node_id(self.docker, node) in str(group)]
            self.assertEqual(left, [], "Docker could remove its cgroups")

    def test_a_killed_container_starts_again_with_its_functions(self):
        with self.guest() as node:
            node.deploy("hello", HELLO)
            self.assertEqual(node.invoke("hello").text, "hello")
            self.docker.run("kill", node.name)
            self.docker.run("start", node.name)
            node.wait(starts=2)
            self.assertEqual(node.invoke("hello").text, "hello")
            # The supervisor is process 1 there and reaps what others leave.
            self.docker.run("exec", node.name, "/usr/bin/faaster", "instances")

    # --- which flag is for what ---------------------------------------------------------------------------

    def test_with_the_manuals_flags_nothing_is_missing(self):
        found = self.verdicts(FLAGS)
        self.assertEqual({what for what, (verdict, _) in found.items() if verdict == "MISSING"}, set(), found)
        for what in ("cgroups", "cgroup kill and freeze", "network links", "network rules", "network forwarding", "mounts"):
            self.assertEqual(found[what][0], "ok", found[what])

    def test_a_limit_of_the_container_is_the_machines_memory(self):
        self.assertIn("2048MiB of memory", self.verdicts([*FLAGS, "--memory=2g"])["machine"][1])

    def test_each_flag_is_needed_and_doctor_names_it(self):
        for flag, what, verdict, words in (
            ("SYS_ADMIN", "privilege", "MISSING", "--cap-add"),
            ("NET_ADMIN", "network rules", "weak", "CAP_NET_ADMIN"),
            ("seccomp", "mounts", "MISSING", "--security-opt seccomp="),
            ("sysctl", "network forwarding", "weak", "--sysctl net.ipv4.ip_forward=1"),
        ):
            with self.subTest(flag):
                found = self.verdicts(without(flag))[what]
                self.assertEqual(found[0], verdict, found)
                self.assertIn(words, found[1])

    def test_a_profile_without_io_uring_is_named(self):
        # As Docker's own since version 25.
        calls = ["io_uring_setup", "io_uring_enter", "io_uring_register"]
        profile = Path(self.docker.folder, "no-ring.json")
        rule = {"names": calls, "action": "SCMP_ACT_ERRNO"}
        profile.write_text(json.dumps({"defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule]}))
        flags = [*without("seccomp"), f"--security-opt=seccomp={profile}"]
        verdict, text = self.verdicts(flags)["io_uring"]
        self.assertEqual(verdict, "MISSING")
        self.assertIn("seccomp", text)
        ended = self.docker.faaster("serve", flags=flags, check=False)
        self.assertEqual(ended.returncode, 2, ended)
        self.assertIn("seccomp", ended.stderr)

    def test_dockers_apparmor_profile_is_named_with_its_flag(self):
        options = self.docker.run("info", "--format", "{{.SecurityOptions}}").stdout
        if "name=apparmor" not in options:
            self.skipTest("Docker finds no AppArmor in this kernel (the virtual machine's has it)")
        verdict, text = self.verdicts(without("apparmor"))["apparmor"]
        self.assertEqual(verdict, "weak", text)
        self.assertIn("docker-default", text)
        self.assertIn("--security-opt apparmor=unconfined", text)

    # --- beside -------------------------------------------------------------------------------------------

    def test_beside_docker_its_firewall_is_named_and_the_remedy_works(self):
        with Node("--pool=python3=1,nodejs=0,ruby=0,provided=0") as node:
            node.deploy("net", source("net"), Timeout=60)
            world, key = {"to": [("tcp", PUBLIC_V4, PORT)]}, f"tcp {PUBLIC_V4} {PORT}"
            until(lambda: "FORWARD" in node.errors(), "the chain named")
            self.assertNotEqual(node.invoke("net", world).json()["reached"][key], HOST_V4)
            commands = [line for line in node.errors().splitlines() if "FORWARD" in line][0]
            begin = commands.index("iptables -I DOCKER-USER -i")
            remedy = commands[begin:].split("; ")[:2]
            for command in remedy:
                self.assertTrue(command.startswith("iptables -I DOCKER-USER"), command)
                netns.run(*command.split())
            try:
                self.assertEqual(node.invoke("net", world).json()["reached"][key], HOST_V4)
            finally:
                for command in remedy:
                    netns.run(*command.replace(" -I ", " -D ").split())


def greet(server):
    """Greets whoever comes, until the server is closed."""
    while True:
        try:
            peer, _ = server.accept()
        except OSError:
            return
        with peer:
            peer.sendall(b"greeting")


def node_id(docker, node):
    return docker.run("inspect", "--format", "{{.Id}}", node.name).stdout.strip()


if __name__ == "__main__":
    unittest.main()
