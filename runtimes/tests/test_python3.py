"""What is special to the python3 runtime: its loader, asyncio, threads, logging, kinds of results."""
import random
import unittest

import wire
from engine import Instance, Runtime, Unavailable

CONCURRENCY = 64


class Python3(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        try:
            cls.runtime = Runtime.find("python3")
        except Unavailable as reason:
            raise unittest.SkipTest(str(reason)) from None

    def instance(self, case, **options):
        opened = Instance(self.runtime, case, **options)
        opened.__enter__()
        self.addCleanup(opened.__exit__)
        return opened

    def test_own_modules_may_have_names_of_primed_ones(self):
        self.assertEqual(self.instance("own_names").call({}).value, ["my csv", "my queue"])

    def test_a_seed_that_a_module_sets_holds(self):
        self.assertEqual(self.instance("seeded").call({}).value, random.Random(7).randrange(1 << 30))

    def test_prints_from_threads_are_attributed(self):
        instance = self.instance("threads", concurrency=CONCURRENCY)
        answers = instance.call_all([{"tag": f"t{n}"} for n in range(CONCURRENCY)])
        for n, answer in enumerate(answers):
            self.assertEqual(answer.stdout, f"thread t{n}\npool t{n}\n")

    def test_async_handlers_live_in_a_task(self):
        for concurrency in (0, CONCURRENCY):
            with self.subTest(concurrency=concurrency):
                instance = self.instance("tasks", concurrency=concurrency)
                if not concurrency:
                    self.assertEqual(instance.call({"tag": "t"}).text, "t")
                    self.assertEqual(sorted(instance.read_log("stdout").splitlines()), ["child t", "child t", "to_thread t"])
                    continue
                answers = instance.call_all([{"tag": f"t{n}"} for n in range(CONCURRENCY)])
                for n, answer in enumerate(answers):
                    self.assertEqual(answer.text, f"t{n}")
                    self.assertEqual(sorted(answer.stdout.splitlines()), [f"child t{n}", f"child t{n}", f"to_thread t{n}"])

    def test_cancel_ends_a_task(self):
        instance = self.instance("tasks", concurrency=CONCURRENCY)
        invocation = instance.begin({"tag": "t", "forever": True})
        instance.call({"tag": "other"})
        instance.send(wire.pack(wire.CANCEL, invocation))
        self.assertEqual(instance.wait(invocation)[0].error["errorType"], "Runtime.Cancelled")

    def test_logging_without_configuration_shows_info_lines(self):
        instance = self.instance("logging", concurrency=CONCURRENCY)
        answer = instance.call({"tag": "a"}, meta={"requestId": "id-9"})
        self.assertRegex(answer.stderr, r"^\[INFO\]\t\d{4}-\d\d-\d\dT[\d:.]+Z\tid-9\tseen a\n$")

    def test_kinds_of_results(self):
        instance = self.instance("result_kinds")
        self.assertEqual(instance.call({"kind": "bytes"}).body, b"\x00\xff raw")
        self.assertEqual(instance.call({"kind": "decimal"}).body, b'{"a":2,"b":2.5}')
        self.assertEqual(instance.call({"kind": "tuple"}).body, b'[1,"a"]')
        self.assertEqual(instance.call({"kind": "awaitable"}).body, b"awaited")

    def test_stack_of_an_import_error_shows_the_users_line(self):
        instance = self.instance("loadraise", start=False)
        instance.load()
        error = instance.wait_load_error()
        self.assertEqual(error["errorType"], "RuntimeError")
        self.assertEqual(len(error["stackTrace"]), 1)
        self.assertIn("index.py", error["stackTrace"][0])

    def test_printing_finalizers_do_not_block_the_runtime(self):
        instance = self.instance("finalizer", concurrency=CONCURRENCY)
        for _ in range(40):
            for answer in instance.call_all([{}] * CONCURRENCY):
                self.assertEqual(answer.value, [[n] for n in range(20)])

    def test_slow_and_fast_calls_mixed_all_get_answers(self):
        """Runs through the crew's changes between batch and spread: an answer lost or doubled would show."""
        instance = self.instance("sleep", concurrency=CONCURRENCY)
        for shift in range(30):
            events = [{"ms": (n + shift) % 7 if (n * shift) % 3 == 0 else 0} for n in range(CONCURRENCY)]
            for answer, event in zip(instance.call_all(events), events):
                self.assertEqual(answer.value, event["ms"])


if __name__ == "__main__":
    unittest.main()
