"""Networks of ended containers: the next one of the same account may get it, if nothing has come through it."""

import unittest

from support.netns import PORT, PUBLIC_V4
from support.wait import until
from system.test_network import NetworkCase

# Tells the container's address, which is its network's; sends a datagram to whom it is told; ends its instance if asked to.
ADDRESS = (
    "import os, re, socket\n"
    "def handler(event, context):\n"
    "    if event.get('end'):\n"
    "        os._exit(1)\n"
    "    if event.get('to'):\n"
    "        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as to:\n"
    "            to.sendto(b'x', tuple(event['to']))\n"
    "    local = re.findall(r'-- (\\S+)\\s+/32 host LOCAL', open('/proc/net/fib_trie').read())\n"
    "    own = sorted(set(local) - {'127.0.0.1'})\n"
    "    return {'address': own[0], 'init': open('/proc/1/cmdline').read().split('\\0')[1]}\n"
)


class ReuseTest(NetworkCase):
    """Of Python, whose runtimes are children of a fork server: they have to enter what they get."""

    def address(self, name, **event):
        """Of a function's only instance, which has ended then."""
        answer = self.node.invoke(name, event).json()
        self.assertEqual(answer["init"], "forked")
        self.node.invoke(name, {"end": True})
        return answer["address"]

    def test_an_account_alone_on_a_node_gets_its_networks_again(self):
        self.deploy("first", ADDRESS)
        self.deploy("second", ADDRESS)
        had = []

        def is_again():
            had.append(self.address(("first", "second")[len(had) % 2]))
            return had.count(had[-1]) > 1

        until(is_again, "a network is used again")
        sender = self.address("first", to=[PUBLIC_V4, PORT])
        after = [self.address("second") for _ in range(10)]
        self.assertNotIn(sender, after, "a packet has gone through it")


if __name__ == "__main__":
    unittest.main()
