#!/usr/bin/python3
"""Replays FaaSter's recorded answers (tests/golden) against an engine and prints how the answers differ.

Without arguments it starts an engine of its own. `--controller HOST:PORT --registry HOST:PORT` names one that runs;
it must be fresh: the record's functions are created and some are deleted. Cases run in the record's order, for some
depend on earlier ones. Exit code 1 if an answer differs.
"""

import argparse
import base64
import http.client
import json
import re
import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))

from support.node import Node, zipped  # noqa: E402
from support.wait import PATIENCE_S, until  # noqa: E402

GOLDEN = Path(__file__).resolve().parent / "golden"
RECORD = json.loads((GOLDEN / "cases.json").read_text())
ACCOUNT = "df391b08c64c426a81645468c75163a5"

# What every answer has and no case is about.
UNCHECKED = {"server", "date", "connection", "content-length"}
UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}"
DURATION = r"(?:\d+h)?(?:\d+m)?\d+(?:\.\d+)?m?s"
MASKS = {
    "any": r"(?s:.*)",
    "uuid": UUID,
    "ms": r"\d+\.\d{3}",
    "int": r"\d+",
    "bool": r"(?:true|false)",
    "time": r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(?:\.\d+)?Z",
    "sha256": r"[A-Za-z0-9+/]{43}=",
    "base64": r"[A-Za-z0-9+/]+=*",
    "path": r"/[^\"]+",
}


class Server:
    """Where the engine is: one of ours for the time of the run, or a given one."""

    node = None
    controller = registry = None
    # Values that a case took for later ones.
    captured = {}

    @classmethod
    def start(cls):
        if cls.controller is None:
            cls.node = Node("--pool=nodejs=4,python3=1,ruby=0,provided=0")
            cls.node.start()
            cls.controller, cls.registry = cls.node.controller, cls.node.registry

    @classmethod
    def stop(cls):
        if cls.node is not None:
            cls.node.__exit__(None, None, None)


class Answer:
    def __init__(self, response):
        self.status = response.status
        self.headers = response.getheaders()
        self.body = response.read()

    def header(self, name):
        return next((value for held, value in self.headers if held == name), None)


def send(port, method, path, headers, body):
    """One request with these headers and no others but Host and Content-Length."""
    address = Server.registry if port == "registry" else Server.controller
    connection = http.client.HTTPConnection(address, timeout=PATIENCE_S)
    try:
        connection.putrequest(method, path, skip_accept_encoding=True)
        for name, value in headers.items():
            connection.putheader(name, value)
        if body is not None:
            connection.putheader("Content-Length", str(len(body)))
        connection.endheaders(body)
        return Answer(connection.getresponse())
    finally:
        connection.close()


def filled(text, answer=None):
    """A text of a case with captured values in it."""
    values = {"controller": Server.controller, **Server.captured}
    if answer is not None:
        values["id"] = answer.header("X-Easyfaas-Request-Id") or "<no request id>"
    for name, value in values.items():
        text = text.replace(f"<<{name}>>", value)
    return text


def matches(template, text, answer=None):
    """Whether a text is as the template says; `<<name>>` stands for whatever fits the mask."""
    parts = re.split(r"<<(\w+)>>", filled(template, answer))
    pattern = "".join(MASKS[part] if at % 2 else re.escape(part) for at, part in enumerate(parts))
    return re.fullmatch(pattern, text) is not None


def at_path(value, path):
    for part in path.split("."):
        value = value[int(part)] if isinstance(value, list) else value[part]
    return value


def milliseconds(text):
    """A duration as Go writes it."""
    units = {"h": 3_600_000, "m": 60_000, "s": 1000, "ms": 1}
    return sum(float(number) * units[unit] for number, unit in re.findall(r"([\d.]+)(ms|h|m|s)", text))


