"""A function that writes on its runtime's channel: whatever it forges, it alone is ended, and nobody else notices."""

import base64
import unittest

from support.deploy import Call, EngineCase, Gate, source
from support.wait import timeout

HELLO, LOAD, READY, INVOKE, REQUEST_PART, RESPONSE, WINDOW, CANCEL, ERROR, LOG, SHUTDOWN, PING, PONG = range(1, 14)
MORE = 1
RESULT_FRAME, RESULT_PART, LOG_FRAME, META = 262_144, 65_536, 65_536, 65_536
NEIGHBOURS = 6
COUNTER = (
    "import os\nnumber, token = 0, os.urandom(8).hex()\n"
    "def handler(event, context):\n    global number\n    number += 1\n    return {'number': number, 'token': token}\n"
)


def of(text):
    return base64.b64encode(text if isinstance(text, bytes) else text.encode()).decode()


def single(name, **fields):
    return name, {"frames": [fields], "wait": 60}


# What breaks docs/protocol.md sections 2 to 5 by itself.
BREACHES = (
    ("no frame", {"raw": of("GET / HTTP/1.1\r\n" * 20), "wait": 60}),
    ("zeros", {"raw": of(bytes(128)), "wait": 60}),
    single("another version", kind=LOG, magic="FAS\x02"),
    *(single(f"type {kind}", kind=kind) for kind in (0, 14, 255, 65_535)),
    *(single(f"the engine's own type {kind}", kind=kind) for kind in (LOAD, INVOKE, REQUEST_PART, WINDOW, CANCEL, SHUTDOWN, PING)),
    single("hello again", kind=HELLO, to=0, data=of('{"protocol":1}'), meta=14),
    single("ready again", kind=READY, to=0),
    single("a pong that nobody asked for", kind=PONG, to=0),
    single("unknown flags", kind=LOG, flags=4),
    single("all flags", kind=LOG, flags=65_535),
    single("reserved bytes", kind=LOG, reserved=[0] * 27 + [1]),
    single("meta too long", kind=RESPONSE, meta=META + 1, body=0),
    single("meta of 4 GiB", kind=RESPONSE, meta=2**32 - 1, body=2**32 - 1),
    single("result frame too long", kind=RESPONSE, body=RESULT_FRAME + 1),
    single("result of 4 GiB", kind=RESPONSE, body=2**32 - 1),
    single("log too long", kind=LOG, body=LOG_FRAME + 1),
    single("result of no call", kind=RESPONSE, to=0, data=of("{}")),
    single("result of all calls", kind=RESPONSE, to=2**64 - 1, data=of("{}")),
    single("error of no call of its own", kind=ERROR, to="own+1", data=of("{}")),
    single("empty part", kind=RESPONSE, flags=MORE),
    single("part too long", kind=RESPONSE, flags=MORE, data=of(b"x" * (RESULT_PART + 1))),
    ("another's result and then the own", {"frames": [{"kind": RESPONSE, "to": "own+1", "data": of("1")}, {"kind": RESPONSE, "data": of("2")}], "wait": 60}),
)


