"""The load generator without an engine: signatures, phases, the live line, and the report in a browser."""

import base64
import hashlib
import hmac
import io
import json
import os
import pty
import re
import select
import signal
import struct
import subprocess
import tempfile
import threading
import time
import unittest
import urllib.parse
import zipfile
import zlib
from pathlib import Path

from support.loadgen import FAILED, INVALID, REFUSED, Recorder, loadgen, measured, program, start
from support.wait import PATIENCE_S, until

CHROMIUM = Path("/usr/bin/chromium")
CREDENTIALS = {"AWS_ACCESS_KEY_ID": "AKIDEXAMPLE", "AWS_SECRET_ACCESS_KEY": "wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY"}
# What servers allow (docs.aws.amazon.com, "Signing AWS API requests").
SKEW_S = 300


# --- signatures -------------------------------------------------------------------------------------------


def digest(key, text):
    return hmac.new(key, text.encode(), hashlib.sha256).digest()


def verified(asked, secret, token=None):
    """Whether a request bears a good signature; worked out from what came over the wire alone."""
    found = re.fullmatch(r"AWS4-HMAC-SHA256 Credential=(\w+)/(\d{8})/([\w-]+)/(\w+)/aws4_request, SignedHeaders=([\w;-]+), "
                         r"Signature=([0-9a-f]{64})", asked.headers["Authorization"] or "")
    if not found:
        return False
    key_id, day, region, service, names, signature = found.groups()
    date = asked.headers["X-Amz-Date"]
    age_s = abs(time.time() - time.mktime(time.strptime(date + " UTC", "%Y%m%dT%H%M%SZ %Z")) + time.timezone)
    signed = names.split(";")
    if (key_id, service) != ("AKIDEXAMPLE", "lambda") or not date.startswith(day) or age_s > SKEW_S:
        return False
    if "host" not in signed or "x-amz-date" not in signed or asked.headers["X-Amz-Security-Token"] != token:
        return False
    if token is not None and "x-amz-security-token" not in signed:
        return False
    path, _, query = asked.path.partition("?")
    pairs = sorted((urllib.parse.quote(name, safe="-_.~"), urllib.parse.quote(value, safe="-_.~"))
                   for name, value in urllib.parse.parse_qsl(query, keep_blank_values=True))
    canonical = "\n".join([
        asked.command, urllib.parse.quote(path, safe="/-_.~"), "&".join(f"{name}={value}" for name, value in pairs),
        *(f"{name}:{' '.join(asked.headers[name].split())}" for name in signed), "", names, hashlib.sha256(asked.body).hexdigest(),
    ])
    scope = f"{day}/{region}/{service}/aws4_request"
    to_sign = f"AWS4-HMAC-SHA256\n{date}\n{scope}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
    key = ("AWS4" + secret).encode()
    for part in (day, region, service, "aws4_request"):
        key = digest(key, part)
    return hmac.compare_digest(digest(key, to_sign).hex(), signature)


