"""What a function sees of the machine and may do there: only its own."""

import os
import socket
import unittest

from support import machine
from support.deploy import Call, EngineCase, Gate, source

DENIED = ("EPERM", "ENOSYS", "EACCES")


def status_of(pid):
    """The fields of /proc/PID/status as the host sees them."""
    lines = (machine.PROC / str(pid) / "status").read_text().splitlines()
    return {name: value.strip() for name, value in (line.split(":", 1) for line in lines)}


def addresses_of_this_machine():
    """Addresses by which somebody could try to reach the host."""
    found = {"127.0.0.1", "169.254.169.254", "10.0.0.1", "192.0.2.1"}
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
            found.add(probe.getsockname()[0])
        except OSError:
            pass
    return sorted(found)


class IsolationTest(EngineCase):
    POOL = {"python3": 2, "nodejs": 1, "ruby": 0, "provided": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("probe", source("probe"), Timeout=60, MemorySize=256)
        cls.deploy("other", source("probe"), Timeout=60, MemorySize=256)
        ports = [int(address.rsplit(":", 1)[1]) for address in (cls.node.controller, cls.node.registry)]
        cls.event = {
            "addresses": [(host, port) for host in addresses_of_this_machine() for port in (*ports, 22)],
            "pids": [os.getpid(), cls.node.process.pid, *cls.node.children("faaster")],
        }
        answer = cls.node.invoke("probe", cls.event)
        assert answer.headers["X-Easyfaas-Function-Error"] is None, answer
        cls.seen = answer.json()
        cls.other = cls.node.invoke("other", cls.event).json()

    def held(self, name, function="probe"):
        """Pids on the host of a container that runs a function, until the test ends."""
        call = Call(self.node, function, {"keep": name})
        gate = Gate(self.node, name)
        self.addCleanup(call.answer)
        self.addCleanup(gate.open)
        return gate.pids

    def test_nobody_is_root(self):
        self.assertNotEqual(self.seen["identity"]["uid"], 0)
        self.assertNotEqual(self.seen["identity"]["gid"], 0)
        self.assertEqual(set(self.seen["identity"]["changes"].values()) - set(DENIED), set() , self.seen["identity"])
        for name in ("Uid", "Gid"):
            self.assertNotIn("0", self.seen["status"][name].split("\t"))
        for pid in self.held("root-check"):
            status = status_of(pid)
            self.assertNotIn("0", status["Uid"].split(), f"{status['Name']} is root on the host")
            self.assertNotIn("0", status["Gid"].split())
            self.assertEqual(status["Groups"].split(), [g for g in status["Groups"].split() if g != "0"])

    def test_containers_have_different_users(self):
        first, second = self.held("first"), self.held("second", "other")
        self.assertFalse({status_of(pid)["Uid"].split()[0] for pid in first} & {status_of(pid)["Uid"].split()[0] for pid in second})

    def test_no_capability_is_left(self):
        for name in ("CapInh", "CapPrm", "CapEff", "CapAmb"):
            self.assertEqual(int(self.seen["status"][name], 16), 0, name)
        self.assertEqual(self.seen["status"]["NoNewPrivs"], "1")
        self.assertEqual(self.seen["status"]["Seccomp"], "2")
        for pid in self.held("caps"):
            status = status_of(pid)
            self.assertEqual((int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"]), (0, 0, "1"), status["Name"])
            if status["Name"] != "faaster-init":
                self.assertEqual(status["Seccomp"], "2", status["Name"])

    def test_process_1_which_has_no_filter_is_out_of_reach(self):
        for what, result in self.seen["init"].items():
            self.assertIn(result, DENIED, what)

    def test_the_engine_itself_has_none(self):
        status = status_of(self.node.engine_pid())
        self.assertNotIn("0", status["Uid"].split())
        self.assertEqual((int(status["CapEff"], 16), int(status["CapPrm"], 16), status["NoNewPrivs"], status["Seccomp"]), (0, 0, "1", "2"))

    def test_system_calls_that_lead_out_are_denied(self):
        for name, result in self.seen["syscalls"].items():
            self.assertIn(result, DENIED, name)
        for name in ("clone3", "io_uring_setup"):
            self.assertEqual(self.seen["syscalls"][name], "ENOSYS", "libraries fall back only then")
        self.assertIn(self.seen["identity"]["changes"]["device"], DENIED)
        for place, result in self.seen["remount"].items():
            self.assertIn(result, DENIED, place)

    def test_only_tmp_can_be_written(self):
        for place, result in self.seen["writes"].items():
            self.assertIn(result, ("EROFS", "EACCES", "EPERM", "ENOENT"), place)
        for place in ("/x", "/usr/x", "/var/task/x", "/var/task/index.py", "/var/runtime/x"):
            self.assertIn(self.seen["writes"][place], ("EROFS", "EACCES"), place)
        options = {line.split()[4]: line.split()[5].split(",") for line in self.seen["mounts"].splitlines()}
        for place in ("/", "/usr", "/var/task"):
            self.assertIn("ro", options[place], place)
        for place in ("/var/task", "/tmp"):
            self.assertLessEqual({"nosuid", "nodev"}, set(options[place]), place)
        self.assertTrue(64 << 20 <= self.seen["tmp_bytes"] <= 10_240 << 20)

    def test_cgroup_and_environment_say_nothing_of_the_host(self):
        self.assertNotIn(self.node.instance, self.seen["cgroup"])
        for name in self.seen["environment"]:
            self.assertFalse(name.startswith("FAASTER_"), name)

    def test_only_its_own_processes_are_there(self):
        self.assertIn("1", self.seen["processes"])
        self.assertLessEqual(len(self.seen["processes"]), 3, self.seen["processes"])
        # A number of the host that one of its own processes has as well says nothing.
        foreign = {pid: result for pid, result in self.seen["signals"].items() if pid not in self.seen["processes"]}
        self.assertEqual(set(foreign.values()) - {"ESRCH"}, set(), "signals to processes of the host")

    def test_the_network_is_its_own(self):
        network = self.seen["network"]
        self.assertEqual(sorted(network["interfaces"]), ["eth0", "lo"])
        self.assertEqual(network["loopback"], "done")
        for address, result in network["reached"].items():
            self.assertIn(result, ("ECONNREFUSED", "ENETUNREACH", "EHOSTUNREACH", "EPERM", "ETIMEDOUT"), address)
        for family in ("packet", "raw"):
            self.assertIn(network["families"][family], DENIED, family)

    def test_every_namespace_is_its_own(self):
        host = {name: os.readlink(f"/proc/self/ns/{name}") for name in self.seen["namespaces"]}
        for name, identity in self.seen["namespaces"].items():
            self.assertNotEqual(identity, host[name], name)
            self.assertNotEqual(identity, self.other["namespaces"][name], name)

    def test_the_host_name_is_its_own(self):
        self.assertNotEqual(self.seen["hostname"], socket.gethostname())
        self.assertTrue(self.seen["hostname"])

    def test_few_descriptors(self):
        self.assertLessEqual(set(self.seen["descriptors"]), {"0", "1", "2", "3"}, self.seen["descriptors"])
        self.assertEqual(self.seen["descriptors"]["0"], "/dev/null")
        for number in ("1", "2"):
            self.assertTrue(self.seen["descriptors"][number].startswith("pipe:"))
        self.assertTrue(self.seen["descriptors"]["3"].startswith("socket:"))

    def test_few_devices(self):
        self.assertLessEqual({"null", "zero", "full", "random", "urandom"}, set(self.seen["dev"]))
        for name in self.seen["dev"]:
            self.assertIn(name, ("null", "zero", "full", "random", "urandom", "tty", "fd", "stdin", "stdout", "stderr", "shm", "pts", "ptmx",
                                 "mqueue", "core"))

    def test_the_root_holds_little(self):
        self.assertLessEqual({"usr", "tmp", "proc", "dev", "var"}, set(self.seen["root"]))
        self.assertEqual(self.seen["filled"], [], "folders of the host that are not its business")
        self.assertEqual(self.seen["tmp"], [])

    def test_tmp_is_not_shared(self):
        self.deploy("writer", "import os\ndef handler(event, context):\n    open('/tmp/secret', 'w').write('x')\n    return os.listdir('/tmp')\n")
        self.deploy("reader", "import os\ndef handler(event, context):\n    return os.listdir('/tmp')\n")
        self.assertEqual(self.call("writer"), ["secret"])
        self.assertEqual(self.call("reader"), [])

    def test_limits_stand_in_the_cgroup(self):
        pids = self.held("limits")
        groups = {line.split(":")[1]: line.split(":")[2] for line in (machine.PROC / str(pids[0]) / "cgroup").read_text().splitlines()}
        self.assertTrue(any(self.node.instance in path for path in groups.values()), groups)
        memory = machine.CGROUPS / "memory" / groups["memory"].lstrip("/") / "memory.limit_in_bytes" if "memory" in groups else \
            machine.CGROUPS / groups[""].lstrip("/") / "memory.max"
        self.assertEqual(int(memory.read_text()), 256 << 20)

    def test_a_node_process_is_no_freer(self):
        self.deploy("node-probe", source("probe", "nodejs"), runtime="nodejs")
        seen = self.call("node-probe")
        self.assertNotEqual(seen["uid"], 0)
        self.assertEqual((int(seen["status"]["CapEff"], 16), seen["status"]["NoNewPrivs"], seen["status"]["Seccomp"]), (0, "1", "2"))
        self.assertIn(seen["written"], ("EROFS", "EACCES"))
        self.assertLessEqual(len(seen["processes"]), 3)
        self.assertLessEqual(set(seen["interfaces"]), {"lo", "eth0"})
        sockets = [number for number, target in seen["descriptors"].items() if target.startswith("socket:")]
        self.assertEqual(sockets, ["3"], seen["descriptors"])
        for number, target in seen["descriptors"].items():
            self.assertTrue(target.startswith(("/dev/null", "pipe:", "socket:", "anon_inode:")), (number, target))


if __name__ == "__main__":
    unittest.main()
