"""kill -9 of each process: what must go on goes on, what must die dies, and nothing leaks."""

import http.client
import os
import signal
import unittest

from support import machine
from support.http_client import request
from support.node import Node
from support.wait import until

HELLO = "def handler(event, context):\n    return 'hello'\n"


def kill(pid):
    """SIGKILL through a pidfd."""
    pidfd = os.pidfd_open(pid)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    os.close(pidfd)


def answers(node, name="hello"):
    """Whether a call is answered well."""
    try:
        answer = node.invoke(name)
    except OSError:
        return False
    return answer.status == 200 and answer.text == "hello"


def health(node):
    """The answer to a health check, or None when the connection was accepted and reset."""
    try:
        return request(node.controller, "GET", "/healthz")
    except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
        return None


def first_answer(node, name):
    """The answer to a call, or None when the connection was accepted and reset."""
    try:
        return node.invoke(name)
    except (ConnectionResetError, BrokenPipeError, http.client.RemoteDisconnected):
        return None


class CrashTest(unittest.TestCase):
    def test_a_killed_engine_is_started_again(self):
        with Node() as node:
            node.deploy("hello", HELLO)
            self.assertTrue(answers(node))
            first = node.engine_pid()
            node.note_processes()
            kill(first)
            until(lambda: node.engine_pid() != first, "another engine")
            # The listeners stay open meanwhile: no connection is refused, and the functions are still known.
            until(lambda: answers(node), "an answer of the new engine")
            containers_before = node.seen - {first}
            self.assertEqual(len(node.funclet_pids()), 1)
            self.assertLess(len(containers_before - machine.descendants(node.process.pid)), len(node.seen))

    def test_no_connection_is_refused_while_the_engine_is_away(self):
        with Node() as node:
            node.deploy("hello", HELLO)
            for _ in range(3):
                killed = node.engine_pid()
                kill(killed)
                # The dead engine's ring lives on for some milliseconds and may take a connection, which is then reset.
                # Once another engine is there every connection is answered; a refused one is an error in any case.
                self.assertEqual(until(lambda: health(node), "an answer").status, 200)
                until(lambda: node.engine_pid() != killed, "another engine")

    def test_a_new_engine_knows_all_functions_before_it_serves(self):
        # More than fit into a mailbox.
        count = 4200
        with Node() as node:
            for number in range(count):
                node.deploy(f"stored{number}", HELLO)
            node.deploy("zlast", HELLO)
            for _ in range(3):
                killed = node.engine_pid()
                kill(killed)
                answer = until(lambda: first_answer(node, "zlast"), "an answer")
                self.assertEqual((answer.status, answer.text), (200, "hello"))
                until(lambda: node.engine_pid() != killed, "another engine")

    def test_a_killed_funclet_is_started_again_alone(self):
        with Node() as node:
            node.deploy("hello", HELLO)
            self.assertTrue(answers(node))
            engine, funclets = node.engine_pid(), node.funclet_pids()
            family = machine.descendants(funclets[0])
            node.note_processes()
            kill(funclets[0])
            until(lambda: node.funclet_pids() not in ([], funclets), "another funclet")
            until(lambda: answers(node), "an answer from a new container")
            self.assertEqual(node.engine_pid(), engine)
            until(lambda: not any(map(machine.alive, family)), "the old containers gone")
            # Not even as zombies of somebody else: the supervisor adopts what a funclet leaves, and reaps it.
            until(lambda: not any(map(machine.stat_of, family)), "the old containers reaped")

    def test_warm_functions_of_another_funclet_go_on(self):
        counter = "import os\nnumber = 0\ndef handler(event, context):\n" \
                  "    global number\n    number += 1\n    return {'number': number, 'pid': os.getpid()}\n"
        with Node("--funclets=2") as node:
            names = [f"count{number}" for number in range(8)]
            for name in names:
                node.deploy(name, counter)
                self.assertEqual(node.invoke(name).json()["number"], 1)
            killed, other = node.funclet_pids()
            engine = node.engine_pid()
            node.note_processes()
            kill(killed)
            until(lambda: len(set(node.funclet_pids()) - {killed, other}) == 1, "another funclet")
            until(lambda: all(node.invoke(name).status == 200 for name in names), "answers from all")
            numbers = [node.invoke(name).json()["number"] for name in names]
            # Those of the funclet that lived on have counted on; those of the other began again.
            self.assertIn(3, numbers)
            self.assertIn(2, numbers)
            self.assertEqual(node.engine_pid(), engine)

    def test_a_killed_supervisor_takes_everything_with_it(self):
        with Node() as node:
            node.deploy("hello", HELLO)
            self.assertTrue(answers(node))
            self.assertGreater(len(node.note_processes()), 3)
            self.assertEqual(node.kill(), -signal.SIGKILL)
            until(lambda: not [pid for pid in node.seen if machine.alive(pid)], node.left_processes)

            # What only root could have removed is swept by the next start, which finds the functions as they were.
            node.start()
            self.assertTrue(answers(node))

    def test_an_engine_that_cannot_live_is_given_up(self):
        with Node() as node:
            engine = node.engine_pid()
            node.note_processes()
            for _ in range(7):
                kill(engine)
                last = engine
                engine = until(lambda: next(iter(set(node.children("faaster engine")) - {last}), None), "another engine")
                node.note_processes()
            kill(engine)
            self.assertEqual(node.wait(), 1)
            self.assertIn("giving up", node.errors())


if __name__ == "__main__":
    unittest.main()
