"""HTTP as the RFCs say, byte for byte, on the ports of a whole engine; and HTTP triggers."""

import base64
import hashlib
import json
import socket
import threading
import unittest

from support.deploy import EngineCase, Gate, Wire, brn, counter, head, invocation, post, source
from support.http_client import ACCOUNT, request
from support.wait import patience, until

HEALTHZ = head("GET", "/healthz")


class Flood(threading.Thread):
    """A client that sends large bodies as fast as they are taken, until told to end."""

    BODY_BYTES = 6_000_000

    def __init__(self, address):
        super().__init__(daemon=True)
        self.address, self.ending, self.sent_bytes = address, threading.Event(), 0
        self.start()

    def run(self):
        host, port = self.address.rsplit(":", 1)
        head = f"POST /v1/functions/flood HTTP/1.1\r\nHost: x\r\nContent-Length: {self.BODY_BYTES}\r\n\r\n"
        piece = b"x" * 65_536
        while not self.ending.is_set():
            with socket.create_connection((host, int(port)), timeout=patience(60)) as connection:
                connection.sendall(head.encode())
                left = self.BODY_BYTES
                while left and not self.ending.is_set():
                    left -= connection.send(piece[:left])
                self.sent_bytes += self.BODY_BYTES - left


class GreedTest(EngineCase):
    def test_floods_do_not_starve_others(self):
        floods = [Flood(self.node.registry) for _ in range(4)]
        try:
            wires = [Wire(self.node.controller) for _ in range(32)]
            turns = 0
            # For as long as it takes to be a flood: far more than there are buffers.
            while sum(flood.sent_bytes for flood in floods) < 100_000_000 or turns < 20:
                for wire in wires:
                    wire.send(HEALTHZ)
                for wire in wires:
                    self.assertEqual(wire.answer().status, 200)
                self.assertTrue(all(flood.is_alive() for flood in floods))
                turns += 1
            for wire in wires:
                wire.close()
        finally:
            for flood in floods:
                flood.ending.set()
            for flood in floods:
                flood.join(60)


