"""The promises of docs/protocol.md, checked for every runtime that has a folder. One class per runtime, the same tests.

A function that a runtime's conformance/ and examples/ folders lack, or an interpreter that is not installed, is a skip with its reason.
No test depends on how fast things are: where calls must run at the same time, they wait for each other.
"""
import json
import time
import unittest

import wire
from engine import RUNTIMES_DIR, Ended, Instance, Runtime, Unavailable

CONCURRENCY = 64
SYNC_EVENT_BYTES_MAX = 6_291_456
RESULT_BYTES_MAX = 6_291_556

# event as it is sent -> result as it is received, by the echo function
ECHOES = [
    (b"{}", b"{}"),
    (b' { "a" : [ 1 , 2.5 , null , true ] } ', b'{"a":[1,2.5,null,true]}'),
    (b'"text is sent raw"', b"text is sent raw"),
    ('"h\u00e9llo \u2603 <b>&\U0001f600"'.encode(), "h\u00e9llo \u2603 <b>&\U0001f600".encode()),
    ('{"k\u00e9y":"\u2603"}'.encode(), '{"k\u00e9y":"\u2603"}'.encode()),
    (rb'"line\nbreak \"quoted\""', b'line\nbreak "quoted"'),
    (b"null", b"null"),
    (b"true", b"true"),
    (b"-12", b"-12"),
    (b"[]", b"[]"),
    (b'""', b""),
]
BAD_EVENTS = [b"{", b"not json", b"", b"{} {}", b'{"a":}', b"\xff\xfe"]

# function -> (error type, words that its message must have)
LOAD_ERRORS = {
    "missing": ("Runtime.HandlerNotFound", ["index.handler", "handler"]),
    "notfunction": ("Runtime.HandlerNotFound", ["index.handler"]),
    "nomodule": ("Runtime.ImportModuleError", ["index.handler", "index"]),
    "noimport": ("Runtime.ImportModuleError", ["not_to_be_found_anywhere"]),
    "syntax": ("Runtime.UserCodeSyntaxError", ["index"]),
    "loadraise": (None, ["not today"]),
}


