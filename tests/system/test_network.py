"""What functions reach by mode, that they cannot pretend to be others, and what the engine does to its host's network.

Everything happens in a network namespace of the test's own, with a world behind it: the machine's rules are not touched.
"""

import ipaddress
import os
import re
import signal
import socket
import sys
import tempfile
import threading
import unittest
import unittest.mock

from support import netns
from support.deploy import Call, EngineCase, Gate, source
from support.http_client import request
from support.netns import DNS, GATE_V4, GATE_V6, HOST_V4, HOST_V6, METADATA, METADATA_PUBLIC, METADATA_V6, PORT, PRIVATE_V4, PRIVATE_V6, PUBLIC_V4, PUBLIC_V6
from support.node import Node, program, run_command
from support.wait import until

# What a refused try ends with: told by the rules (IPv4, IPv6), or there is no way at all.
REFUSED = ("EHOSTUNREACH", "EACCES", "ENETUNREACH")
THEIRS = "table inet theirs {\n\tchain forward {\n\t\ttype filter hook forward priority filter; policy accept;\n\t}\n}\n"


def port_of(address):
    return int(address.rsplit(":", 1)[1])


def address_in(pid, version):
    """The address of a container's link, by a process of it; `version` is 4 or 6."""
    shown = in_container(pid, "ip", "-o", f"-{version}", "addr", "show", "dev", "eth0", "scope", "global")
    return shown.split()[3].split("/")[0]


def v4_of(answer):
    return next(address for address in answer["addresses"] if "." in address and address != "127.0.0.1")


class NetworkCase(EngineCase):
    """An engine in a namespace of its own, with functions of each mode."""

    POOL = {"python3": 2, "nodejs": 0, "ruby": 0, "provided": 0}
    # Listening everywhere: what containers must not reach is there to be reached.
    ARGUMENTS = ("--listen=0.0.0.0:0", "--registry-listen=0.0.0.0:0", f"--network-dns={DNS}")

    @classmethod
    def setUpClass(cls):
        cls.lab = netns.Lab()
        cls.addClassCleanup(cls.lab.leave)
        super().setUpClass()
        # Addresses to call it by: what it listens on stands for all.
        for name in ("controller", "registry"):
            setattr(cls.node, name, f"127.0.0.1:{port_of(getattr(cls.node, name))}")

    def tries(self, function, *to, **event):
        return self.call(function, {"to": to, **event})

    def deploy_net(self, name, mode=None):
        self.deploy(name, source("net"), Timeout=60, **({"NetworkMode": mode} if mode else {}))

    def assert_refused(self, answer):
        for what, result in answer["reached"].items():
            self.assertIn(result, REFUSED, what)


class HostService:
    """Somebody who listens on all addresses of the host and answers with the address that he sees."""

    def __init__(self):
        self.server = socket.create_server(("::", 0), family=socket.AF_INET6, dualstack_ipv6=True)
        self.port = self.server.getsockname()[1]
        threading.Thread(target=self.serve, daemon=True).start()

    def serve(self):
        while True:
            try:
                peer, address = self.server.accept()
            except OSError:
                return
            with peer:
                peer.sendall(address[0].removeprefix("::ffff:").encode())

    def close(self):
        # Wakes the thread, which closing alone would not.
        self.server.shutdown(socket.SHUT_RDWR)
        self.server.close()


def in_container(pid, *words):
    """Runs a command as the host's root in a container's network."""
    return netns.run("nsenter", f"--net=/proc/{pid}/ns/net", "--", *words)


