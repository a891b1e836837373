"""What holds a function back: its limits stand in the kernel, and the tree of cgroups is as both versions want it.

On hosts with v1 controllers and on those with v2 alone; what v1 does not have is skipped there.
"""

import os
import shutil
import subprocess
import unittest
from pathlib import Path

from support import machine
from support.deploy import Call, EngineCase, Gate, source
from support.node import Node
from support.wait import until

MEBIBYTE = 1 << 20
FEW = "--pool=python3=1,nodejs=0,ruby=0,provided=0"
V2_ONLY = "memory is a v1 controller on this host, and v1 has no rule about where processes may be"


class LimitsTest(EngineCase):
    POOL = {"python3": 1, "nodejs": 0, "ruby": 0, "provided": 0}

    def held(self, name, **fields):
        """A pid of a container that runs a function, until the test ends."""
        self.deploy(name, source("gate"), Timeout=60, **fields)
        call = Call(self.node, name, {"name": name})
        gate = Gate(self.node, name)
        self.addCleanup(call.answer)
        self.addCleanup(gate.open)
        return gate.pids[0]

    def test_limits_stand_in_the_cgroup(self):
        limits = machine.limits_of(self.held("limited", MemorySize=256))
        self.assertEqual(limits["memory"], 256 * MEBIBYTE)
        self.assertEqual(limits["pids"], 1024)
        self.assertIn(limits["swap"], (0, None), "swap is no way around the limit")

    def test_more_memory_is_more_cpu(self):
        small = machine.limits_of(self.held("small", MemorySize=256))
        large = machine.limits_of(self.held("large", MemorySize=1024))
        self.assertEqual(large["cpu"], 4 * small["cpu"])

    def test_what_a_function_uses_is_counted_in_its_own_group(self):
        pid = self.held("counted", MemorySize=256)
        used = machine.uses_of(pid)
        self.assertTrue(MEBIBYTE < used["memory"] < 256 * MEBIBYTE, used)
        self.assertTrue(0 < used["processes"] <= 4, used)

    def test_processes_are_in_the_leaves_alone(self):
        self.held("leaf")
        tops = machine.cgroups_of(self.node.instance)
        self.assertTrue(tops)
        for top in map(Path, tops):
            self.assertEqual((top / "cgroup.procs").read_text(), "", top)
            groups = [group for group in top.iterdir() if group.is_dir()]
            self.assertTrue(groups, top)
            for group in groups:
                self.assertFalse([inner for inner in group.iterdir() if inner.is_dir()], group)
        # The processes of the engine itself are where they were started.
        ours = Path("/proc/self/cgroup").read_text()
        for pid in (self.node.process.pid, self.node.engine_pid(), *self.node.funclet_pids()):
            self.assertEqual((machine.PROC / str(pid) / "cgroup").read_text(), ours)


@unittest.skipUnless(machine.is_cgroup_v2(), V2_ONLY)
class DelegationTest(unittest.TestCase):
    """Engines that are started somewhere in the tree: by a service manager, or in a container."""

    def setUp(self):
        self.parent = machine.CGROUPS / f"test-of-faaster-{os.getpid()}"
        self.own = self.parent / "service"
        # As a service manager leaves the root.
        (machine.CGROUPS / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        self.own.mkdir(parents=True)
        self.addCleanup(self.remove)

    def remove(self):
        # Those below first; a group whose last process has just ended is busy for a moment.
        def gone():
            for folder, _, _ in os.walk(self.parent, topdown=False):
                try:
                    os.rmdir(folder)
                except OSError:
                    return False
            return True

        until(gone, f"{self.parent} empty")

    def serves(self, node):
        """The engine works, with its limits."""
        with node:
            node.deploy("hello", source("gate"), Timeout=60, MemorySize=256)
            call = Call(node, "hello", {"name": "hello"})
            gate = Gate(node, "hello")
            limits = machine.limits_of(gate.pids[0])
            group = machine.cgroup_of(gate.pids[0])
            gate.open()
            self.assertEqual(call.answer().status, 200)
        self.assertEqual((limits["memory"], limits["pids"], limits["swap"]), (256 * MEBIBYTE, 1024, 0))
        return group

    def test_in_a_group_of_its_own_it_works_beside_itself(self):
        node = Node(FEW, before=["sh", "-c", f'echo $$ >{self.own}/cgroup.procs && exec "$@"', "sh"])
        group = self.serves(node)
        self.assertEqual(group.parent.parent, self.parent)
        self.assertEqual((self.own / "cgroup.procs").read_text(), "")

    def test_in_a_delegated_group_it_stays_inside(self):
        # systemd's mark of Delegate=yes: what is around the group is not ours to change.
        os.setxattr(self.own, "trusted.delegate", b"1")
        (self.parent / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        group = self.serves(Node(FEW, before=["sh", "-c", f'echo $$ >{self.own}/cgroup.procs && exec "$@"', "sh"]))
        self.assertEqual(group.parent.parent, self.own)

    def test_as_a_container_s_root_it_makes_room_in_it(self):
        # As in a container with a cgroup namespace: its processes are in what it sees as the root of the tree, and
        # that is not the real one, so it may hold either processes or groups with limits.
        (self.parent / "cgroup.subtree_control").write_text("+memory +pids +cpu")
        inside = "umount /sys/fs/cgroup && mount -t cgroup2 -o nosuid,nodev,noexec cgroup2 /sys/fs/cgroup && exec \"$@\""
        unshared = f"echo $$ >{self.own}/cgroup.procs && exec unshare --cgroup --mount sh -c '{inside}' sh \"$@\""
        group = self.serves(Node(FEW, before=["sh", "-c", unshared, "sh"]))
        self.assertEqual(group.parent.parent, self.own)

    def test_without_the_controllers_it_says_so(self):
        # Nobody gives this group any, and its parent may not either: it holds a process.
        with subprocess.Popen(["sleep", "1000"]) as sleeper:
            try:
                (self.parent / "cgroup.procs").write_text(str(sleeper.pid))
                node = Node(FEW, before=["sh", "-c", f'echo $$ >{self.own}/cgroup.procs && exec "$@"', "sh"])
                self.addCleanup(shutil.rmtree, node.home)
                with self.assertRaisesRegex(AssertionError, "cgroup .*service is given no memory controller"):
                    node.start()
            finally:
                sleeper.kill()


if __name__ == "__main__":
    unittest.main()