class LambdaTest(unittest.TestCase):
    """`--target lambda` against a server that checks every signature itself."""

    def serve(self, token=None):
        def reply(asked):
            good = verified(asked, CREDENTIALS["AWS_SECRET_ACCESS_KEY"], token)
            return (200, {}, b"{}") if good else (403, {"X-Amzn-ErrorType": "InvalidSignatureException"}, b'{"message":""}')

        server = Recorder(reply)
        self.enterContext(server)
        return server

    def run_lambda(self, server, *flags, env=None, **options):
        env = CREDENTIALS if env is None else env
        return measured("run", "--target=lambda", "-w", "0", *flags, f"{server.url}/", env=env, **options)

    def test_a_request_that_never_changes_is_signed_once(self):
        server = self.serve()
        result = self.run_lambda(server, "--function=f", "-n", "200", "-c", "4")
        self.assertEqual(result["succeeded"], 200, result["failed"])
        self.assertEqual({(asked.command, asked.path, asked.body) for asked in server.requests},
                         {("POST", "/2015-03-31/functions/f/invocations", b"{}")})
        # Once by each thread, and far from every 120 s.
        self.assertEqual(len({asked.headers["Authorization"] for asked in server.requests}), 1)
        self.assertEqual(result["signing"]["signatures"], 1)
        self.assertGreater(result["signing"]["us_each"], 0)

    def test_every_request_that_differs_is_signed_for_itself(self):
        server = self.serve()
        flags = ["--template", "--function=f{{uniform:50}}", "-b", '{"n":{{counter}}}', "--qualifier=$LATEST",
                 "-H", "X-Amz-Client-Context:  e30=   x ", "-H", "Content-Type: application/json"]
        for drive in (["-c", "4"], ["-r", "300", "-c", "8"], ["-r", "300", "-c", "8", "-t", "2"], ["-c", "4", "--no-keepalive"]):
            server.requests.clear()
            result = self.run_lambda(server, *flags, *drive, "-n", "150")
            self.assertEqual(result["succeeded"], 150, (drive, result["failed"]))
            numbers = sorted(json.loads(asked.body)["n"] for asked in server.requests)
            self.assertEqual(numbers, list(range(150)), "each number once, in spite of what is signed ahead")
            self.assertGreater(len({asked.path for asked in server.requests}), 20)
            self.assertGreaterEqual(result["signing"]["signatures"], 150)
            self.assertLessEqual(result["signing"]["in_line"], result["signing"]["signatures"])

    def test_time_spent_on_signing_what_is_due_is_lateness_of_the_generator(self):
        server = NullServer(self)
        with tempfile.NamedTemporaryFile("w") as body:
            body.write("{{counter}}" + "x" * 65536)
            body.flush()
            # All are due within 0.3 ms and each has a connection; 64 are signed ahead, the others one after the other.
            result = measured("run", "--target=lambda", "--function=f", "--template", "-b", f"@{body.name}", "-r", "1000000", "-n", "300",
                              "-c", "300", "-w", "0", "--timeout=60s", server.url, env=CREDENTIALS, codes=(INVALID,))
        signing = result["signing"]
        self.assertGreater(signing["in_line"], 100, signing)
        self.assertGreater(result["latency"]["send_lag"]["max_us"], signing["us_each"] * signing["in_line"] / 2, result)

    def test_arns_regions_and_tokens(self):
        server = self.serve(token="a/token+with=signs")
        env = {**CREDENTIALS, "AWS_SESSION_TOKEN": "a/token+with=signs", "AWS_REGION": "eu-north-1"}
        arn = "arn:aws:lambda:eu-north-1:123456789012:function:f"
        result = self.run_lambda(server, "--function", arn, "-n", "20", env=env)
        self.assertEqual(result["succeeded"], 20, result["failed"])
        self.assertEqual({asked.path for asked in server.requests}, {f"/2015-03-31/functions/{arn.replace(':', '%3A')}/invocations"})
        self.assertIn("/eu-north-1/lambda/", server.requests[0].headers["Authorization"])

    def test_a_wrong_secret_is_refused_by_the_server(self):
        server = self.serve()
        env = {**CREDENTIALS, "AWS_SECRET_ACCESS_KEY": "another"}
        result = self.run_lambda(server, "--function=f", "-n", "10", env=env, codes=(INVALID,))
        self.assertEqual(result["failed"]["status"], 10)

    def test_a_failed_function_is_no_success(self):
        server = Recorder(lambda _asked: (200, {"X-Amz-Function-Error": "Unhandled"}, b'{"errorMessage":"x"}'))
        self.enterContext(server)
        result = self.run_lambda(server, "--function=f", "-n", "10", codes=(INVALID,))
        self.assertEqual(result["failed"]["function"], 10)

    def test_without_credentials_nothing_is_sent(self):
        server = self.serve()
        ended = loadgen("run", "--target=lambda", "--function=f", server.url, codes=(FAILED,))
        self.assertIn("AWS_ACCESS_KEY_ID is not set", ended.stderr)
        self.assertEqual(server.requests, [])
        loadgen("run", "--target=nowhere", server.url, codes=(REFUSED,))


# --- first calls ------------------------------------------------------------------------------------------


class FakeEngine:
    """Registry and controller in one: keeps what happens to each function, and answers calls with known phases."""

    TIMING = "queue;dur=1, claim;dur=2.5, attach;dur=0.25, load;dur=4, run;dur=0.5"

    def __init__(self, holds=False):
        self.life = {}
        self.refuses_removal = False
        self.called = threading.Event()
        self.end = threading.Event()
        self.holds = holds

    def reply(self, asked):
        name = asked.path.split("/")[3]
        if asked.path.endswith("?Qualifier=%24LATEST"):
            self.life[name].append("called")
            self.called.set()
            if self.holds:
                self.end.wait(PATIENCE_S)
            return 200, {"Server-Timing": self.TIMING, "X-Easyfaas-Function-Exectime": "9.000"}, b"ok"
        if asked.command == "DELETE" and self.refuses_removal:
            return 500, {}, b"no removal today"
        word = {"POST": "created", "DELETE": "removed"}[asked.command]
        self.life.setdefault(name, []).append(word)
        return 200, {}, b""