class ReachTest(NetworkCase):
    def setUp(self):
        self.service = HostService()
        self.addCleanup(self.service.close)

    def engine_ports(self):
        return [port_of(self.node.controller), port_of(self.node.registry)]

    def test_the_default_is_the_world_and_not_what_is_near(self):
        self.deploy_net("default")
        seen = self.tries("default", *((kind, host, PORT) for kind in ("tcp", "udp") for host in (PUBLIC_V4, PUBLIC_V6)))
        self.assertEqual(seen["reached"], {
            f"{kind} {host} {PORT}": own for kind in ("tcp", "udp") for host, own in ((PUBLIC_V4, HOST_V4), (PUBLIC_V6, HOST_V6))
        }, "the world sees the host's address")
        self.assertEqual(seen["interfaces"], ["eth0", "lo"])
        near = [(GATE_V4, PORT), (PRIVATE_V4, PORT), (METADATA, PORT), (METADATA, 80), (DNS, PORT), (GATE_V6, PORT), (PRIVATE_V6, PORT),
                (METADATA_V6, PORT), (METADATA_PUBLIC, PORT)]
        near += [(host, port) for host in (HOST_V4, HOST_V6) for port in (self.service.port, *self.engine_ports())]
        self.assert_refused(self.tries("default", *(("tcp", host, port) for host, port in near)))

    def test_dns_is_reached_where_it_is(self):
        self.deploy_net("names", "egress")
        seen = self.tries("names", ("udp", DNS, 53), ("tcp", DNS, 53))
        self.assertEqual(set(seen["reached"].values()), {HOST_V4}, seen)
        self.assertTrue(seen["resolv"].startswith(f"nameserver {DNS}\n"), seen["resolv"])
        self.assert_refused(self.tries("names", ("tcp", METADATA, 53), ("tcp", PRIVATE_V4, 53)))

    def test_full_opens_the_host_and_its_networks_but_not_the_engine(self):
        self.deploy_net("open", "full")
        near = [(PUBLIC_V4, PORT), (GATE_V4, PORT), (PRIVATE_V4, PORT), (GATE_V6, PORT), (PRIVATE_V6, PORT)]
        seen = self.tries("open", *(("tcp", host, port) for host, port in near))
        self.assertEqual(set(seen["reached"].values()), {HOST_V4, HOST_V6}, seen)
        own = self.tries("open", ("tcp", HOST_V4, self.service.port), ("tcp", HOST_V6, self.service.port))
        self.assertEqual(own["reached"][f"tcp {HOST_V4} {self.service.port}"], v4_of(own))
        self.assertTrue(own["reached"][f"tcp {HOST_V6} {self.service.port}"].startswith("fdfa:"), own)
        closed = [(host, port) for host in (HOST_V4, HOST_V6) for port in self.engine_ports()]
        self.assert_refused(self.tries("open", *(("tcp", host, port) for host, port in closed),
                                     *(("tcp", host, PORT) for host in (METADATA, METADATA_V6, METADATA_PUBLIC)), ("tcp", METADATA, 80)))

    def test_none_reaches_itself_alone(self):
        self.deploy_net("alone", "none")
        world = (PUBLIC_V4, PRIVATE_V4, METADATA, PUBLIC_V6, PRIVATE_V6, METADATA_V6, GATE_V6)
        seen = self.tries("alone", *(("tcp", host, PORT) for host in world),
                          *(("tcp", host, self.service.port) for host in (HOST_V4, HOST_V6)), ("udp", DNS, 53))
        self.assertEqual(set(seen["reached"].values()), {"ENETUNREACH"}, seen)
        self.assertEqual([address for address in seen["addresses"] if address not in ("127.0.0.1", "0000:0000:0000:0000:0000:0000:0000:0001")], [])

    def test_containers_do_not_meet(self):
        self.deploy_net("first", "full")
        for mode in ("egress", "full"):
            self.deploy_net(f"second-{mode}", mode)
        call = Call(self.node, "first", {"serve": PORT, "keep": "served"})
        gate = Gate(self.node, "served")
        self.addCleanup(call.answer)
        self.addCleanup(gate.open)
        pid = gate.pids[-1]
        peers = [re.search(r"inet6? ([0-9a-f.:]+)/", line).group(1) for line in in_container(pid, "ip", "-o", "addr", "show", "dev", "eth0").splitlines()]
        self.assertEqual(len(peers), 2, peers)
        before = netns.counted("containers do not meet")
        for mode in ("egress", "full"):
            self.assert_refused(self.tries(f"second-{mode}", *(("tcp", peer, PORT) for peer in peers)))
        self.assertGreaterEqual(netns.counted("containers do not meet"), before + 4)

    def test_nobody_from_outside_begins_with_a_container(self):
        self.deploy_net("quiet")
        call = Call(self.node, "quiet", {"serve": PORT, "keep": "quiet"})
        gate = Gate(self.node, "quiet")
        self.addCleanup(call.answer)
        self.addCleanup(gate.open)
        for version in (4, 6):
            before = netns.counted("nobody begins with a container")
            self.lab.knock(address_in(gate.pids[-1], version), PORT)
            until(lambda: netns.counted("nobody begins with a container") > before, f"the rule to count the packet of IPv{version}")

    def test_a_forged_source_does_not_leave(self):
        self.deploy_net("forger", "full")
        call = Call(self.node, "forger", {"keep": "forger"})
        gate = Gate(self.node, "forger")
        self.addCleanup(call.answer)
        self.addCleanup(gate.open)
        pid = gate.pids[-1]
        own, own_v6 = (ipaddress.ip_address(address_in(pid, version)) for version in (4, 6))
        before = netns.counted("forged source")
        # Of a neighbour, and of somebody far away.
        for address in (str(own + 1), "8.8.8.8", str(own_v6 + 1), "2001:db8:9::9"):
            v6 = ":" in address
            in_container(pid, "ip", "addr", "add", address + ("/128" if v6 else "/32"), "dev", "eth0", *(["nodad"] if v6 else []))
            in_container(pid, sys.executable, "-c", netns.SEND, address, PUBLIC_V6 if v6 else PUBLIC_V4, str(PORT), "forged")
        until(lambda: netns.counted("forged source") >= before + 4, "four forged packets to be counted")
        for source, to in ((own, PUBLIC_V4), (own_v6, PUBLIC_V6)):
            in_container(pid, sys.executable, "-c", netns.SEND, str(source), to, str(PORT), f"true-{source.version}")
        until(lambda: {"true-4", "true-6"} <= {payload for payload, _ in self.lab.heard()}, "the true ones to arrive")
        self.assertNotIn("forged", [payload for payload, _ in self.lab.heard()])

    def test_a_mode_is_kept_shown_and_checked(self):
        self.deploy_net("shown", "full")
        shown = request(self.node.registry, "GET", "/v1/functions/shown").json()["Configuration"]
        self.assertEqual(shown["NetworkMode"], "full")
        answer = self.create("wrong", NetworkMode="some", Runtime="python3")
        self.assertEqual(answer.status, 400, answer)
        self.assertIn("NetworkMode must be one of none, egress, full", answer.text)


