"""What functions print: the tail of one call is exactly that call's, and nothing that is printed does harm."""

import json
import os
import signal
import unittest

from support.deploy import Call, EngineCase, answers, get_json, log_of, printed, source, tail_of
from support.http_client import request
from support.node import Node
from support.wait import timeout, until

TAIL = {"Log-Type": "Tail"}
TAIL_BYTES_MAX = 4096


class LogTest(EngineCase):
    POOL = {"python3": 2, "nodejs": 1, "ruby": 0, "provided": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        for language in ("python3", "nodejs"):
            cls.deploy(f"talk-{language}", source("talk", language), runtime=language, Timeout=30)
            cls.deploy(f"crowd-{language}", source("talk", language), runtime=language, Timeout=30, PodConcurrentQuota=64)

    def lines(self, answer):
        """What a call printed, without what Node puts before each line."""
        return [line.rsplit("\t", 1)[-1] for line in printed(answer)]

    def test_the_form_of_a_tail(self):
        for name in ("talk-python3", "talk-nodejs", "crowd-python3", "crowd-nodejs"):
            with self.subTest(name):
                answer = self.good(self.node.invoke(name, {"lines": 1, "tag": "t", "err": "to standard error"}, headers=TAIL))
                self.assertEqual(answer.text, "talked")
                request_id = answer.headers["X-Easyfaas-Request-Id"]
                first, *middle, end, report = tail_of(answer).split("\n")
                self.assertEqual(first, f"START RequestID: {request_id} Version: $LATEST")
                self.assertEqual(sorted(line.rsplit("\t", 1)[-1].strip() for line in middle), ["line 0 of t", "to standard error"])
                self.assertEqual(end, f"END RequestID: {request_id}\tMemory Spec Size: 128MB")
                self.assertRegex(report, rf"^REPORT RequestID: {request_id}\tDuration: \d+(ms|s|\.\d+m?s)\tBilled Duration: \d+(ms|s|\.\d+s)"
                                         r"\tMax Memory Used: [\d.]+[KM]?$")

    def test_nobody_who_does_not_ask_gets_one(self):
        answer = self.good(self.node.invoke("talk-python3", {"lines": 1}))
        self.assertIsNone(answer.headers["X-Bce-Log-Result"])

    def test_a_tail_holds_its_own_call_and_no_other(self):
        for name in ("talk-python3", "talk-nodejs"):
            for number in range(20):
                answer = self.good(self.node.invoke(name, {"lines": 2, "tag": str(number)}, headers=TAIL))
                self.assertEqual([line.strip() for line in self.lines(answer)], [f"line {n} of {number}" for n in (0, 1)])

    def test_lines_between_calls_belong_to_none(self):
        self.good(self.node.invoke("talk-python3", {"late": "bird"}))
        until(lambda: "late bird" in log_of(self.node, "talk-python3"), "the late line")
        for number in range(3):
            answer = self.good(self.node.invoke("talk-python3", {"lines": 1, "tag": str(number), "late": "again"}, headers=TAIL))
            self.assertLessEqual(set(map(str.strip, self.lines(answer))), {f"line 0 of {number}"})

    def test_calls_that_run_at_once_are_told_apart(self):
        for name in ("crowd-python3", "crowd-nodejs"):
            with self.subTest(name):
                calls = [Call(self.node, name, {"meet": 16, "lines": 12, "tag": f"<{number}>"}, headers=TAIL) for number in range(16)]
                for number, answer in enumerate(answers(calls)):
                    self.good(answer)
                    self.assertEqual([line.strip() for line in self.lines(answer)], [f"line {n} of <{number}>" for n in range(12)])

    def test_200_lines_are_cut_at_4_kilobytes(self):
        for name in ("talk-python3", "talk-nodejs", "crowd-python3", "crowd-nodejs"):
            with self.subTest(name):
                answer = self.good(self.node.invoke(name, {"lines": 200, "tag": "many", "width": 40}, headers=TAIL))
                lines = self.lines(answer)
                size = len("\n".join(printed(answer)))
                self.assertTrue(TAIL_BYTES_MAX - 200 <= size <= TAIL_BYTES_MAX + 1, size)
                self.assertEqual(lines[0].strip(), "line 0 of many " + "x" * 40)
                self.assertLess(len(lines), 100)
                for number, line in enumerate(lines[:-1]):
                    self.assertTrue(line.startswith(f"line {number} of many"))

    def test_a_line_of_a_megabyte_stops_nothing(self):
        for name in ("talk-python3", "talk-nodejs", "crowd-python3", "crowd-nodejs"):
            with self.subTest(name):
                answer = self.good(self.node.invoke(name, {"long": 1 << 20}, headers=TAIL))
                self.assertTrue(TAIL_BYTES_MAX - 200 <= len("\n".join(printed(answer))) <= TAIL_BYTES_MAX + 1)
                answer = self.good(self.node.invoke(name, {"lines": 1, "tag": "after"}, headers=TAIL))
                self.assertEqual([line.strip() for line in self.lines(answer)], ["line 0 of after"])
                until(lambda: "line 0 of after" in log_of(self.node, name), "the line after it in the log")

    def test_twenty_megabytes_stop_nothing(self):
        answer = self.good(self.node.invoke("talk-python3", {"lines": 20_000, "width": 1000, "tag": "flood"}, headers=TAIL))
        self.assertEqual(answer.text, "talked")
        answer = self.good(self.node.invoke("talk-python3", {"lines": 1, "tag": "after the flood"}, headers=TAIL))
        self.assertEqual([line.strip() for line in self.lines(answer)], ["line 0 of after the flood"])
        until(lambda: "after the flood" in log_of(self.node, "talk-python3"), "the line after it in the log")

    def test_bytes_that_are_no_text(self):
        answer = self.good(self.node.invoke("talk-python3", {"bytes": "ff00fe0a41c3280a"}, headers=TAIL))
        self.assertEqual(printed(answer)[-1][:1], "A")
        until(lambda: "A" in log_of(self.node, "talk-python3"), "the bytes in the log")

    def test_a_call_that_fails_has_its_tail(self):
        for name in ("talk-python3", "crowd-python3"):
            answer = self.node.invoke(name, {"lines": 1, "tag": "x", "raise": "boom"}, headers=TAIL)
            self.assertEqual(self.failed(answer)["errorMessage"], "boom")
            self.assertEqual(self.lines(answer), ["line 0 of x "])

    def test_a_call_that_times_out_has_its_tail_and_its_time(self):
        code = "import time\ndef handler(event, context):\n    print('start')\n    time.sleep(60)\n    print('end')\n"
        for name, quota in (("late-alone", 0), ("late-shared", 8)):
            with self.subTest(name):
                self.deploy(name, code, Timeout=timeout(1), PodConcurrentQuota=quota)
                answer = self.node.invoke(name, headers=TAIL)
                self.assertIn(f"Task timed out after {timeout(1)} seconds", self.failed(answer)["errorMessage"])
                self.assertEqual(printed(answer), ["start"])
                self.assertRegex(tail_of(answer), rf"Duration: {timeout(1)}(\.\d+)?s\tBilled Duration: {timeout(1)}(\.\d+)?s")

    def test_a_call_that_ends_its_process_has_its_tail(self):
        self.deploy("dies", "import os\ndef handler(event, context):\n    print('last words', flush=True)\n    os._exit(3)\n")
        answer = self.node.invoke("dies", headers=TAIL)
        self.lost(answer)
        self.assertEqual(printed(answer), ["last words", "Runtime exited with error: exit status 3"])

    def test_what_is_printed_while_loading_belongs_to_the_first_call(self):
        self.deploy("loads", "print('at load')\ndef handler(event, context):\n    print('in call')\n")
        self.assertEqual(printed(self.good(self.node.invoke("loads", headers=TAIL))), ["at load", "in call"])
        self.assertEqual(printed(self.good(self.node.invoke("loads", headers=TAIL))), ["in call"])

    def test_ways_to_ask_for_it(self):
        for headers, query, expected in (
            ({"Log-Type": "tail"}, "", True), ({}, "&logType=Tail", True), ({"Log-Type": "none"}, "", False), ({"Log-Type": "bogus"}, "", False),
            ({"X-Bce-Log-Type": "Tail"}, "", False),
        ):
            with self.subTest(headers=headers, query=query):
                path = "/v1/functions/talk-python3/invocations?Qualifier=$LATEST" + query
                answer = request(self.node.controller, "POST", path, b'{"lines":1}', headers)
                self.assertEqual(answer.headers["X-Bce-Log-Result"] is not None, expected)

    def test_the_log_in_the_body(self):
        path = "/v1/functions/talk-python3/invocations?Qualifier=$LATEST"
        answer = request(self.node.controller, "POST", path, b'{"lines":1,"tag":"\xe2\x98\x83"}', {"Log-To-Body": "true", **TAIL})
        self.assertEqual(answer.headers["Content-Type"], "application/json; charset=utf-8")
        body = answer.json()
        self.assertEqual((body["Payload"], "FunctionError" in body), ("talked", False))
        self.assertIn("line 0 of ☃", body["LogResult"])
        answer = request(self.node.controller, "POST", path + "&logToBody=true", b"{}")
        self.assertEqual(answer.text, '{"Payload":"talked"}')
        failed = request(self.node.controller, "POST", path, b'{"raise":"x"}', {"Log-To-Body": "true"}).json()
        self.assertEqual((failed["FunctionError"], json.loads(failed["Payload"])["errorMessage"]), ("Unhandled", "x"))

    def test_the_log_of_a_function(self):
        self.deploy("logged", source("talk"))
        ids = {}
        for number in range(3):
            answer = self.good(self.node.invoke("logged", {"lines": 2, "tag": str(number)}))
            ids[number] = answer.headers["X-Easyfaas-Request-Id"]
        until(lambda: "line 1 of 2" in log_of(self.node, "logged"), "all lines")
        found = [line.split(" ", 2)[1:] for line in log_of(self.node, "logged").splitlines()]
        self.assertEqual([[one, text.strip()] for one, text in found], [[ids[n], f"line {m} of {n}"] for n in range(3) for m in range(2)])

    def test_logs_of_calls_that_run_at_once_have_their_requests(self):
        self.deploy("attributed", source("talk"), PodConcurrentQuota=8, Timeout=30)
        calls = [Call(self.node, "attributed", {"meet": 8, "lines": 3, "tag": f"<{n}>"}) for n in range(8)]
        ids = {f"<{n}>": self.good(answer).headers["X-Easyfaas-Request-Id"] for n, answer in enumerate(answers(calls))}
        until(lambda: log_of(self.node, "attributed").count("line 2 of") == 8, "all lines")
        for line in log_of(self.node, "attributed").splitlines():
            _, request_id, text = line.split(" ", 2)
            self.assertEqual(request_id, ids[text.split()[-1]], line)


class RestartTest(unittest.TestCase):
    def lines(self, node):
        """What the command line shows of the function, in order."""
        ended = node.cli("logs", "says")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return [line.rsplit(" ", 1)[-1] for line in ended.stdout.splitlines()]

    def say(self, node, word, lines):
        """Calls until a call is answered; each prints its word."""
        until(lambda: self.said(node, word), "an answer")
        until(lambda: self.lines(node) == lines, f"the log {lines}")

    @staticmethod
    def said(node, word):
        try:
            return node.invoke("says", {"word": word}).status == 200
        except OSError:
            return False

    def test_lines_outlast_the_engine_that_kept_them(self):
        with Node("--pool=python3=1,nodejs=0,ruby=0,provided=0") as node:
            node.deploy("says", "def handler(event, context):\n    print(event['word'])\n", Timeout=timeout(20))
            self.say(node, "one", ["one"])
            self.say(node, "two", ["one", "two"])
            until(lambda: get_json(node.controller, "/v1/node")["LogDisk"]["Bytes"] > 0, "lines on disk")
            old = node.engine_pid()
            pidfd = os.pidfd_open(old)
            signal.pidfd_send_signal(pidfd, signal.SIGKILL)
            os.close(pidfd)
            until(lambda: node.engine_pid() != old, "another engine")
            until(lambda: self.answers(node), "an engine that answers")
            self.assertEqual(self.lines(node), ["one", "two"])
            self.say(node, "three", ["one", "two", "three"])
            # Whoever follows sees what is new, once.
            page = get_json(node.controller, "/v1/functions/says/logs")
            self.assertEqual([entry["Text"] for entry in page["Entries"]], ["one\n", "two\n", "three\n"])
            more = get_json(node.controller, f"/v1/functions/says/logs?since={page['Cursor']}")
            self.assertEqual(more["Entries"], [])
            # Over a stop and a start as well.
            self.assertEqual(node.stop(), 0)
            node.start()
            self.assertEqual(self.lines(node), ["one", "two", "three"])
            other = get_json(node.controller, "/v1/functions/says/logs?Qualifier=7")
            self.assertEqual(other["Entries"], [])

    @staticmethod
    def answers(node):
        try:
            return request(node.controller, "GET", "/readyz").status == 200
        except OSError:
            return False


if __name__ == "__main__":
    unittest.main()
