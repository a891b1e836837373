"""Containers whose runtime is a fork server's child: as good as one that was booted, and what siblings do not share."""

import os
import shutil
import signal
import tempfile
import unittest
from pathlib import Path

from support import machine
from support.deploy import EngineCase, Told, cold_containers
from support.node import ROOT
from support.wait import timeout, until

# Everything of a process that a function could come to depend on, or that holds it in.
PORTRAIT = (
    "import os, resource, signal, sys\n"
    "LIMITS = [name for name in dir(resource) if name.startswith('RLIMIT_')]\n"
    "STATUS = ('Uid', 'Gid', 'Groups', 'CapInh', 'CapPrm', 'CapEff', 'CapBnd', 'CapAmb', 'NoNewPrivs', 'Seccomp',\n"
    "          'Seccomp_filters', 'Threads', 'SigBlk', 'SigIgn', 'SigCgt', 'Umask', 'PPid')\n"
    "def handler(event, context):\n"
    "    status = dict(line.rstrip('\\n').split(':\\t', 1) for line in open('/proc/self/status'))\n"
    "    folders = [f'/proc/self/fd/{name}' for name in os.listdir('/proc/self/fd')]\n"
    "    links = {name: os.readlink(name).split(':')[0] for name in folders if os.path.lexists(name)}\n"
    "    return {\n"
    "        'init': open('/proc/1/cmdline').read().split('\\0')[1],\n"
    "        'status': {name: status.get(name) for name in STATUS},\n"
    "        'limits': {name: resource.getrlimit(getattr(resource, name)) for name in LIMITS},\n"
    "        'environment': dict(os.environ), 'files': links, 'folder': os.getcwd(), 'arguments': sys.argv,\n"
    "        'path': sys.path, 'scheduling': os.sched_getscheduler(0),\n"
    "        'nice': os.nice(0), 'score': open('/proc/self/oom_score_adj').read(),\n"
    "        'namespaces': sorted(os.listdir('/proc/self/ns')), 'root': sorted(os.listdir('/')),\n"
    "        'writes': os.access('/proc/self/oom_score_adj', os.W_OK),\n"
    "        'owner': os.stat('/proc/self/environ').st_uid,\n"
    "        'parent': open(f'/proc/{os.getppid()}/comm').read(),\n"
    "    }\n"
)
# What comes of every source of chance.
CHANCE = (
    "import random, secrets, ssl, tempfile, uuid\n"
    "def handler(event, context):\n"
    "    return {\n"
    "        'init': open('/proc/1/cmdline').read().split('\\0')[1],\n"
    "        'random': random.random(), 'shuffled': random.sample(range(10**9), 4), 'own': random.Random().random(),\n"
    "        'system': random.SystemRandom().random(), 'secrets': secrets.token_hex(8), 'ssl': ssl.RAND_bytes(8).hex(),\n"
    "        'uuid1': str(uuid.uuid1()), 'uuid4': str(uuid.uuid4()), 'file': next(tempfile._get_candidate_names()),\n"
    "        'seed': hash('siblings'),\n"
    "    }\n"
)
HELLO = "def handler(event, context):\n    return open('/proc/1/cmdline').read().split('\\0')[1]\n"
# What siblings share by design (docs/isolation.md), and what tells that they are siblings.
SHARED = ("init", "seed")


def fork_servers(node):
    """Pids of the fork servers of a node: children of its funclets that are no container's init."""
    def is_one(pid):
        return b"fork-server" in Path(f"/proc/{pid}/cmdline").read_bytes()

    found = []
    for funclet in node.funclet_pids():
        for pid in machine.descendants(funclet):
            try:
                if machine.stat_of(pid)[2] == funclet and is_one(pid):
                    found.append(pid)
            except (OSError, TypeError):
                continue
    return found