class Conformance(unittest.TestCase):
    maxDiff = None

    @classmethod
    def setUpClass(cls):
        Server.start()
        cls.addClassCleanup(Server.stop)
        for function in RECORD["functions"]:
            files = {path.name: path.read_bytes() for path in (GOLDEN / "functions" / function["code"]).iterdir()}
            body = {**function["settings"], "Code": base64.b64encode(zipped(files)).decode()}
            path = f"/v1/functions/{function['name']}"
            answer = send("registry", "POST", path, {"X-easyfaas-Account-Id": ACCOUNT}, json.dumps(body).encode())
            assert answer.status == 200, f"{function['name']}: {answer.status} {answer.body!r}"

    def replay(self, case):
        request, expect = case["request"], case["expect"]
        body = request.get("body")
        body = None if body is None else body.encode()
        if "filler" in case:
            body = b'{"a":"' + b"x" * (case["filler"] - 8) + b'"}'

        def ask():
            return send(case["port"], request["method"], filled(request["path"]), request["headers"], body)

        answer = ask()
        if "until_contains" in case:
            def printed():
                again = ask()
                return again if case["until_contains"] in again.body.decode() else None

            answer = until(printed, f"{case['until_contains']} in {request['path']}")
        text = answer.body.decode(errors="replace")
        self.assertEqual(answer.status, expect["status"], text[:2000])
        if not case.get("any_headers"):
            self.check_headers(expect["headers"], answer)
        self.check_body(expect, text, answer)
        self.check_special(case, text, answer, body)
        version = re.search(r":(\$LATEST|\d+)/invocations", request["path"])
        if "log" in expect:
            tail = base64.b64decode(answer.header("X-Bce-Log-Result")).decode()
            self.check_tail(expect["log"], tail, version.group(1), answer)
        if "log_to_body" in expect:
            shown = json.loads(text)
            self.assertEqual(list(shown), ["LogResult", "Payload"])
            self.check_tail(expect["log_to_body"], shown["LogResult"], version.group(1), answer)

    def check_headers(self, expected, answer):
        got = {name: value for name, value in answer.headers if name.lower() not in UNCHECKED}
        # Ours, after cold starts: which case has one depends on the cases before it. test_scheduling.py looks at it.
        got.pop("Server-Timing", None)
        self.assertEqual(sorted(got), sorted(expected), "names of headers, spelling included")
        for name, template in expected.items():
            if not matches(template, got[name], answer):
                self.fail(f"header {name}\n  expected {template}\n  got      {got[name]}")

    def check_body(self, expect, text, answer):
        if "body" in expect and not matches(expect["body"], text, answer):
            self.fail(f"body\n  expected {filled(expect['body'], answer)}\n  got      {text[:4000]}")
        if "contains" in expect:
            self.assertIn(expect["contains"], text)
        if "length" in expect:
            self.assertEqual(len(answer.body), expect["length"])
        for path, template in expect.get("json", {}).items():
            value = at_path(json.loads(text), path)
            if not matches(template, str(value), answer):
                self.fail(f"member {path}\n  expected {template}\n  got      {value}")

    def check_special(self, case, text, answer, body):
        if case.get("echo"):
            self.assertEqual(len(answer.body), len(body))
            self.assertTrue(answer.body == body, "the echo is not what was sent")
        if "each" in case:
            entries = json.loads(text)
            self.assertTrue(entries)
            # As text, so that the order of members counts.
            for entry in entries:
                shown = json.dumps(entry, separators=(",", ":"))
                if not matches(case["each"], shown):
                    self.fail(f"entry\n  expected {case['each']}\n  got      {shown}")
            self.assertEqual(text, json.dumps(entries, separators=(",", ":")))
        for name, what in case.get("capture", {}).items():
            Server.captured[name] = self.runtime_of(what["of"], json.loads(text))
        if "gone_or_abnormal" in case:
            runtime = filled(case["gone_or_abnormal"])
            left = [entry for entry in json.loads(text) if entry["RuntimeID"] == runtime and not entry["abnormal"]]
            # The slot may have been used again meanwhile; then it holds another life of it.
            self.assertFalse([entry for entry in left if entry["used"]], left)
        if "length_of" in case:
            whole = send(case["port"], "GET", case["length_of"], case["request"]["headers"], None)
            self.assertEqual(answer.header("Content-Length"), str(len(whole.body)))

    def runtime_of(self, name, entries):
        path = f"/v1/functions/{name}?Qualifier=1"
        shown = json.loads(send("registry", "GET", path, {"X-easyfaas-Account-Id": ACCOUNT}, None).body)
        commit = shown["Configuration"]["CommitId"]
        found = [entry["RuntimeID"] for entry in entries if (entry["State"], entry["CommitID"]) == ("warm", commit)]
        self.assertTrue(found, f"no warm container of {name} in {entries}")
        return found[0]

    def check_tail(self, expected, tail, version, answer):
        request_id = answer.header("X-Easyfaas-Request-Id")
        *lines, end, report = tail.split("\n")
        self.assertEqual(lines[0], f"START RequestID: {request_id} Version: {version}")
        self.assertEqual(end, f"END RequestID: {request_id}\tMemory Spec Size: 128MB")
        numbers = re.fullmatch(
            rf"REPORT RequestID: {re.escape(request_id)}\tDuration: ({DURATION})\tBilled Duration: ({DURATION})"
            r"\tMax Memory Used: (\d+(?:\.\d)?[BKMGT])", report)
        self.assertTrue(numbers, report)
        duration, billed = milliseconds(numbers.group(1)), milliseconds(numbers.group(2))
        self.assertEqual(billed, -(-duration // 100) * 100, report)
        # Node's timers count whole milliseconds: one may fire up to a millisecond early.
        self.assertGreaterEqual(duration, expected.get("duration_ms_min", 0) - 1, report)
        self.assertGreaterEqual(billed, expected.get("billed_ms_min", 0), report)
        if "clipped" in expected:
            self.assertIn(expected["first"], lines[1])
            kept = tail.index("END RequestID: ")
            # A line that is cut through gets a line feed of its own.
            self.assertIn(kept, (expected["clipped"], expected["clipped"] + 1))
            return
        # Runtimes may put a time and an id before a line; standard output and error may come in either order.
        printed = sorted(lines[1:], key=lambda line: [line.endswith(text) for text in expected["lines"]], reverse=True)
        self.assertEqual(len(printed), len(expected["lines"]), tail)
        for line, text in zip(printed, expected["lines"]):
            self.assertTrue(line.endswith(text), f"{text!r} is not in {tail!r}")


def add_test(at, case):
    def test(self):
        self.replay(case)

    words = re.sub(r"\W+", "_", case["title"]).strip("_")
    test.__doc__ = f"{case['case']}: {case['title']}" + (f" (differs: {case['differs']})" if "differs" in case else "")
    # unittest sorts by name.
    setattr(Conformance, f"test_{at:03}_case_{case['case']}_{words}", test)


for position, one in enumerate(RECORD["cases"]):
    add_test(position, one)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--controller", metavar="HOST:PORT")
    parser.add_argument("--registry", metavar="HOST:PORT")
    given, rest = parser.parse_known_args()
    if (given.controller is None) != (given.registry is None):
        parser.error("give both --controller and --registry, or none")
    Server.controller, Server.registry = given.controller, given.registry
    unittest.main(argv=[sys.argv[0], *rest])


if __name__ == "__main__":
    main()
