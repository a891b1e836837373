"""What is special to the nodejs runtime: styles of handlers, ES modules, crashes outside of promises, standard output."""
import json
import threading
import unittest

from engine import Ended, Instance, Runtime, Unavailable

CONCURRENCY = 64


class Nodejs(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.runtime = Runtime.find("nodejs")
        except Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from None

    def instance(self, case, **options):
        opened = Instance(self.runtime, case, **options)
        opened.__enter__()
        self.addCleanup(opened.__exit__)
        return opened

    def test_es_modules(self):
        self.assertEqual(self.instance("esm").call({"tag": "t"}).text, "esm ready t")
        instance = self.instance("esm_package")
        self.assertEqual(instance.call({}).text, "function")
        self.assertEqual(instance.read_log("stdout"), "loading\n")
        broken = self.instance("esm_syntax", start=False)
        broken.load()
        self.assertEqual(broken.wait_load_error()["errorType"], "Runtime.UserCodeSyntaxError")

    def test_styles_of_results(self):
        expected = {
            "callback": b'{"from":"callback"}',
            "late_callback": b"late",
            "twice": b"first",
            "succeed": b"succeeded",
            "done": b"[1]",
            "promise": b"promised",
            "undefined": b"null",
            "buffer": b"\x00\xff\x01",
        }
        for concurrency in (0, CONCURRENCY):
            instance = self.instance("styles", concurrency=concurrency)
            for style, body in expected.items():
                with self.subTest(style=style, concurrency=concurrency):
                    self.assertEqual(instance.call({"style": style}).body, body)

    def test_handlers_by_their_own_number_of_parameters(self):
        for style, body in {"value": b"returned", "nothing": b"null", "done": b"[1]", "deep.inside": b"deep"}.items():
            with self.subTest(style=style):
                self.assertEqual(self.instance("styles", handler=f"index.{style}").call({}).body, body)

    def test_styles_of_errors(self):
        instance = self.instance("styles")
        self.assertEqual(instance.call({"style": "string_error"}).body, b'{"errorMessage":"string error"}')
        self.assertEqual(instance.call({"style": "thrown_text"}).body, b'{"errorMessage":"text"}')
        self.assertEqual(
            instance.call({"style": "thrown_object"}).error, {"errorMessage": "an object", "errorType": "Odd", "stackTrace": []}
        )
        self.assertEqual(instance.call({"style": "thrown_null"}).error["errorMessage"], "null")
        for style, error_type in (("late_error", "RangeError"), ("fail", "TypeError")):
            error = instance.call({"style": style}).error
            self.assertEqual(error["errorType"], error_type)
            self.assertIn("index.js", error["stackTrace"][0])
        self.assertEqual(instance.call({"style": "bigint"}).error["errorType"], "Runtime.MarshalError")

    def test_context_as_json_is_what_faaster_shows(self):
        body = self.instance("styles").call({"style": "context"}, meta={"requestId": "id"}).text
        brn = "brn:cloud:faas:bj:8f6e5a28c663957ea04522547a66d08f:function:conformance:7"
        self.assertEqual(
            [list(pair) for pair in json.loads(body, object_pairs_hook=list)],
            [["requestId", "id"], ["functionBrn", brn], ["functionName", "conformance"], ["functionVersion", "7"], ["memoryLimitInMB", 128]],
        )

    def test_a_handler_that_can_never_answer_is_answered_null(self):
        instance = self.instance("styles")
        for style in ("never", "empties", "never"):
            self.assertEqual(instance.call({"style": style}).body, b"null")
        self.assertEqual(instance.call({"style": "promise"}).body, b"promised")

    def test_crash_answers_what_is_in_flight_and_ends_the_process(self):
        expected = {
            "throw": ("RangeError", "thrown late"),
            "reject": ("Runtime.UnhandledPromiseRejection", "rejected"),
            "reject text": ("Runtime.UnhandledPromiseRejection", "text"),
        }
        for concurrency in (0, CONCURRENCY):
            for how, (error_type, message) in expected.items():
                with self.subTest(how=how, concurrency=concurrency):
                    instance = self.instance("crash", concurrency=concurrency)
                    neighbours = [instance.begin({"how": ""}) for _ in range(3 if concurrency else 0)]
                    for answer in instance.wait(instance.begin({"how": how}), *neighbours):
                        self.assertEqual(answer.error["errorType"], error_type)
                        self.assertEqual(answer.error["errorMessage"], message)
                    with self.assertRaises(Ended):
                        instance.next_frame()
                    self.assertNotEqual(instance.wait_exit(), 0)

    def test_more_output_than_a_pipe_holds_is_complete_before_the_answer(self):
        instance = self.instance("chatty")
        taken = bytearray()
        stop = threading.Event()

        def read():
            while not stop.wait(0.001):
                taken.extend(instance.stdout.read(1 << 16) or b"")

        reader = threading.Thread(target=read)
        reader.start()
        try:
            instance.call({"lines": 5000})
        finally:
            stop.set()
            reader.join()
        taken.extend(instance.stdout.read(1 << 20) or b"")
        self.assertEqual(bytes(taken), (b"x" * 99 + b"\n") * 5000)

    def test_lines_are_attributed_across_awaits(self):
        instance = self.instance("awaits", concurrency=CONCURRENCY)
        for n, answer in enumerate(instance.call_all([{"tag": f"t{n}"} for n in range(CONCURRENCY)])):
            self.assertEqual(answer.stdout, f"one t{n}\ntwo t{n}\nfour t{n}\n")
            self.assertEqual(answer.stderr, f"three t{n}\n")


if __name__ == "__main__":
    unittest.main()
