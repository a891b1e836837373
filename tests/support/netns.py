"""A network of the test's own: one namespace for the test and its engine, one for the world behind it."""

import ctypes
import os
import subprocess
import sys
import tempfile
from pathlib import Path

from support.wait import until

CLONE_NEWNET = 0x40000000
libc = ctypes.CDLL(None, use_errno=True)
WORLD = Path(__file__).resolve().parent / "world.py"

# The link between host and world, and what the world has.
HOST_V4, GATE_V4 = "198.51.100.2", "198.51.100.1"
HOST_V6, GATE_V6 = "2001:db8:100::2", "2001:db8:100::1"
PUBLIC_V4, PUBLIC_V6 = "203.0.113.1", "2001:db8:ffff::1"
PRIVATE_V4, PRIVATE_V6 = "10.77.0.1", "fd77::1"
METADATA = "169.254.169.254"
# Clouds' that are not link-local: AWS's of IPv6, Azure's.
METADATA_V6, METADATA_PUBLIC = "fd00:ec2::254", "168.63.129.16"
DNS = "10.77.0.53"
PORT = 7000
ADDRESSES = (GATE_V4, PUBLIC_V4, PRIVATE_V4, METADATA, METADATA_PUBLIC, DNS, GATE_V6, PUBLIC_V6, PRIVATE_V6, METADATA_V6)


SEND = """
import socket, sys
source, host, port, payload = sys.argv[1:]
one = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET, socket.SOCK_DGRAM)
one.bind((source, 0))
one.sendto(payload.encode(), (host, int(port)))
"""


def run(*words, check=True, **options):
    """What a command prints."""
    ended = subprocess.run(words, capture_output=True, text=True, **options)
    assert not check or ended.returncode == 0, f"{words}: {ended.stderr}"
    return ended.stdout


def check(result, what):
    if result != 0:
        raise OSError(ctypes.get_errno(), what)


class Lab:
    """Moves this thread, and what it starts from then on, into a namespace with a way to a world; `leave` moves it back."""

    def __init__(self):
        self.before = os.open("/proc/thread-self/ns/net", os.O_RDONLY)
        check(libc.unshare(CLONE_NEWNET), "unshare")
        self.folder = tempfile.TemporaryDirectory(prefix="faaster-world-")
        self.heard_path = Path(self.folder.name) / "heard"
        self.heard_path.touch()
        try:
            self.connect()
        except BaseException:
            self.leave()
            raise

    def connect(self):
        """Makes the link and the world's end of it."""
        self.world = subprocess.Popen(
            ["unshare", "--net", "--", sys.executable, str(WORLD), str(self.heard_path), str(PORT), *ADDRESSES],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        )
        assert self.world.stdout.readline() == "in\n"
        run("ip", "link", "set", "lo", "up")
        run("ip", "link", "add", "up0", "type", "veth", "peer", "name", "gate", "netns", str(self.world.pid))
        run("ip", "addr", "add", f"{HOST_V4}/24", "dev", "up0")
        run("ip", "addr", "add", f"{HOST_V6}/64", "dev", "up0", "nodad")
        run("ip", "link", "set", "up0", "up")
        self.world.stdin.write("go\n")
        self.world.stdin.flush()
        assert self.world.stdout.readline() == "ready\n"
        run("ip", "route", "add", "default", "via", GATE_V4)
        run("ip", "-6", "route", "add", "default", "via", GATE_V6)

    def heard(self):
        """Datagrams that came to the world: (payload, source) each."""
        return [tuple(line.split()) for line in self.heard_path.read_text().splitlines()]

    def in_world(self, *words):
        return run("nsenter", f"--net=/proc/{self.world.pid}/ns/net", "--", *words)

    def knock(self, address, port):
        """Sends a datagram from the world to an address that the host is the way to."""
        v6 = ":" in address
        self.in_world("ip", "route", "replace", f"{address}/128" if v6 else f"{address}/32", "via", HOST_V6 if v6 else HOST_V4)
        self.in_world(sys.executable, "-c", SEND, GATE_V6 if v6 else GATE_V4, address, str(port), "knock")

    def leave(self):
        """Back to where the thread was; the namespaces end with their last process."""
        world = getattr(self, "world", None)
        if world:
            world.stdin.close()
            world.wait()
            world.stdout.close()
        check(libc.setns(self.before, CLONE_NEWNET), "setns")
        os.close(self.before)
        self.folder.cleanup()


def tables():
    """Names of all tables of rules, as `inet name`."""
    return sorted(line.removeprefix("table ") for line in run("nft", "list", "tables").splitlines())


def ours():
    return [table for table in tables() if table.startswith("inet faaster-")]


def reservations():
    """Subnets that are reserved by a route."""
    routes = run("ip", "route", "show", "type", "unreachable") + run("ip", "-6", "route", "show", "type", "unreachable")
    return sorted(line.split()[1] for line in routes.splitlines())


def links():
    """Names of the containers' links that are there."""
    names = [line.split(":")[1].strip().split("@")[0] for line in run("ip", "-o", "link").splitlines()]
    return sorted(name for name in names if name.startswith("faas"))


def counted(comment):
    """Packets that the rule with this comment has counted, in all tables of ours."""
    total = 0
    for line in run("nft", "list", "ruleset").splitlines():
        if f'comment "{comment}"' in line:
            words = line.split()
            total += int(words[words.index("packets") + 1])
    return total


def switch(name):
    """A sysctl below net, of the namespace that this thread is in."""
    return Path(f"/proc/sys/net/{name}").read_text().strip()


def set_switch(name, value):
    Path(f"/proc/sys/net/{name}").write_text(value)


def gone(what, look):
    """Waits until `look` finds nothing more."""
    until(lambda: not look(), f"no {what} any more")