class Conformance:
    """Mixed into one TestCase per runtime."""

    name = ""

    @classmethod
    def setUpClass(cls):
        try:
            cls.runtime = Runtime.find(cls.name)
        except Unavailable as reason:
            raise unittest.SkipTest(f"{cls.name}: {reason}") from None

    def instance(self, case, **options):
        """A started instance; a function that this runtime does not have skips the test."""
        try:
            opened = Instance(self.runtime, case, **options)
            opened.__enter__()
        except Unavailable as reason:
            self.skipTest(str(reason))
        self.addCleanup(opened.__exit__)
        return opened

    def concurrent(self, case, **options):
        opened = self.instance(case, concurrency=CONCURRENCY, **options)
        if not opened.concurrent:
            self.skipTest(f"{self.name} has no concurrent instances")
        return opened

    def modes(self):
        """0 (exclusive) and, where there is such a thing, a concurrency."""
        with Instance(self.runtime, "hello") as probe:
            return (0, CONCURRENCY) if probe.concurrent else (0,)

    # --- results ----------------------------------------------------------------------------------------

    def test_hello_is_raw_text(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                instance = self.instance("hello", concurrency=mode)
                self.assertEqual(instance.call({}).body, b"Hello world!")
                self.assertEqual(instance.call({"any": "thing"}).body, b"Hello world!")

    def test_echo_table(self):
        for mode in self.modes():
            instance = self.instance("echo", concurrency=mode)
            if instance.exec_kind:
                continue  # its echo is of bytes, not of JSON
            for event, expected in ECHOES:
                with self.subTest(event=event, concurrency=mode):
                    self.assertEqual(instance.call(event, raw=True).body, expected)

    def test_state_is_kept_between_calls(self):
        instance = self.instance("count")
        self.assertEqual([instance.call({}).text for _ in range(3)], ["1", "2", "3"])

    def test_invocation_ids_are_64_bits(self):
        instance = self.instance("echo")
        for invocation in (2**63 + 5, 2**64 - 1, 2**53 + 1, 2**32):
            instance.last_id = invocation - 1
            self.assertEqual(instance.call([7]).value, [7])

    # --- errors -----------------------------------------------------------------------------------------

    def check_error(self, error):
        self.assertEqual(sorted(error), ["errorMessage", "errorType", "stackTrace"])
        self.assertIsInstance(error["errorMessage"], str)
        self.assertIsInstance(error["errorType"], str)
        for line in error["stackTrace"]:
            self.assertIsInstance(line, str)
            self.assertNotIn("/bootstrap.", line, "the runtime's own frames are of no use to the user")
            self.assertNotIn(str(self.runtime.folder), line)

    def test_thrown_error(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                instance = self.instance("boom", concurrency=mode)
                error = instance.call({}).error
                self.check_error(error)
                self.assertEqual(error["errorMessage"], "boom")
                self.assertIn("Error", error["errorType"])
                self.assertIn("explode", " ".join(error["stackTrace"]))
                self.assertEqual(instance.call({}).error, error, "the instance lives on")

    def test_invalid_json_event_fails_that_call_only(self):
        for mode in self.modes():
            instance = self.instance("count", concurrency=mode)
            for number, event in enumerate(BAD_EVENTS):
                with self.subTest(event=event, concurrency=mode):
                    error = instance.call(event, raw=True).error
                    self.check_error(error)
                    self.assertEqual(error["errorType"], "Runtime.UnmarshalError")
                    self.assertIn("JSON", error["errorMessage"])
                    self.assertEqual(instance.call({}).text, str(number + 1))

    def test_result_that_is_no_json(self):
        instance = self.instance("badresult")
        error = instance.call({}).error
        self.check_error(error)
        self.assertEqual(error["errorType"], "Runtime.MarshalError")
        self.assertEqual(instance.call({}).error, error)

    def test_functions_that_cannot_be_loaded(self):
        for case, (error_type, words) in LOAD_ERRORS.items():
            for mode in self.modes():
                with self.subTest(function=case, concurrency=mode):
                    instance = self.instance(case, concurrency=mode, start=False)
                    instance.load()
                    error = instance.wait_load_error()
                    self.check_error(error)
                    if error_type:
                        self.assertEqual(error["errorType"], error_type)
                    for word in words:
                        self.assertIn(word, error["errorMessage"])
                    self.assertNotEqual(instance.wait_exit(), 0)

    def test_bad_handler_name(self):
        for handler in ("nodot", "", ".", "index."):
            with self.subTest(handler=handler):
                instance = self.instance("count", handler=handler, start=False)
                if instance.exec_kind:
                    self.skipTest("an exec runtime has no handler names")
                # An empty name means the default to the test's engine: send it as it is.
                instance.runtime = Runtime(self.runtime.folder, {**self.runtime.about, "default_handler": ""}, "")
                instance.load()
                error = instance.wait_load_error()
                self.check_error(error)
                self.assertEqual(error["errorType"], "Runtime.MalformedHandlerName")

    def test_exit_in_handler_ends_the_process(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                instance = self.instance("exit", concurrency=mode)
                self.assertEqual(instance.call({}).text, "alive")
                instance.begin({"x": 1})
                with self.assertRaises(Ended):
                    instance.next_frame()
                self.assertEqual(instance.wait_exit(), 3)

    # --- context and environment ------------------------------------------------------------------------

    def test_context_and_environment(self):
        instance = self.instance("context", env={"GREETING": "h\u00e9"})
        client = {"custom": {"a": "b"}, "env": {}, "client": {"app_title": "t"}}
        deadline = time.monotonic_ns() + 60_000_000_000
        shown = instance.call({}, meta={"requestId": "id-1", "clientContext": client}, deadline_ns=deadline).value
        remaining = shown.pop("remainingTimeMs")
        self.assertGreater(remaining, 0)
        self.assertLessEqual(remaining, 60_000)
        self.assertEqual(
            shown,
            {
                "requestId": "id-1",
                "functionName": "conformance",
                "functionVersion": "7",
                "functionBrn": "brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:conformance:7",
                "memoryLimitInMB": 128,
                "clientContext": client,
                "greeting": "h\u00e9",
            },
        )
        past = instance.call({}, meta={"requestId": "id-2"}, deadline_ns=1).value
        self.assertEqual(past["remainingTimeMs"], 0)
        self.assertEqual(past["requestId"], "id-2")
        self.assertIsNone(past["clientContext"])

    def test_time_zone_of_the_function(self):
        for zone, hour in (("UTC", 0), ("Asia/Tokyo", 9)):
            with self.subTest(zone=zone):
                instance = self.instance("zone", env={"TZ": zone, "GREETING": "g"})
                self.assertEqual(instance.call({}).value, {"hour": hour, "greeting": "g"})

    def test_vendored_packages(self):
        instance = self.instance("vendored")
        self.assertEqual(instance.call({}).value[:2], ["at root", "in vendor"])

    def test_handler_in_a_folder(self):
        for handler in ("pkg/mod.handler", "pkg.mod.handler"):
            if handler == "pkg.mod.handler" and self.name != "python3":
                continue  # dots name packages in Python alone
            with self.subTest(handler=handler):
                self.assertIn("mod", self.instance("nested", handler=handler).call({}).text)

    # --- frames -----------------------------------------------------------------------------------------

    def test_load_and_invoke_in_one_write(self):
        instance = self.instance("count", start=False)
        if instance.exec_kind:
            self.skipTest("an exec runtime sees no load")
        sent = []
        plain_send, instance.send = instance.send, sent.append
        instance.load()
        invocation = instance.begin({})
        instance.send = plain_send
        instance.send(b"".join(sent))
        instance.wait_ready()
        self.assertEqual(instance.wait(invocation)[0].text, "1")

    def test_frames_cut_anywhere(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                instance = self.instance("echo", concurrency=mode)
                for cut in (1, 7, 63, 64, 65, 90):
                    invocation, data = instance.begin({"cut": cut}, send=False)
                    for at in range(0, len(data), cut):
                        instance.send(data[at : at + cut])
                        time.sleep(0)
                    self.assertEqual(json.loads(instance.wait(invocation)[0].body), {"cut": cut})

    def test_64_invocations_are_answered_in_few_writes(self):
        for case in ("hello", "echo"):  # echo is an async handler where there is such a thing
            with self.subTest(function=case):
                instance = self.concurrent(case)
                for _ in range(5):  # let it warm up: a first call may be slow enough to be flushed alone
                    instance.call_all([{}] * CONCURRENCY)
                before = instance.writes()
                answers = instance.call_all([{"n": n} for n in range(CONCURRENCY)])
                self.assertEqual({answer.kind for answer in answers}, {"response"})
                self.assertLessEqual(instance.writes() - before, CONCURRENCY // 4)

    def test_large_event_and_result(self):
        for mode in self.modes():
            instance = self.instance("echo", concurrency=mode)
            for size in (65_536, 262_142, 262_143, 262_144, 262_145, 1_000_000, SYNC_EVENT_BYTES_MAX):
                with self.subTest(size=size, concurrency=mode):
                    event = json.dumps("x" * (size - 2)).encode()
                    self.assertEqual(len(event), size)
                    answer = instance.call(event, raw=True)
                    expected = event if instance.exec_kind else event[1:-1]
                    self.assertEqual(len(answer.body), len(expected))
                    self.assertEqual(answer.body, expected)

    def test_parts_of_several_events_interleave(self):
        instance = self.concurrent("echo")
        events = [json.dumps(letter * 700_000).encode() for letter in "abc"]
        begun = [instance.begin(event, raw=True, send=False) for event in events]
        small = instance.begin({"small": 1}, send=False)
        frames = []
        for _, data in begun:
            pieces, data = [], bytearray(data)
            while data:
                size = 64 + int.from_bytes(data[24:28], "little") + int.from_bytes(data[28:32], "little")
                pieces.append(bytes(data[:size]))
                del data[:size]
            frames.append(pieces)
        order = [piece for pieces in zip(*frames) for piece in pieces]
        self.assertGreater(len(order), 6)
        order.insert(4, small[1])
        instance.send(b"".join(order))
        answers = instance.wait(small[0], *[invocation for invocation, _ in begun])
        for answer, event in zip(answers[1:], events):
            self.assertIn(answer.body, (event, event[1:-1]))

    def test_result_waits_for_credit_and_neighbours_do_not(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                instance = self.instance("echo", concurrency=mode)
                event = json.dumps("y" * 1_000_000).encode()
                invocation, data = instance.begin(event, raw=True, send=False)
                answer = instance.answers[invocation]
                answer.granted_by_hand = True
                instance.send(data)
                while len(answer.body) < wire.RESULT_CREDIT_BYTES:
                    instance.frame_for_invocation(instance.next_frame())
                self.assertIsNone(instance.next_frame(patience_s=0.05), "all credit is used")
                if mode:
                    self.assertEqual(instance.call([1]).value, [1])
                instance.grant(invocation, 10)  # an odd amount is allowed
                instance.frame_for_invocation(instance.next_frame())
                self.assertEqual(len(answer.body), wire.RESULT_CREDIT_BYTES + 10)
                instance.grant(invocation, 2_000_000)
                instance.wait(invocation)
                self.assertIn(answer.body, (event, event[1:-1]))
                # A window for an invocation that has been answered is late, not wrong.
                instance.send(wire.pack(wire.WINDOW, invocation, credit=65_536))
                self.assertEqual(instance.call([2]).value, [2])

    def test_largest_result_and_one_byte_more(self):
        instance = self.instance("large")
        self.assertEqual(len(instance.call({"n": RESULT_BYTES_MAX}).body), RESULT_BYTES_MAX)
        error = instance.call({"n": RESULT_BYTES_MAX + 1}).error
        self.assertEqual(error["errorType"], "Function.ResponseSizeTooLarge")

    # --- concurrency ------------------------------------------------------------------------------------

    def meet(self, case):
        instance = self.concurrent(case)
        for _ in range(2):  # once with a fresh process, once with threads that exist
            events = [{"n": instance.last_id + CONCURRENCY, "tag": f"tag{n}"} for n in range(CONCURRENCY)]
            for answer, event in zip(instance.call_all(events), events):
                self.assertEqual(answer.text, event["tag"])
                self.assertEqual(answer.stdout, f"before {event['tag']}\nafter {event['tag']}\n")
                self.assertEqual(answer.stderr, "")
        self.assertEqual(instance.read_log("stdout"), "")

    def test_64_calls_run_at_the_same_time_and_keep_their_lines(self):
        self.meet("meet")

    def test_64_calls_run_at_the_same_time_async(self):
        self.meet("meet_async")

    def test_fast_calls_pass_blocked_ones(self):
        for case in ("meet", "meet_async"):
            with self.subTest(function=case):
                instance = self.concurrent(case)
                stuck = [instance.begin({"n": 1000, "tag": "stuck"}) for _ in range(CONCURRENCY - 1)]
                for n in range(20):
                    self.assertEqual(instance.call({"n": 0, "tag": f"fast{n}"}).text, f"fast{n}")
                instance.begin({"n": 0, "tag": "last"})
                self.assertFalse(any(instance.answers[invocation].done for invocation in stuck))

    def test_cancel(self):
        for case in ("meet", "meet_async"):
            with self.subTest(function=case):
                instance = self.concurrent(case)
                cancelled = instance.begin({"n": 2, "tag": "cancelled"})
                while "before" not in instance.answers[cancelled].stdout:  # it is inside its handler now
                    instance.frame_for_invocation(instance.next_frame())
                instance.send(wire.pack(wire.CANCEL, cancelled))
                instance.send(wire.pack(wire.CANCEL, 999_999))  # long answered, or never known: ignored
                other = instance.begin({"n": 2, "tag": "other"})
                self.assertEqual(instance.wait(other)[0].text, "other")
                late = instance.answers[cancelled]
                if late.done:
                    self.assertIn(late.text if late.kind == "response" else late.error["errorType"], ("Runtime.Cancelled",))

    def test_cancel_of_an_event_in_parts_and_of_a_result_in_parts(self):
        instance = self.concurrent("echo")
        event = json.dumps("z" * 600_000).encode()
        first, data = instance.begin(event, raw=True, send=False)
        instance.send(data[:300_000])  # in the middle of a part
        instance.send(data[300_000:-100])
        rest = data[-100:]
        second = instance.begin([2], send=False)
        instance.send(rest + wire.pack(wire.CANCEL, first) + second[1])
        self.assertEqual(instance.wait(second[0])[0].value, [2])
        third, data = instance.begin(event, raw=True, send=False)
        instance.answers[third].granted_by_hand = True
        instance.send(data)
        while len(instance.answers[third].body) < wire.RESULT_CREDIT_BYTES:
            instance.frame_for_invocation(instance.next_frame())
        instance.send(wire.pack(wire.CANCEL, third))
        self.assertEqual(instance.call([4]).value, [4])

    # --- logs -------------------------------------------------------------------------------------------

    def test_exclusive_output_is_there_before_the_answer(self):
        instance = self.instance("logs")
        for n in range(20):
            instance.call({"tag": f"t{n}"})
            self.assertEqual(instance.read_log("stdout"), f"out t{n}\nunfinished t{n}")
            self.assertEqual(instance.read_log("stderr"), f"err t{n}\n")

    def test_concurrent_output_is_the_invocations_own(self):
        instance = self.concurrent("logs")
        answers = instance.call_all([{"tag": f"t{n}"} for n in range(CONCURRENCY)])
        for n, answer in enumerate(answers):
            self.assertEqual(answer.text, "logged")
            self.assertEqual(answer.stdout, f"out t{n}\nunfinished t{n}\n")
            self.assertEqual(answer.stderr, f"err t{n}\n")
        self.assertEqual(instance.read_log("stdout") + instance.read_log("stderr"), "")

    # --- health -----------------------------------------------------------------------------------------

    def pinged(self, case, **options):
        """A started instance of a runtime that promises to answer pings; one that does not, skips the test."""
        instance = self.instance(case, **options)
        if "ping" not in instance.ready.get("features", []):
            self.skipTest(f"{self.name} does not promise to answer pings")
        return instance

    def assert_pong(self, instance):
        frame = instance.next_frame()
        self.assertEqual((frame.kind, frame.flags, frame.invocation, frame.body), (wire.PONG, 0, 0, b""))

    def test_each_ping_has_an_answer_between_calls_too(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                instance = self.pinged("hello", concurrency=mode)
                for pings in (1, 3):
                    instance.send(wire.pack(wire.PING) * pings)
                    for _ in range(pings):
                        self.assert_pong(instance)
                    self.assertTrue(instance.call({}).text)

    def test_a_ping_is_answered_before_a_handler_that_stands_behind_it_has_run(self):
        for mode in self.modes():
            with self.subTest(concurrency=mode):
                # It blocks its thread for longer than a frame is waited for.
                instance = self.pinged("block", concurrency=mode)
                instance.send(wire.pack(wire.PING) + wire.pack_invoke(1, b'{"seconds":600}'))
                self.assert_pong(instance)

    # --- the end ----------------------------------------------------------------------------------------

    def test_shutdown_and_end_of_file(self):
        for mode in self.modes():
            for how in ("shutdown", "eof"):
                for started in (True, False):
                    with self.subTest(how=how, concurrency=mode, started=started):
                        instance = self.instance("hello", concurrency=mode, start=started)
                        if started:
                            instance.call({})
                        if how == "shutdown":
                            instance.send(wire.pack(wire.SHUTDOWN))
                        else:
                            instance.channel.shutdown(2)
                        self.assertEqual(instance.wait_exit(), 0, instance.read_log("stderr"))

    def test_end_of_file_while_handlers_are_blocked(self):
        for case in ("meet", "meet_async"):
            with self.subTest(function=case):
                instance = self.concurrent(case)
                for n in range(5):
                    instance.begin({"n": 1000, "tag": str(n)})
                instance.call({"n": 0, "tag": "x"})
                instance.channel.shutdown(2)
                self.assertEqual(instance.wait_exit(), 0)

    def test_garbage_ends_the_process(self):
        for mode in self.modes():
            for garbage in (b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" * 10, bytes(200), wire.pack(77) * 3):
                with self.subTest(garbage=garbage[:8], concurrency=mode):
                    instance = self.instance("hello", concurrency=mode)
                    instance.send(garbage)
                    self.assertNotEqual(instance.wait_exit(), 0)


def load_tests(loader, standard, pattern):
    """One class for each folder that has a runtime.toml."""
    suite = unittest.TestSuite()
    for toml in sorted(RUNTIMES_DIR.glob("*/runtime.toml")):
        name = toml.parent.name
        suite.addTests(loader.loadTestsFromTestCase(type(f"Conformance_{name}", (Conformance, unittest.TestCase), {"name": name})))
    return suite


if __name__ == "__main__":
    unittest.main()