class ColdTest(unittest.TestCase):
    def serve(self, engine):
        server = Recorder(engine.reply)
        self.enterContext(server)
        self.addCleanup(engine.end.set)
        return server

    def test_each_function_is_created_called_once_and_removed(self):
        for drive in (["-c", "3"], ["--spacing=5ms"]):
            engine = FakeEngine()
            server = self.serve(engine)
            result = measured("cold", "-n", "20", *drive, f"--registry={server.url}", server.url)
            self.assertEqual(list(engine.life.values()), [["created", "called", "removed"]] * 20)
            self.assertEqual(result["succeeded"], 20)
            told = {phase["name"]: (phase["times"]["count"], phase["times"]["min_us"], phase["times"]["max_us"]) for phase in result["phases"]}
            self.assertEqual(list(told), ["queue", "claim", "attach", "load", "run", "elsewhere"])
            for name, wanted_us in (("queue", 1000), ("claim", 2500), ("attach", 250), ("load", 4000), ("run", 500)):
                count, least, most = told[name]
                self.assertEqual(count, 20)
                self.assertLess(abs(least / wanted_us - 1), 0.002, told)
                self.assertLess(abs(most / wanted_us - 1), 0.002, told)

    def test_each_function_can_have_code_of_its_own_and_wait_for_rest(self):
        engine = FakeEngine()
        server = self.serve(engine)
        with tempfile.TemporaryDirectory() as folder:
            (Path(folder) / "index.py").write_text("def handler(event, context):\n    return 1\n")
            # At rest is any process that waits; this one is not, for it serves.
            waiting = subprocess.Popen(["cat"], stdin=subprocess.PIPE)
            with waiting:
                result = measured("cold", "-n", "20", "--code", folder, "--own-code", f"--pid={waiting.pid}", "--settle",
                                  f"--registry={server.url}", server.url)
            creates = [asked for asked in server.requests if asked.command == "POST" and b'"Code"' in asked.body]
            shared = measured("cold", "-n", "2", "--code", folder, f"--registry={server.url}", server.url)
        files = []
        for asked in creates:
            with zipfile.ZipFile(io.BytesIO(base64.b64decode(json.loads(asked.body)["Code"]))) as archive:
                files.append((archive.namelist(), archive.read("loadgen-cold.txt").decode()))
        self.assertEqual(files, [(["index.py", "loadgen-cold.txt"], name) for name in list(engine.life)[:20]])
        told = result["cold"]
        self.assertEqual((told["own_code"], told["settled"], len(told["calls_us"])), (True, True, 20))
        self.assertEqual(told["calls_us"], sorted(told["calls_us"]))
        self.assertAlmostEqual(sum(told["calls_us"]) / 20 / result["latency"]["sent_to_done"]["mean_us"], 1, delta=0.002)
        self.assertEqual((shared["cold"]["own_code"], shared["cold"]["settled"]), (False, False))
        self.assertIn("--code", loadgen("cold", "--own-code", server.url, codes=(REFUSED,)).stderr)
        self.assertIn("--pid", loadgen("cold", "--settle", server.url, codes=(REFUSED,)).stderr)

    def test_a_signal_removes_what_is_there(self):
        engine = FakeEngine(holds=True)
        server = self.serve(engine)
        process = start("cold", "-n", "5", f"--registry={server.url}", server.url)
        self.assertTrue(engine.called.wait(PATIENCE_S))
        pidfd = os.pidfd_open(process.pid)
        self.addCleanup(os.close, pidfd)
        signal.pidfd_send_signal(pidfd, signal.SIGINT)
        stdout, stderr = process.communicate(timeout=PATIENCE_S)
        self.assertEqual((process.returncode, stdout), (130, ""), stderr)
        self.assertEqual({life[-1] for life in engine.life.values()}, {"removed"})
        self.assertEqual(len(engine.life), 5)

    def test_what_could_not_be_removed_is_named(self):
        engine = FakeEngine()
        engine.refuses_removal = True
        server = self.serve(engine)
        ended = loadgen("cold", "-n", "2", f"--registry={server.url}", server.url, codes=(FAILED,))
        self.assertIn("could not be removed", ended.stderr)
        for name in engine.life:
            self.assertIn(f"{name}: the engine answers 500: no removal today", ended.stderr)


# --- requests as they arrive ------------------------------------------------------------------------------