class HostTest(unittest.TestCase):
    """What an engine does to its host's network, and undoes."""

    def setUp(self):
        self.lab = netns.Lab()
        self.addCleanup(self.lab.leave)

    def node(self, *arguments):
        return Node("--pool=python3=1,nodejs=0,ruby=0,provided=0", *arguments)

    def reaches(self, node, host=PUBLIC_V4):
        node.deploy("net", source("net"), Timeout=60)
        answer = node.invoke("net", {"to": [("tcp", host, PORT)]})
        self.assertEqual(answer.status, 200, answer)
        return answer.json()["reached"][f"tcp {host} {PORT}"]

    def test_everything_is_as_it_was_when_it_has_ended(self):
        netns.run("nft", "-f", "-", input=THEIRS)
        rules, routes = netns.run("nft", "list", "ruleset"), netns.run("ip", "route") + netns.run("ip", "-6", "route")
        switches = ("ipv4/ip_forward", "ipv4/conf/up0/forwarding", "ipv6/conf/all/forwarding")
        before = [netns.switch(name) for name in switches]
        self.assertEqual(before, ["0", "0", "0"])
        with self.node() as node:
            self.assertEqual(self.reaches(node), HOST_V4)
            self.assertEqual(netns.ours(), [f"inet faaster-{node.instance}-0"])
            self.assertEqual([netns.switch(name) for name in switches], ["0", "1", "1"])
            self.assertEqual(len(netns.reservations()), 2)
            self.assertIn("this host passes packets on for containers now", node.errors())
        netns.gone("links", netns.links)
        self.assertEqual(netns.run("nft", "list", "ruleset"), rules)
        self.assertEqual(netns.run("ip", "route") + netns.run("ip", "-6", "route"), routes)
        self.assertEqual([netns.switch(name) for name in switches], before)

    def test_what_a_killed_one_left_is_removed_by_the_next(self):
        node = self.node()
        with node:
            first = node.instance
            node.kill()
            self.assertEqual(netns.ours(), [f"inet faaster-{first}-0"], "the rules outlast their engine")
            node.start()
            self.assertNotEqual(node.instance, first)
            self.assertEqual(netns.ours(), [f"inet faaster-{node.instance}-0"])
            self.assertEqual(netns.reservations()[0], "10.213.0.0/16", "the subnet was free again")
            self.assertEqual(self.reaches(node), HOST_V4)
        self.assertEqual((netns.ours(), netns.reservations()), ([], []))

    def test_a_funclet_that_was_killed_finds_its_rules(self):
        with self.node() as node:
            [pid] = node.funclet_pids()
            descriptor = os.pidfd_open(pid)
            signal.pidfd_send_signal(descriptor, signal.SIGKILL)
            os.close(descriptor)
            until(lambda: node.funclet_pids() not in ([], [pid]), "another funclet")
            self.assertEqual(self.reaches(node), HOST_V4)
            self.assertEqual(len(netns.ours()), 1)

    def test_rules_that_somebody_removed_come_back(self):
        with self.node() as node:
            table = netns.ours()
            netns.run("nft", "flush", "ruleset")
            until(lambda: netns.ours() == table, "the rules are back")
            until(lambda: "they are back" in node.errors(), "it to be said")
            self.assertEqual(self.reaches(node), HOST_V4)

    def test_a_network_that_the_host_gets_later_is_closed_too(self):
        with self.node() as node:
            self.assertEqual(self.reaches(node), HOST_V4)
            netns.run("ip", "addr", "add", "203.0.113.200/24", "dev", "up0")
            until(lambda: "203.0.113.0/24" in netns.run("nft", "list", "ruleset"), "the rules to know it")
            self.assertIn(self.reaches(node), REFUSED)
            self.assertEqual(self.reaches(node, PUBLIC_V6), HOST_V6)
            netns.run("ip", "addr", "add", "2001:db8:ffff::200/64", "dev", "up0", "nodad")
            until(lambda: "2001:db8:ffff::/64" in netns.run("nft", "list", "ruleset"), "the rules to know it")
            self.assertIn(self.reaches(node, PUBLIC_V6), REFUSED)

    def test_a_subnet_in_use_is_left_alone(self):
        netns.run("ip", "addr", "add", "10.213.5.1/24", "dev", "up0")
        with self.node() as node:
            self.assertIn("10.214.0.0/16", netns.reservations())
            self.assertIn("containers get addresses in 10.214.0.0/16, for 10.213.0.0/16 overlaps 10.213.5.", node.errors())
            self.assertEqual(self.reaches(node), HOST_V4)
        with tempfile.TemporaryDirectory(prefix="faaster-test-", dir="/var/tmp") as home:
            os.chmod(home, 0o755)
            ended = run_command("serve", "--listen=127.0.0.1:0", "--registry-listen=127.0.0.1:0", f"--data={home}/data", f"--run={home}/run",
                                "--network-subnet=10.213.4.0/22", "--slots-max=100")
            self.assertEqual(ended.returncode, 2, ended)
            self.assertIn("the subnet 10.213.4.0/22 (network_subnet) overlaps 10.213.5.", ended.stderr)
        self.assertEqual((netns.ours(), netns.reservations()), ([], []))

    def test_two_engines_do_not_disturb_each_other(self):
        first, second = self.node().start(), self.node().start()
        with second:
            with first:
                self.assertEqual(len(netns.ours()), 2)
                self.assertEqual(len(netns.reservations()), 4)
                self.assertEqual([self.reaches(node) for node in (first, second)], [HOST_V4, HOST_V4])
                second.deploy("other", source("net"), Timeout=60, NetworkMode="full")
                call = Call(first, "net", {"serve": PORT, "keep": "two"})
                gate = Gate(first, "two")
                for address in (address_in(gate.pids[-1], version) for version in (4, 6)):
                    answer = second.invoke("other", {"to": [("tcp", address, PORT)]})
                    self.assertIn(answer.json()["reached"][f"tcp {address} {PORT}"], REFUSED)
                gate.open()
                call.answer()
            # The one that opened the way has ended, and set it back; the other sees to it.
            self.assertEqual(netns.ours(), [f"inet faaster-{second.instance}-0"])
            until(lambda: netns.switch("ipv4/conf/up0/forwarding") == "1", "the way to be open")
            until(lambda: netns.switch("ipv6/conf/all/forwarding") == "1", "the way to be open for IPv6")
            self.assertEqual([self.reaches(second), self.reaches(second, PUBLIC_V6)], [HOST_V4, HOST_V6])
        self.assertEqual((netns.switch("ipv4/conf/up0/forwarding"), netns.ours(), netns.reservations()), ("0", [], []))

    def test_several_funclets_share_the_subnet(self):
        with self.node("--funclets=2") as node:
            self.assertEqual(len(netns.ours()), 2)
            for name in ("a", "b", "c", "d"):
                node.deploy(name, source("net"), Timeout=60)
            seen = [node.invoke(name, {"to": [("tcp", PUBLIC_V4, PORT)]}).json() for name in ("a", "b", "c", "d")]
            self.assertEqual({answer["reached"][f"tcp {PUBLIC_V4} {PORT}"] for answer in seen}, {HOST_V4})
            self.assertEqual(len({v4_of(answer) for answer in seen}), 4, seen)

    def test_a_host_that_is_no_router_does_not_become_one(self):
        # A second network of the host, whose machines have no business in the first.
        netns.run("ip", "link", "add", "lan0", "type", "veth", "peer", "name", "lan1")
        netns.run("ip", "addr", "add", "192.0.2.1/24", "dev", "lan0")
        netns.run("ip", "addr", "add", "2001:db8:200::1/64", "dev", "lan0", "nodad")
        netns.run("ip", "link", "set", "lan0", "up")
        with self.node() as node:
            self.assertEqual(self.reaches(node), HOST_V4)
            for neighbour in ("192.0.2.7", "2001:db8:200::7"):
                before = netns.counted("this host is no router")
                self.lab.knock(neighbour, PORT)
                until(lambda: netns.counted("this host is no router") > before, f"the packet for {neighbour} to be dropped")
            # Somebody makes it one: then it is meant to be.
            netns.set_switch("ipv4/ip_forward", "1")
            until(lambda: 'iifname "up0"' not in netns.run("nft", "list", "ruleset"), "the guard to go")
            self.assertEqual(self.reaches(node), HOST_V4)
        self.assertEqual(netns.switch("ipv4/conf/up0/forwarding"), "1", "that is not ours to set back")

    def test_others_that_drop_are_named_with_the_remedy(self):
        netns.run("nft", "-f", "-", input=THEIRS.replace("policy accept", "policy drop"))
        with self.node() as node:
            until(lambda: "the chain `inet theirs forward` drops forwarded packets" in node.errors(), "the notice")
            remedy = re.search(r"still hold\): (.*)", node.errors()).group(1)
            self.assertIn(self.reaches(node), ("ETIMEDOUT",))
            for command in remedy.split("; "):
                netns.run("sh", "-c", command)
            self.assertEqual(self.reaches(node), HOST_V4)
        doctor = run_command("doctor").stdout
        self.assertRegex(doctor, r"weak +network policy +the chain")

    def test_off_and_none_leave_the_host_alone(self):
        with self.node("--network=off") as node:
            self.assertEqual((netns.ours(), netns.reservations(), netns.switch("ipv4/conf/up0/forwarding")), ([], [], "0"))
            node.deploy("net", source("net"), Timeout=60, NetworkMode="full")
            seen = node.invoke("net", {"to": [("tcp", PUBLIC_V4, PORT)]}).json()
            self.assertEqual((seen["interfaces"], seen["reached"]), (["lo"], {f"tcp {PUBLIC_V4} {PORT}": "ENETUNREACH"}))
        with self.node("--network=none", f"--network-dns={DNS}") as node:
            node.deploy("net", source("net"), Timeout=60)
            node.deploy("wide", source("net"), Timeout=60, NetworkMode="egress")
            seen = [node.invoke(name, {"to": [("tcp", PUBLIC_V4, PORT)]}).json() for name in ("net", "wide")]
            self.assertEqual([answer["interfaces"] for answer in seen], [["lo"], ["eth0", "lo"]])
            self.assertEqual([*seen[0]["reached"].values(), *seen[1]["reached"].values()], ["ENETUNREACH", HOST_V4])

    def test_a_host_without_ipv6_has_none(self):
        netns.run("ip", "-6", "route", "del", "default")
        with self.node() as node:
            node.deploy("net", source("net"), Timeout=60)
            seen = node.invoke("net", {"to": [("tcp", PUBLIC_V6, PORT), ("tcp", PUBLIC_V4, PORT)]}).json()
            self.assertEqual(list(seen["reached"].values()), ["ENETUNREACH", HOST_V4])
            self.assertEqual(netns.switch("ipv6/conf/all/forwarding"), "0")

    def test_without_the_right_to_make_links_containers_have_their_loopback(self):
        with tempfile.TemporaryDirectory(prefix="faaster-test-", dir="/var/tmp") as folder:
            wrapper = os.path.join(folder, "faaster")
            with open(wrapper, "w") as file:
                file.write(f'#!/bin/sh\nexec setpriv --bounding-set=-net_admin -- {program()} "$@"\n')
            os.chmod(wrapper, 0o755)
            with unittest.mock.patch.dict(os.environ, FAASTER_BIN=wrapper), self.node() as node:
                self.assertIn("containers have their loopback alone", node.errors())
                self.assertIn(self.reaches(node), ("ENETUNREACH",))
                shown = run_command("doctor").stdout
                self.assertRegex(shown, r"weak +network links +functions have their loopback alone: .*CAP_NET_ADMIN")
                self.assertRegex(shown, r"weak +network rules ")
        self.assertEqual((netns.ours(), netns.reservations(), netns.links()), ([], [], []))

    def test_a_container_has_the_packet_size_of_the_way_out(self):
        netns.run("ip", "link", "set", "up0", "mtu", "1400")
        for options, expected in (((), "1400"), (("--network-mtu=1300",), "1300")):
            with self.node(*options) as node:
                call_name = f"mtu-{expected}"
                node.deploy(call_name, source("net"), Timeout=60)
                call = Call(node, call_name, {"keep": "mtu"})
                gate = Gate(node, "mtu")
                self.assertIn(f"mtu {expected} ", in_container(gate.pids[-1], "ip", "-o", "link", "show", "dev", "eth0"))
                gate.open()
                call.answer()

    def test_the_doctor_looks_at_the_network(self):
        before = netns.run("nft", "list", "ruleset") + netns.run("ip", "-o", "link")
        shown = run_command("doctor", f"--network-dns={DNS}").stdout
        for what in ("links", "rules", "subnet", "forwarding", "ipv6", "dns"):
            self.assertRegex(shown, rf"ok +network {what} ")
        self.assertIn(f"{DNS} (from network_dns)", shown)
        self.assertEqual(netns.run("nft", "list", "ruleset") + netns.run("ip", "-o", "link"), before)


if __name__ == "__main__":
    unittest.main()