class ForgedTest(EngineCase):
    POOL = {"python3": 4, "nodejs": 0, "ruby": 0, "provided": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.engine = cls.node.engine_pid()

    def setUp(self):
        self.deploy("forger", source("forger"), Timeout=timeout(30))
        self.neighbours = [f"neighbour-{number}" for number in range(NEIGHBOURS)]
        for name in self.neighbours:
            self.deploy(name, COUNTER)
        self.seen = {name: self.call(name) for name in self.neighbours}

    def neighbours_go_on(self):
        """Each is answered by the process that answered before, and nobody called it meanwhile."""
        for name, before in self.seen.items():
            self.seen[name] = self.call(name)
            self.assertEqual(self.seen[name], {"number": before["number"] + 1, "token": before["token"]}, name)
        self.assertEqual(self.node.engine_pid(), self.engine)

    def test_what_breaks_the_protocol_ends_its_own_instance_alone(self):
        token = self.call("forger")["token"]
        for name, event in BREACHES:
            with self.subTest(name):
                self.lost(self.node.invoke("forger", event))
                fresh = self.call("forger")["token"]
                self.assertNotEqual(fresh, token, "it lives on")
                token = fresh
                self.neighbours_go_on()
        self.log_says("forger", "Runtime was ended: it broke the frame protocol")

    def test_nobody_answers_for_others(self):
        """Ids of calls that run in other instances, and of those around the own."""
        self.deploy("held", source("gate"), Timeout=timeout(60))
        call = Call(self.node, "held", {"name": "forged"})
        gate = Gate(self.node, "forged")
        self.addCleanup(call.answer)
        for to in (*(f"own{distance:+}" for distance in (-3, -2, -1, 1, 2, 3, 2**32, -(2**32), 2**33)), *range(4), 2**32, 2**32 + 1, 2**33):
            for kind in (RESPONSE, ERROR):
                if (kind, to) == (ERROR, 0):
                    continue  # says that the process is about to end, which it may
                with self.subTest(to=to, kind=kind):
                    self.lost(self.node.invoke("forger", {"frames": [{"kind": kind, "to": to, "data": of('"forged"')}], "wait": 60}))
        self.assertIsNone(call.result)
        gate.open()
        self.assertEqual(self.good(call.answer()).json()["name"], "forged")
        self.neighbours_go_on()

    def test_lines_in_the_name_of_others_reach_nobody_else(self):
        lines = [{"kind": LOG, "to": f"own{distance:+}", "data": of("a forged line\n")} for distance in (-2, -1, 1, 2)]
        self.call("forger", {"frames": lines})
        self.log_says("forger", "a forged line")
        for name in self.neighbours:
            self.assertNotIn("forged", self.node.cli("logs", name).stdout)
        self.neighbours_go_on()

    def test_an_answer_before_the_own_runtime_s_is_the_answer(self):
        answer = self.good(self.node.invoke("forger", {"frames": [{"kind": RESPONSE, "data": of('"early"')}]}))
        self.assertEqual(answer.text, '"early"')
        # The runtime's own is then one that nobody waits for, which ends it.
        self.log_says("forger", "broke the frame protocol")
        self.failed_with_garbage()
        self.neighbours_go_on()

    def test_parts_without_end_are_too_large_or_beyond_the_credit(self):
        # Which comes first is a race between the engine, which grants credit, and the function, which does not wait for it.
        part = {"kind": RESPONSE, "flags": MORE, "data": of(b"x" * RESULT_PART)}
        answer = self.node.invoke("forger", {"frames": [part], "times": 100})
        self.assertRegex(answer.text, "Process exited before completing request|Function.ResponseSizeTooLarge")
        self.neighbours_go_on()

    def failed_with_garbage(self):
        """An error object that is none goes to who called, and to nobody else."""
        answer = self.node.invoke("forger", {"frames": [{"kind": ERROR, "data": of(b"\xff\x00 no JSON")}]})
        self.assertEqual((answer.status, answer.headers["X-Easyfaas-Function-Error"]), (200, "Unhandled"), answer)

    def test_one_that_says_that_it_ends_gets_nothing_new(self):
        before = self.call("forger", {"frames": [{"kind": ERROR, "to": 0, "data": of("{}")}]})["token"]
        self.assertNotEqual(self.call("forger")["token"], before)
        self.neighbours_go_on()

    def test_half_a_frame_is_waited_for_until_the_call_s_own_time_is_over(self):
        self.deploy("half", source("forger"), Timeout=timeout(1))
        for name, fields in (("header", None), ("body", {"kind": RESPONSE, "body": RESULT_FRAME, "data": of("{")}),
                             ("meta", {"kind": RESPONSE, "meta": META, "body": 0})):
            with self.subTest(name):
                event = {"wait": 60, **({"frames": [fields]} if fields else {"raw": of(b"FAS\x01")})}
                self.assertIn("Task timed out", self.failed(self.node.invoke("half", event))["errorMessage"])
        self.neighbours_go_on()

    def test_a_channel_that_is_closed_or_has_urgent_bytes(self):
        for name, event in (("no more writing", {"shut": 1}), ("both", {"shut": 2}), ("urgent", {"urgent": True, "raw": of(bytes(64))})):
            with self.subTest(name):
                self.lost(self.node.invoke("forger", {**event, "wait": 60}))
        # One that the engine cannot write to ends with the next call at the latest.
        self.node.invoke("forger", {"shut": 0})
        self.assertEqual(self.node.invoke("forger").status, 200)
        self.assertIn("token", self.call("forger"))
        self.neighbours_go_on()

    def test_who_never_stops_writing_keeps_nobody_from_being_served(self):
        self.deploy("flooder", source("forger"), Timeout=timeout(30))
        call = Call(self.node, "flooder", {"flood": 2})
        rounds = 0
        while call.is_alive():
            self.neighbours_go_on()
            rounds += 1
        self.assertGreater(self.good(call.answer()).json()["told"], 1 << 20)
        self.assertGreater(rounds, 1)
        self.neighbours_go_on()


if __name__ == "__main__":
    unittest.main()