class WireTest(unittest.TestCase):
    def test_threads_share_a_counter_and_a_file_is_a_body(self):
        server = Recorder(lambda _asked: (200, {}, b"ok"))
        self.enterContext(server)
        with tempfile.NamedTemporaryFile("w") as body:
            body.write("n={{counter}}")
            body.flush()
            result = measured("run", "--template", "-t", "2", "-c", "4", "-n", "201", "-w", "0", "-m", "POST", "-b", f"@{body.name}",
                              "-H", "X-Test:  spaced ", f"{server.url}/x?y", codes=(0, INVALID))
        self.assertEqual(result["succeeded"], 201)
        self.assertEqual(sorted(int(asked.body.decode().removeprefix("n=")) for asked in server.requests), list(range(201)))
        self.assertEqual({(asked.path, asked.headers["X-Test"], asked.headers["Host"]) for asked in server.requests},
                         {("/x?y", "spaced", server.address)})


# --- the live line ----------------------------------------------------------------------------------------


class NullServer:
    """`loadgen null-server` as a process that ends with the test."""

    def __init__(self, case, *flags):
        self.folder = case.enterContext(tempfile.TemporaryDirectory())
        self.address = f"unix:{self.folder}/socket"
        self.url = f"{self.address}:/"
        self.process = start("null-server", "--listen", self.address, *flags)
        case.addCleanup(self.end)
        readable, _, _ = select.select([self.process.stdout], [], [], PATIENCE_S)
        assert readable and self.process.stdout.readline().startswith("listening"), "the null server did not start"

    def end(self):
        self.process.kill()
        self.process.communicate(timeout=PATIENCE_S)


def read_all(terminal):
    """What was written to a terminal until its other side was closed."""
    out = b""
    deadline = time.monotonic() + 2 * PATIENCE_S
    while time.monotonic() < deadline:
        readable, _, _ = select.select([terminal], [], [], 1)
        if readable:
            try:
                data = os.read(terminal, 65536)
            except OSError:
                return out
            if not data:
                return out
            out += data
    raise AssertionError(f"the terminal was not closed: {out!r}")


class LiveLineTest(unittest.TestCase):
    FLAGS = ("run", "-r", "200", "-c", "4", "-d", "3s", "-w", "0")

    def test_on_a_terminal_it_is_drawn_and_taken_away_at_the_end(self):
        server = NullServer(self)
        ours, theirs = pty.openpty()
        process = start(*self.FLAGS, server.url, stderr=theirs)
        os.close(theirs)
        shown = read_all(ours).decode()
        os.close(ours)
        stdout, _ = process.communicate(timeout=PATIENCE_S)
        lines = shown.split("\r\x1b[K")
        self.assertEqual((lines[0], lines[-1]), ("", ""), shown)
        self.assertEqual(len(lines), 3 + 2, f"one for each second, in the same place: {shown!r}")
        for number, line in enumerate(lines[1:-1], 1):
            self.assertRegex(line, rf"^ +{number} s  \d+ requests/s  p50 [\d.]+ [um]?s  p99 [\d.]+ [um]?s  max [\d.]+ [um]?s$")
            self.assertLess(len(line), 80)
        self.assertTrue(stdout.startswith("loadgen "), stdout)
        self.assertNotIn("\x1b", stdout)

    def test_redirected_there_is_none(self):
        server = NullServer(self)
        ended = loadgen(*self.FLAGS, server.url)
        self.assertEqual(ended.stderr, "")
        self.assertNotIn("\r", ended.stdout)


# --- the report in a browser ------------------------------------------------------------------------------