class SyntaxTest(EngineCase):
    """Requests that are none, each answered and its connection closed."""

    def refused(self, data, status, port=None):
        for address in [port] if port else [self.node.controller, self.node.registry]:
            with Wire(address) as wire:
                wire.send(data)
                answer = wire.answer()
                self.assertEqual(answer.status, status, (data[:80], answer))
                self.assertEqual(answer.headers["connection"], "close")
                self.assertTrue(answer.text and "\n" not in answer.text.strip(), answer)
                self.assertIn("date", answer.headers)
                self.assertTrue(wire.ended())

    def test_400(self):
        for data in (
            "\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
            "GET\r\n\r\n",
            "GET /healthz\r\n\r\n",
            "GET  /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /healthz HTTP/1.1 \r\nHost: x\r\n\r\n",
            "GET /healthz HTTP/x.1\r\nHost: x\r\n\r\n",
            "GET healthz HTTP/1.1\r\nHost: x\r\n\r\n",
            "GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
            "G@T /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            with self.subTest(data):
                self.refused(data.encode("latin-1"), 400)

    def test_hosts(self):
        for line in ("", "Host: a\r\nHost: b\r\n", "Host: a b\r\n", "Host: a/b\r\n", "Host: user@x\r\n", "Host: x:99999\r\n"):
            with self.subTest(line):
                self.refused(f"GET /healthz HTTP/1.1\r\n{line}\r\n", 400)
        with Wire(self.node.controller) as wire:
            self.assertEqual(wire.send("GET http://example.org/healthz HTTP/1.1\r\nHost: other\r\n\r\n").answer().status, 200)
            self.assertEqual(wire.send("GET /healthz HTTP/1.1\r\nHost:\r\n\r\n").answer().status, 200)

    def test_lines(self):
        for data in (
            "GET /healthz HTTP/1.1\nHost: x\n\n",
            "GET /healthz HTTP/1.1\r\nHost: x\n\r\n",
            "GET /healthz HTTP/1.1\rHost: x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost : x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\n Host: x\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nA\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nA b: c\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\0c\r\n\r\n",
            "GET /healthz HTTP/1.1\r\nHost: x\r\nA: b\rc\r\n\r\n",
            "\n\nGET /healthz HTTP/1.1\r\nHost: x\r\n\r\n",
        ):
            with self.subTest(data):
                self.refused(data, 400)

    def test_framing_that_could_smuggle(self):
        start = "POST /v1/functions/f/invocations HTTP/1.1\r\nHost: x\r\n"
        for lines in (
            "Content-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
            "Transfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n0\r\n\r\n",
            "Content-Length: 5\r\nContent-Length: 5\r\n\r\nhello",
            "Content-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
            "Content-Length: 5, 5\r\n\r\nhello", "Content-Length: +5\r\n\r\nhello", "Content-Length: -5\r\n\r\nhello",
            "Content-Length: 0x5\r\n\r\nhello", "Content-Length: 5 5\r\n\r\nhello", "Content-Length:\r\n\r\n",
            "Content-Length: 99999999999999999999\r\n\r\n",
            "Transfer-Encoding: chunked, chunked\r\n\r\n0\r\n\r\n", "Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
            "Transfer-Encoding: gzip\r\n\r\n", "Transfer-Encoding: chunked, gzip\r\n\r\n", "Transfer-Encoding:\r\n\r\n",
            "Transfer-Encoding: xchunked\r\n\r\n",
        ):
            with self.subTest(lines):
                self.refused(start + lines, 400)
        self.refused(start.replace("1.1", "1.0") + "Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n", 400)

    def test_chunks_that_are_none(self):
        start = head("POST", "/v1/functions/f/invocations", "Transfer-Encoding: chunked")
        for body in ("x\r\n", "-1\r\n", "0x1\r\nx\r\n", " 1\r\nx\r\n", "1 1\r\n", "1\nx\r\n", "1\r\nxx\r\n", "1\r\nx\n0\r\n\r\n",
                     "fffffffffffffffff\r\n", ";a=b\r\n", "\r\n", "1;a\x01\r\nx\r\n", "0\r\nA\r\n\r\n", "0\r\n A: b\r\n\r\n"):
            with self.subTest(body):
                self.refused(start + body, 400, self.node.controller)

    def test_413_before_the_body_comes(self):
        self.refused(head("POST", f"/v1/functions/{brn('f')}/invocations", "Content-Length: 6291457"), 413, self.node.controller)
        self.refused(head("POST", "/v1/functions/f", "Content-Length: 99999999999"), 413, self.node.registry)
        self.refused(head("POST", "/v1/functions/f/invocations", "Transfer-Encoding: chunked") + "fffffff\r\n", 413, self.node.controller)

    def test_414(self):
        self.refused(head("GET", "/" + "x" * 8192), 414)
        self.refused("GET /" + "x" * 60_000, 414)  # also if the line never ends
        with Wire(self.node.controller) as wire:
            self.assertEqual(wire.send(head("GET", "/" + "x" * 8191)).answer().status, 404)

    def test_417(self):
        self.refused(head("POST", "/v1/functions/f/invocations", "Expect: a miracle", "Content-Length: 1"), 417)

    def test_431(self):
        self.refused(head("GET", "/healthz", *[f"X-{number}: y" for number in range(96)]), 431)
        self.refused(head("GET", "/healthz", "X: " + "y" * 66_000), 431)
        self.refused("GET /healthz HTTP/1.1\r\nHost: x\r\nX: " + "y" * 66_000, 431)
        with Wire(self.node.controller) as wire:
            lines = [f"X-{number}: {'y' * 650}" for number in range(95)]
            self.assertEqual(wire.send(head("GET", "/healthz", *lines)).answer().status, 200)

    def test_501(self):
        self.refused("CONNECT example.org:80 HTTP/1.1\r\nHost: example.org:80\r\n\r\n", 501)
        self.refused(head("POST", "/v1/functions/f/invocations", "Transfer-Encoding: gzip, chunked"), 501)
        self.refused(head("X" * 33, "/healthz"), 501)

    def test_505(self):
        for version in ("2.0", "1.2", "0.9", "9.9"):
            self.refused(f"GET /healthz HTTP/{version}\r\nHost: x\r\n\r\n", 505)
        self.refused("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 505)

    def test_refusals_are_counted_and_harm_nobody(self):
        before = counter(self.node, "requests_rejected_total")
        with Wire(self.node.controller) as good:
            self.assertEqual(good.send(HEALTHZ).answer().status, 200)
            for _ in range(20):
                self.refused("nonsense\r\n\r\n", 400, self.node.controller)
            self.assertEqual(good.send(HEALTHZ).answer().status, 200)
        self.assertEqual(counter(self.node, "requests_rejected_total"), before + 20)


class ConnectionTest(EngineCase):
    """What connections are used for, and how they end."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("echo", "def handler(event, context):\n    return event\n", Timeout=60)
        cls.deploy("gate", source("gate"), Timeout=60, PodConcurrentQuota=64)
        cls.deploy("length", "def handler(event, context):\n    return len(event)\n", Timeout=60)

    def test_404_and_405(self):
        for address, path in ((self.node.controller, "/nope"), (self.node.registry, "/nope"), (self.node.controller, "/"),
                              (self.node.controller, "/2015-03-31/functions/function/invocations")):
            answer = request(address, "GET", path)
            self.assertEqual((answer.status, answer.text), (404, "Not Found"), path)
            self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
        answer = request(self.node.controller, "GET", f"/v1/functions/{brn('echo')}/invocations")
        self.assertEqual((answer.status, answer.body, answer.headers["Allow"]), (405, b"", "OPTIONS, POST"))
        for address, method, path in ((self.node.controller, "POST", "/healthz"), (self.node.controller, "DELETE", "/v1/resource"),
                                      (self.node.registry, "PATCH", "/v1/functions/echo"), (self.node.registry, "BREW", "/hello")):
            answer = request(address, method, path)
            self.assertEqual(answer.status, 405, (method, path))
            self.assertIn("GET", answer.headers["Allow"])
        answer = request(self.node.registry, "OPTIONS", "/v1/functions/echo")
        self.assertEqual((answer.status, set(answer.headers["Allow"].split(", "))),
                         (200, {"DELETE", "GET", "HEAD", "OPTIONS", "POST", "PUT"}))

    def test_keep_alive_and_close(self):
        with Wire(self.node.controller) as wire:
            for number in range(200):
                answer = wire.send(invocation("echo", [number])).answer("POST")
                self.assertEqual((answer.text, answer.headers.get("connection")), (f"[{number}]", None))
            answer = wire.send(invocation("echo", [1], "Connection: close")).answer("POST")
            self.assertEqual((answer.text, answer.headers["connection"]), ("[1]", "close"))
            self.assertTrue(wire.ended())

    def test_http_1_0(self):
        with Wire(self.node.controller) as wire:
            answer = wire.send("GET /healthz HTTP/1.0\r\n\r\n").answer()
            self.assertEqual((answer.text, answer.headers["connection"]), ("hello controller", "close"))
            self.assertTrue(wire.ended())
        with Wire(self.node.controller) as wire:
            for _ in range(2):
                answer = wire.send("GET /healthz HTTP/1.0\r\nConnection: keep-alive\r\n\r\n").answer()
                self.assertEqual((answer.status, answer.headers["connection"]), (200, "keep-alive"))

    def test_head_is_get_without_its_body(self):
        for address, path in ((self.node.controller, "/healthz"), (self.node.registry, "/v1/functions/echo"),
                              (self.node.registry, "/v1/functions/missing"), (self.node.controller, "/nope")):
            with self.subTest(path), Wire(address) as wire:
                full = wire.send(head("GET", path)).answer()
                bare = wire.send(head("HEAD", path)).answer("HEAD")
                for name in ("content-length", "content-type"):
                    self.assertEqual(bare.headers[name], full.headers[name])
                self.assertEqual(bare.status, full.status)
                self.assertEqual(wire.send(head("GET", path)).answer().body, full.body, "nothing was left over")

    def test_pipelined_requests_are_answered_in_order(self):
        # Calls of functions that live on different shards, control requests, and a call that is held back.
        with Wire(self.node.controller) as wire:
            wire.send(invocation("gate", {"name": "first"}) + HEALTHZ.encode() + invocation("echo", [2])
                      + head("GET", "/v1/resource").encode() + invocation("length", [1, 2, 3]) + invocation("missing")
                      + invocation("gate", {"name": "second", "wait": False}) + head("HEAD", "/healthz").encode()
                      + invocation("echo", [9]))
            gate = Gate(self.node, "first")
            self.assertEqual(wire.held, b"")
            gate.open()
            self.assertEqual(wire.answer("POST").json()["name"], "first")
            self.assertEqual(wire.answer().text, "hello controller")
            self.assertEqual(wire.answer("POST").text, "[2]")
            self.assertIn("Capacity", wire.answer().json())
            self.assertEqual(wire.answer("POST").text, "3")
            self.assertEqual(wire.answer("POST").status, 404)
            self.assertEqual(wire.answer("POST").json()["name"], "second")
            self.assertEqual(wire.answer("HEAD").status, 200)
            self.assertEqual(wire.answer("POST").text, "[9]")

    def test_more_pipelined_requests_than_are_read_at_once(self):
        with Wire(self.node.controller) as wire:
            wire.send(b"".join(invocation("echo", [number]) if number % 3 else HEALTHZ.encode() for number in range(500)))
            for number in range(500):
                answer = wire.answer("POST")
                self.assertEqual(answer.text, f"[{number}]" if number % 3 else "hello controller")

    def test_a_mistake_behind_good_requests_comes_last(self):
        with Wire(self.node.controller) as wire:
            wire.send(invocation("gate", {"name": "good"}) + HEALTHZ.encode() + b"nonsense\r\n\r\n" + HEALTHZ.encode())
            Gate(self.node, "good").open()
            self.assertEqual(wire.answer("POST").json()["name"], "good")
            self.assertEqual(wire.answer().status, 200)
            self.assertEqual(wire.answer().status, 400)
            self.assertTrue(wire.ended())

    def test_a_request_in_single_bytes(self):
        with Wire(self.node.controller) as wire:
            for byte in invocation("echo", {"a": "b"}):
                wire.send(bytes([byte]))
            self.assertEqual(wire.answer("POST").json(), {"a": "b"})

    def test_chunked_requests(self):
        with Wire(self.node.controller) as wire:
            start = head("POST", "/v1/functions/echo/invocations?Qualifier=$LATEST", "Transfer-Encoding: chunked")
            for body in ("2\r\n[1\r\n1\r\n]\r\n0\r\n\r\n", "3;ext=\"a b\"\r\n[1]\r\n0\r\nTrailer: x\r\n\r\n", "0003\r\n[1]\r\n000\r\n\r\n",
                         "1\r\n[\r\n1\r\n1\r\n1\r\n]\r\n0\r\n\r\n"):
                self.assertEqual(wire.send(start + body).answer("POST").text, "[1]")
            data = json.dumps("x" * 3_000_000)
            pieces = [data[at:at + 65_536] for at in range(0, len(data), 65_536)]
            wire.send(start + "".join(f"{len(piece):x}\r\n{piece}\r\n" for piece in pieces) + "0\r\n\r\n")
            # A text is answered without its quotes.
            self.assertEqual(len(wire.answer("POST").body), 3_000_000)

    def test_expect_100_continue(self):
        path = "/v1/functions/echo/invocations?Qualifier=$LATEST"
        with Wire(self.node.controller) as wire:
            wire.send(head("POST", path, "Content-Length: 3", "Expect: 100-continue"))
            self.assertEqual(wire.answer("POST").status, 100)
            self.assertEqual(wire.send("[1]").answer("POST").text, "[1]")
            # The body came along: nobody needs to be asked for it.
            self.assertEqual(wire.send(head("POST", path, "Content-Length: 3", "Expect: 100-Continue") + "[2]").answer("POST").text, "[2]")
            # Behind a call that is not answered yet the interim answer waits its turn.
            wire.send(invocation("gate", {"name": "before"}) + head("POST", path, "Content-Length: 3", "Expect: 100-continue").encode())
            Gate(self.node, "before").open()
            self.assertEqual(wire.answer("POST").json()["name"], "before")
            self.assertEqual(wire.answer("POST").status, 100)
            self.assertEqual(wire.send("[3]").answer("POST").text, "[3]")
        with Wire(self.node.controller) as wire:
            wire.send(head("POST", path, "Content-Length: 7000000", "Expect: 100-continue"))
            self.assertEqual(wire.answer("POST").status, 413, "not asked for what will be refused")

    def test_empty_lines_before_a_request(self):
        with Wire(self.node.controller) as wire:
            for lines in ("\r\n", "\r\n\r\n"):
                self.assertEqual(wire.send(lines + HEALTHZ).answer().status, 200)

    def test_a_head_that_does_not_come_in_time(self):
        # HEAD_TIMEOUT is 10 s and no setting: one request in two pieces, the second of which never comes.
        with Wire(self.node.controller) as wire, Wire(self.node.controller) as good:
            wire.send("GET /healthz HTT")
            self.assertEqual(good.send(HEALTHZ).answer().status, 200)
            answer = wire.answer()
            self.assertEqual((answer.status, answer.headers["connection"]), (408, "close"))
            self.assertTrue(wire.ended())

    def test_answers_have_the_dialect_s_headers(self):
        answer = request(self.node.controller, "POST", f"/v1/functions/{brn('echo')}/invocations", b"[1]")
        self.assertEqual(answer.status, 200)
        self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")
        self.assertRegex(answer.headers["X-Easyfaas-Function-Exectime"], r"^\d+\.\d{3}$")
        self.assertRegex(answer.headers["Date"], r"^\w{3}, \d{2} \w{3} \d{4} \d{2}:\d{2}:\d{2} GMT$")
        self.assertTrue(answer.headers["Server"])
        names = [name for name, _ in answer.headers.items()]
        self.assertIn("X-Easyfaas-Request-Id", names)

    def test_many_connections_at_once(self):
        wires = [Wire(self.node.controller) for _ in range(300)]
        try:
            for number, wire in enumerate(wires):
                wire.send(invocation("gate", {"name": str(number), "wait": False}))
            for number, wire in enumerate(wires):
                self.assertEqual(wire.answer("POST").json()["name"], str(number))
        finally:
            for wire in wires:
                wire.close()

    def test_a_client_that_does_not_read_hinders_nobody(self):
        self.deploy("large", "def handler(event, context):\n    return 'x' * 6000000\n", Timeout=60, PodConcurrentQuota=8)
        with Wire(self.node.controller) as lazy, Wire(self.node.controller) as good:
            lazy.send(invocation("large") * 8)
            for number in range(50):
                self.assertEqual(good.send(invocation("echo", [number])).answer("POST").text, f"[{number}]")
            for _ in range(8):
                self.assertEqual(len(lazy.answer("POST").body), 6_000_000)


class ConnectionCapTest(EngineCase):
    ARGUMENTS = ("--connections-max=8", "--shards=1")

    def test_connections_over_the_cap_are_refused_and_counted(self):
        before = counter(self.node, "connections_refused_total")
        until(lambda: counter(self.node, "connections_open") <= 1, "earlier connections closed")
        wires = [Wire(self.node.controller) for _ in range(8)]
        try:
            for wire in wires:
                self.assertEqual(wire.send(HEALTHZ).answer().status, 200)
            for _ in range(3):
                with Wire(self.node.controller) as surplus:
                    self.assertTrue(surplus.ended())
            for wire in wires:
                self.assertEqual(wire.send(HEALTHZ).answer().status, 200)
        finally:
            for wire in wires:
                wire.close()
        until(lambda: self.answers(), "room again")
        self.assertGreaterEqual(counter(self.node, "connections_refused_total"), before + 3)

    def answers(self):
        try:
            return request(self.node.controller, "GET", "/healthz").status == 200
        except OSError:
            return False


class TriggerTest(EngineCase):
    """HTTP triggers: ANY /{userID}/{function}[/{version}]."""

    CODE = """
import json
def handler(event, context):
    print("triggered")
    ask = json.loads(event["body"]) if event["body"].startswith("{") else {}
    if "raise" in ask:
        raise ValueError(ask["raise"])
    return ask["answer"] if "answer" in ask else event
"""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("web", cls.CODE, Timeout=30)
        cls.deploy("web", cls.CODE, Timeout=30, Version="3")

    def ask(self, answer):
        return request(self.node.controller, "POST", f"/{ACCOUNT}/web", json.dumps({"answer": answer}))

    def test_the_event(self):
        with Wire(self.node.controller) as wire:
            wire.send(post(f"/{ACCOUNT}/web?a=1&b=x%20y&a=2&c", b"t\xc3\xa9xt", "X-My-header: v", "x-twice: 1", "X-Twice: 2", "Cookie: a=b"))
            event = wire.answer("POST").json()
        self.assertEqual(event["httpMethod"], "POST")
        self.assertEqual(event["body"], "téxt")
        self.assertEqual(event["queryStringParameters"], {"a": "2", "b": "x y", "c": ""})
        for name, value in (("X-My-Header", "v"), ("X-Twice", "1, 2"), ("Cookie", "a=b"), ("Host", "localhost")):
            self.assertEqual(event["headers"][name], value)

    def test_every_method_and_version(self):
        for method in ("GET", "PUT", "DELETE", "PATCH", "OPTIONS"):
            answer = request(self.node.controller, method, f"/{ACCOUNT}/web/3")
            self.assertEqual((answer.status, answer.json()["httpMethod"]), (200, method))
        self.assertEqual(request(self.node.controller, "HEAD", f"/{ACCOUNT}/web").body, b"")
        self.assertEqual(request(self.node.controller, "GET", f"/{ACCOUNT}/web/$LATEST").status, 404)
        self.assertEqual(request(self.node.controller, "GET", f"/{ACCOUNT}/web/4").status, 404)
        self.assertEqual(request(self.node.controller, "GET", f"/{ACCOUNT}/web/3/more").status, 404)
        self.assertEqual(request(self.node.controller, "GET", "/somebody/web").status, 404)

    def test_shapes_of_answers(self):
        answer = self.ask({"statusCode": 201, "headers": {"x-a": "b", "Content-Type": "text/html"}, "body": "<p>☃</p>"})
        self.assertEqual((answer.status, answer.text, answer.headers["X-A"], answer.headers["Content-Type"]),
                         (201, "<p>☃</p>", "b", "text/html"))
        answer = self.ask({"isBase64Encoded": True, "statusCode": 200, "headers": {}, "body": base64.b64encode(bytes(range(256))).decode()})
        self.assertEqual((answer.status, answer.body), (200, bytes(range(256))))
        answer = self.ask("only text")
        self.assertEqual((answer.status, answer.text, answer.headers["Content-Type"]), (200, "only text", "text/plain"))
        answer = self.ask({"no": "status"})
        self.assertEqual((answer.status, answer.json(), answer.headers["Content-Type"]), (200, {"no": "status"}, "application/json"))
        answer = self.ask({"statusCode": 204})
        self.assertEqual((answer.status, answer.body), (204, b""))
        answer = self.ask({"statusCode": 999, "body": "x"})
        self.assertEqual((answer.status, answer.json()["statusCode"]), (200, 999))

    def test_headers_that_are_not_the_function_s_to_set(self):
        answer = self.ask({"statusCode": 200, "headers": {"Content-Length": "1", "Transfer-Encoding": "chunked", "Connection": "close",
                                                         "Date": "x", "Server": "x", "X-Own": "y"}, "body": "whole"})
        self.assertEqual((answer.status, answer.text, answer.headers["X-Own"]), (200, "whole", "y"))
        self.assertNotEqual(answer.headers["Date"], "x")
        for headers in ({"X-A": "b\r\nX-Injected: yes"}, {"X-A\r\nX-Injected": "yes"}, {"bad name": "x"}):
            answer = self.ask({"statusCode": 200, "headers": headers, "body": ""})
            self.assertEqual(answer.status, 502, answer)
            self.assertIsNone(answer.headers["X-Injected"])

    def test_errors(self):
        answer = request(self.node.controller, "POST", f"/{ACCOUNT}/web", '{"raise":"böse"}'.encode())
        self.assertEqual((answer.status, answer.json()), (500, {"errorMessage": "böse"}))
        answer = request(self.node.controller, "GET", f"/{ACCOUNT}/missing")
        self.assertEqual((answer.status, answer.json()["Code"]), (404, "ResourceNotFoundException"))

    def test_paths_that_are_never_triggers(self):
        for user in ("v1", "healthz", "readyz"):
            self.deploy("probe", "def handler(event, context):\n    return 'triggered'\n", account=user)
            for path in (f"/{user}/probe", f"/{user}/probe/1", f"/{user}"):
                answer = request(self.node.controller, "GET", path)
                self.assertNotIn("triggered", answer.text, path)
            request(self.node.registry, "DELETE", "/v1/functions/probe", headers={"X-easyfaas-Account-Id": user})
        for path in ("/healthz", "/readyz"):
            self.assertEqual(request(self.node.controller, "GET", path).status, 200)
        for path in ("/2015-03-31/functions", "/2015-03-31/functions/web", "/2018-06-01/runtime"):
            self.assertEqual(request(self.node.controller, "GET", path).status, 404)

    def test_the_registry_s_port_has_none(self):
        self.assertEqual(request(self.node.registry, "GET", f"/{ACCOUNT}/web").status, 404)


class NoTriggerTest(EngineCase):
    ARGUMENTS = ("--http-trigger=false",)

    def test_triggers_can_be_switched_off(self):
        self.deploy("web", "def handler(event, context):\n    return 'triggered'\n")
        self.assertEqual(request(self.node.controller, "GET", f"/{ACCOUNT}/web").status, 404)
        self.assertEqual(self.good(self.node.invoke("web")).text, "triggered")


class DefaultAccountTest(EngineCase):
    """A caller without an account header is the configured account, on both ports."""

    OWN, SENTENCE = "tenant-seven", "def handler(event, context):\n    return '{}'\n"
    ARGUMENTS = (f"--default-account={OWN}",)

    def test_a_caller_without_an_account_is_the_configured_one(self):
        self.deploy("mine", self.SENTENCE.format("of the default account"), account=self.OWN)
        self.assertEqual(self.good(self.node.invoke("mine")).text, "of the default account")
        # FaaSter's own account is somebody else here.
        answer = self.node.invoke("mine", headers={"X-easyfaas-Account-Id": ACCOUNT})
        self.assertEqual((answer.status, answer.json()["Code"]), (404, "ResourceNotFoundException"))

    def test_what_is_deployed_without_an_account_is_its_own(self):
        self.deploy("deployed", self.SENTENCE.format("deployed"))
        owner = hashlib.md5(f"{self.OWN}cloud-cfc-2017".encode()).hexdigest()
        settings = request(self.node.registry, "GET", "/v1/functions/deployed").json()
        self.assertIn(f":{owner}:function:deployed:", json.dumps(settings))
        for headers in ({}, {"X-Bce-Account-Id": self.OWN}):
            self.assertEqual(self.good(self.node.invoke("deployed", headers=headers)).text, "deployed")
        full = f"brn:cloud:faas:bj:{owner}:function:deployed:$LATEST"
        self.assertEqual(self.good(self.node.invoke(full, headers={"X-easyfaas-Account-Id": self.OWN})).text, "deployed")
        self.assertEqual(self.node.invoke(full, headers={"X-easyfaas-Account-Id": ACCOUNT}).status, 403)


class NoSimpleAuthTest(EngineCase):
    """With simple_auth off whoever names a function may call and see it; who it is still decides what a bare name means."""

    ARGUMENTS = ("--simple-auth=false",)

    def test_anybody_may_call_by_brn(self):
        self.deploy("open", "def handler(event, context):\n    return 'open'\n")
        stranger = {"X-easyfaas-Account-Id": "a-stranger"}
        self.assertEqual(self.good(self.node.invoke(brn("open"), headers=stranger)).text, "open")
        self.assertEqual(request(self.node.registry, "GET", f"/v1/functions/{brn('open')}", headers=stranger).status, 200)
        answer = self.node.invoke("open", headers=stranger)
        self.assertEqual((answer.status, answer.json()["Code"]), (404, "ResourceNotFoundException"))


if __name__ == "__main__":
    unittest.main()
