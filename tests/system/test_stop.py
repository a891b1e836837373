"""A stop finishes what is in flight, a second one does not wait, and neither leaves anything behind."""

import json
import signal
import socket
import threading
import unittest

from support.node import Node
from support.wait import patience, until

# Sleeps as long as the event says, and leaves a mark that it has begun in its log.
SLEEPER = """
import time
def handler(event, context):
    time.sleep(event["seconds"])
    return "slept"
"""


class Call(threading.Thread):
    """A call in the background; its answer or error is there once it is joined."""

    def __init__(self, node, name, event):
        super().__init__()
        self.node, self.name_of_function, self.event = node, name, event
        self.answer = self.error = None
        self.start()

    def run(self):
        try:
            self.answer = self.node.invoke(self.name_of_function, self.event)
        except OSError as error:
            self.error = error


def in_flight(node):
    """Calls that run now."""
    answer = node.cli("instances", "--json")
    return sum(instance["InFlight"] for instance in json.loads(answer.stdout))


def is_refused(address):
    host, port = address.rsplit(":", 1)
    try:
        socket.create_connection((host, int(port)), timeout=patience(10)).close()
    except ConnectionRefusedError:
        return True
    return False


class StopTest(unittest.TestCase):
    def test_stop_with_nothing_to_do(self):
        for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
            with Node() as node:
                node.note_processes()
                node.signal(number)
                self.assertEqual(node.wait(), 0)

    def test_a_stop_finishes_what_is_in_flight(self):
        with Node("--shards=2") as node:
            node.deploy("sleeper", SLEEPER, Timeout=60)
            call = Call(node, "sleeper", {"seconds": 2})
            until(lambda: in_flight(node) == 1, "the call in flight")
            self.assertEqual(node.stop(), 0)
            call.join()
            self.assertIsNone(call.error)
            self.assertEqual((call.answer.status, call.answer.text), (200, "slept"))

    def test_a_stop_runs_what_waits_for_a_cold_start(self):
        # Loading takes longer than the order to stop takes to arrive.
        slow = "import time\ntime.sleep(1.5)\n" + SLEEPER
        with Node() as node:
            node.deploy("cold", slow, Timeout=60)
            call = Call(node, "cold", {"seconds": 0})
            until(lambda: json.loads(node.cli("instances", "--json").stdout), "an instance that loads")
            self.assertEqual(node.stop(), 0)
            call.join()
            self.assertIsNone(call.error)
            self.assertEqual((call.answer.status, call.answer.text), (200, "slept"))

    def test_a_stopping_engine_refuses_connections(self):
        with Node("--shards=2") as node:
            node.deploy("sleeper", SLEEPER, Timeout=60)
            call = Call(node, "sleeper", {"seconds": 3})
            until(lambda: in_flight(node) == 1, "the call in flight")
            node.signal(signal.SIGTERM)
            # Refused at once, and not left in the backlog of a socket that nobody reads.
            for address in (node.controller, node.registry):
                until(lambda: is_refused(address), f"{address} refuses")
                self.assertTrue(all(is_refused(address) for _ in range(20)))
            self.assertTrue(call.is_alive(), "still in flight")
            self.assertEqual(node.wait(), 0)
            call.join()
            self.assertEqual(call.answer.text, "slept")

    def test_the_grace_time_ends(self):
        with Node(grace="500ms") as node:
            node.deploy("sleeper", SLEEPER, Timeout=300)
            call = Call(node, "sleeper", {"seconds": 200})
            until(lambda: in_flight(node) == 1, "the call in flight")
            self.assertEqual(node.stop(), 0)
            call.join()
            self.assertTrue(call.error or call.answer.status >= 500, call.answer)

    def test_a_second_signal_ends_at_once(self):
        for number, code in ((signal.SIGTERM, 143), (signal.SIGINT, 130)):
            with Node(grace="300s") as node:
                node.deploy("sleeper", SLEEPER, Timeout=300)
                call = Call(node, "sleeper", {"seconds": 200})
                until(lambda: in_flight(node) == 1, "the call in flight")
                node.note_processes()
                node.signal(number)
                until(lambda: "stopping" in node.errors(), "the stop noticed")
                node.signal(number)
                self.assertEqual(node.wait(), code)
                call.join()


if __name__ == "__main__":
    unittest.main()