def pixels(png):
    """Width, height and the set of colours of a PNG with 8 bits per channel (RFC 2083)."""
    assert png.startswith(b"\x89PNG\r\n\x1a\n")
    at, data, header = 8, b"", None
    while at < len(png):
        length, kind = struct.unpack(">I4s", png[at:at + 8])
        content = png[at + 8:at + 8 + length]
        if kind == b"IHDR":
            header = struct.unpack(">IIBBBBB", content)
        elif kind == b"IDAT":
            data += content
        at += 12 + length
    width, height, depth, colour_type = header[:4]
    assert depth == 8 and colour_type in (2, 6), header
    size = 3 if colour_type == 2 else 4
    raw, stride, colours = zlib.decompress(data), width * size, set()
    previous = bytearray(stride)
    for row in range(height):
        begin = row * (stride + 1)
        kind, line = raw[begin], bytearray(raw[begin + 1:begin + 1 + stride])
        for index in range(stride) if kind else ():
            left = line[index - size] if index >= size else 0
            up, corner = previous[index], previous[index - size] if index >= size else 0
            guess = left + up - corner
            paeth = min((left, up, corner), key=lambda it: abs(guess - it))
            line[index] = (line[index] + (0, left, up, (left + up) // 2, paeth)[kind]) & 255
        colours.update(bytes(line[index:index + 3]) for index in range(0, stride, size))
        previous = line
    return width, height, colours


class BrowserTest(unittest.TestCase):
    """Pages in headless Chromium: their DOM, and what is seen."""

    def setUp(self):
        if not CHROMIUM.exists():
            self.skipTest("Chromium is not there and could not be installed (package chromium)")
        self.folder = Path(self.enterContext(tempfile.TemporaryDirectory(prefix="faaster-test-")))

    def browse(self, page, *flags):
        ended = subprocess.run(
            [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--no-first-run",
             "--disable-background-networking", "--enable-logging=stderr", f"--user-data-dir={self.folder}/profile",
             *flags, page.as_uri()],
            capture_output=True, timeout=3 * PATIENCE_S, check=False)
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertNotIn(b":CONSOLE", ended.stderr)
        return ended.stdout.decode()

    def check(self, page, result, plots):
        dom = self.browse(page, "--dump-dom")
        text = re.sub(r"<[^>]+>", "", dom)
        self.assertEqual(dom.count("<svg"), plots)
        for svg in re.findall(r"<svg.*?</svg>", dom, re.S):
            self.assertRegex(svg, r"<polyline[^>]+stroke=\"#0072B2\"", "each plot has its first line")
        self.assertIn(f"{result['rate']:.1f} requests/s", text)
        self.assertIn(f"{result['succeeded']} succeeded, {result['requests'] - result['succeeded']} failed", text)
        for word in ("VALID" if result["valid"] else "INVALID", result["environment"]["kernel"]):
            self.assertIn(word, text)
        for gate in result["gates"]:
            self.assertIn(gate["detail"], text.replace("&amp;", "&"))
        shot = Path(os.environ.get("LOADGEN_SCREENSHOTS", self.folder)) / f"{self.id().rsplit('.', 1)[1]}.png"
        self.browse(page, f"--screenshot={shot}", "--window-size=1000,2400", "--hide-scrollbars")
        width, height, colours = pixels(shot.read_bytes())
        self.assertEqual((width, height), (1000, 2400))
        self.assertIn(bytes((0, 114, 178)), colours, "the first line's colour is seen")
        return text

    def test_a_run(self):
        server = NullServer(self, "--delay", "exponential:1ms", "--wrong-every", "400")
        page, out = self.folder / "run.html", self.folder / "run.json"
        loadgen("run", "-r", "3000", "-c", "100", "-d", "8s", "-w", "500ms", "--html", page, "--out", out, server.url)
        result = json.loads(out.read_text())
        text = self.check(page, result, 3)
        for percent in (50, 99, 99.9):
            us = next(it["us"] for it in result["latency"]["intended_to_done"]["percentiles"] if it["percent"] == percent)
            shown = f"{us:.1f} us" if us < 1000 else f"{us / 1000:.2f} ms" if us < 1e6 else f"{us / 1e6:.2f} s"
            self.assertRegex(text, rf"p{percent} +{re.escape(shown)}")

    def test_a_comparison(self):
        # At most 40 requests per second: fewer than the fast one answers on the busiest machine.
        fast, slow = NullServer(self), NullServer(self, "--delay", "constant:100ms")
        page = self.folder / "compare.html"
        loadgen("repeat", "--rounds", "4", "-c", "4", "-d", "2s", "-w", "100ms", "--html", page, "--out", self.folder,
                f"fast={fast.url}", f"slow={slow.url}")
        results = sorted((json.loads(line) for line in (self.folder / "fast.json").read_text().splitlines()), key=lambda it: it["rate"])
        text = self.check(page, results[2], 3)
        self.assertRegex(text, r"slow +[\d.]+ +\([\d.]+ to [\d.]+\) +[\d.]+ x \([\d.]+ to [\d.]+\) +real \(p = ")

    def test_first_calls(self):
        engine = FakeEngine()
        server = Recorder(engine.reply)
        self.enterContext(server)
        page, out = self.folder / "cold.html", self.folder / "cold.json"
        loadgen("cold", "-n", "200", "-c", "4", f"--registry={server.url}", "--html", page, "--out", out, server.url)
        text = self.check(page, json.loads(out.read_text()), 3)
        self.assertIn("first calls of 200 functions", text)
        self.assertRegex(text, r"queue +claim +attach +load +run +elsewhere")


if __name__ == "__main__":
    unittest.main()