def kill(pid):
    """SIGKILL through a pidfd."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


class RuntimeFolder:
    """A folder of runtimes with copies of the Python one under other names."""

    def __init__(self, case):
        self.path = Path(tempfile.mkdtemp(prefix="faaster-runtimes-"))
        self.path.chmod(0o755)
        case.addClassCleanup(shutil.rmtree, self.path)

    def add(self, name, change):
        folder = self.path / name
        shutil.copytree(ROOT / "runtimes" / "python3", folder, ignore=shutil.ignore_patterns("__pycache__"))
        toml = folder / "runtime.toml"
        lines = toml.read_text().splitlines()
        lines = [f'name = "{name}"' if line.startswith("name =") else line for line in lines]
        lines = [f'names = ["{name}"]' if line.startswith("names =") else line for line in lines]
        toml.write_text("\n".join(change(lines)) + "\n")


def with_broken_server(lines):
    return [line for line in lines if not line.startswith("fork_server")] + ['fork_server = ["/usr/bin/python3", "-c", "raise SystemExit(\'out of order\')"]']


def with_numpy(lines):
    lines = [line.replace('"abc", ', '"abc", "numpy", "numpy.random", ') for line in lines]
    return [line.replace('LD_LIBRARY_PATH = "/opt/lib"', 'LD_LIBRARY_PATH = "/opt/lib:/var/runtime/lib"') for line in lines]


def with_three_forks(lines):
    return lines + ["forks = 3"]


class ForksTest(EngineCase):
    POOL = {"python3": 3, "nodejs": 0, "ruby": 0, "provided": 0, "python3-exec": 1, "broken": 1, "renewed": 1}

    @classmethod
    def arguments(cls):
        folder = RuntimeFolder(cls)
        folder.add("broken", with_broken_server)
        folder.add("renewed", with_three_forks)
        return (f"--runtimes={folder.path}",)

    def test_a_forked_process_is_as_one_that_was_booted(self):
        self.deploy("forked", PORTRAIT, Environment={"Variables": {"OWN": "1"}})
        self.deploy("booted", PORTRAIT, runtime="python3-exec", Environment={"Variables": {"OWN": "1"}})
        forked, booted = self.call("forked"), self.call("booted")
        self.assertEqual((forked.pop("init"), booted.pop("init")), ("forked", "pooled"))
        for name in ("AWS_LAMBDA_FUNCTION_NAME",):
            self.assertEqual((forked["environment"].pop(name), booted["environment"].pop(name)), ("forked", "booted"))
        self.maxDiff = None
        self.assertEqual(forked, booted)
        self.assertEqual(forked["status"]["CapEff"].strip("0"), "")
        self.assertEqual(forked["status"]["Seccomp"], "2")

    def test_siblings_share_no_chance(self):
        told = []
        for number in range(6):
            self.deploy(f"chance-{number}", CHANCE)
            told.append(self.call(f"chance-{number}"))
        self.assertEqual({one["init"] for one in told}, {"forked"})
        for source in told[0].keys() - set(SHARED):
            with self.subTest(source):
                self.assertEqual(len({str(one[source]) for one in told}), len(told), told)

    def test_a_fork_server_is_root_of_nothing_outside(self):
        # One that has just been renewed is gone for a moment.
        until(lambda: fork_servers(self.node), "a fork server")
        for server in fork_servers(self.node):
            self.assert_confined(server)

    def assert_confined(self, server):
        status = dict(line.split(":\t", 1) for line in Path(f"/proc/{server}/status").read_text().splitlines())
        user = status["Uid"].split()[0]
        self.assertGreater(int(user), 0)
        self.assertEqual(status["Threads"], "1")
        for namespace in ("user", "mnt", "net", "ipc", "uts", "cgroup"):
            theirs, ours = (os.readlink(f"/proc/{pid}/ns/{namespace}") for pid in (server, os.getpid()))
            self.assertNotEqual(theirs, ours, namespace)
        # One id for itself, and above it those of containers.
        first = Path(f"/proc/{server}/uid_map").read_text().split()[:3]
        self.assertEqual(first, ["0", user, "1"])
        mounts = [line.split()[4] for line in Path(f"/proc/{server}/mountinfo").read_text().splitlines()]
        self.assertNotIn("/proc", mounts)
        self.assertIn("/var/runtime", mounts)

    def test_a_killed_fork_server_is_replaced(self):
        until(lambda: fork_servers(self.node), "a fork server")
        before = fork_servers(self.node)
        for pid in before:
            kill(pid)
        for number in range(6):
            self.deploy(f"after-{number}", HELLO)
            self.assertEqual(self.good(self.node.invoke(f"after-{number}")).text.strip('"'), "forked")
        until(lambda: set(fork_servers(self.node)) - set(before), "another fork server")
        until(lambda: len(cold_containers(self.node)) == self.prepared(), "a full pool")

    def test_fork_servers_are_renewed(self):
        servers, seeds = set(), set()
        for number in range(8):
            self.deploy(f"renewed-{number}", CHANCE, runtime="renewed")
            told = self.call(f"renewed-{number}")
            self.assertEqual(told["init"], "forked")
            seeds.add(told["seed"])
            servers.update(fork_servers(self.node))
        # Eight children, at most three of each.
        self.assertGreaterEqual(len(seeds), 3)
        self.assertGreaterEqual(len(servers), 3)

    def test_a_fork_server_out_of_order_costs_no_call(self):
        for number in range(6):
            self.deploy(f"broken-{number}", HELLO, runtime="broken")

        def booted():
            answers = [self.node.invoke(f"broken-{number}") for number in range(6)]
            return all(answer.status == 200 and "pooled" in answer.text for answer in answers)

        until(booted, Told(lambda: f"calls without a fork server: {self.node.errors()}"))
        self.assertIn("runtime broken has no fork server any more", self.node.errors())
        self.assertIn("out of order", self.node.errors())


# Unpacked there by tests/support/numpy.sh.
NUMPY = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "numpy" / "tree"
NUMPY_CHANCE = (
    "import sys\n"
    "LOADED = 'numpy' in sys.modules\n"
    "import numpy\n"
    "def handler(event, context):\n"
    "    return {\n"
    "        'init': open('/proc/1/cmdline').read().split('\\0')[1], 'loaded': LOADED, 'file': numpy.__file__,\n"
    "        'random': numpy.random.random(4).tolist(), 'state': numpy.random.get_state()[1][:8].tolist(),\n"
    "        'integers': numpy.random.RandomState().randint(10**9, size=4).tolist(), 'generator': numpy.random.default_rng().random(),\n"
    "        'permuted': numpy.random.permutation(1000)[:8].tolist(), 'dot': float(numpy.dot([1.0, 2.0], [3.0, 4.0])),\n"
    "    }\n"
)


class NumpyTest(EngineCase):
    """The real numpy, imported by a fork server before any function is known."""

    POOL = {"python3": 0, "nodejs": 0, "ruby": 0, "provided": 0, "numbers": 3}

    @classmethod
    def arguments(cls):
        if not NUMPY.is_dir():
            raise unittest.SkipTest(f"{NUMPY} is not there: tests/support/numpy.sh fetches it")
        folder = RuntimeFolder(cls)
        folder.add("numbers", with_numpy)
        runtime = folder.path / "numbers"
        shutil.copytree(NUMPY / "usr/lib/python3/dist-packages/numpy", runtime / "numpy")
        (runtime / "lib").mkdir()
        for library in NUMPY.glob("usr/lib/*/**/*.so.*"):
            shutil.copyfile(library, runtime / "lib" / library.name)
        # By the names that programs are linked against.
        for library in list((runtime / "lib").iterdir()):
            soname = ".so.".join((library.name.split(".so.")[0], library.name.split(".so.")[1].split(".")[0]))
            if not (runtime / "lib" / soname).exists():
                shutil.copyfile(library, runtime / "lib" / soname)
        return (f"--runtimes={folder.path}",)

    def test_siblings_share_none_of_numpys_chance(self):
        told = []
        for number in range(6):
            self.deploy(f"numbers-{number}", NUMPY_CHANCE, runtime="numbers", Timeout=timeout(20), MemorySize=256)
            told.append(self.call(f"numbers-{number}"))
        self.assertEqual({(one["init"], one["loaded"], one["dot"]) for one in told}, {("forked", True, 11.0)}, "by the fork server")
        self.assertEqual({one["file"] for one in told}, {"/var/runtime/numpy/__init__.py"})
        for source in ("random", "state", "integers", "generator", "permuted"):
            with self.subTest(source):
                self.assertEqual(len({str(one[source]) for one in told}), len(told), told)
