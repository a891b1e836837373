"""Tests of `bench/coldstarts`: what it computes, and what it takes for a measurement.

`python3 -m unittest discover -s bench/tests`. Must not know: an engine.
"""

import socketserver
import sys
import threading
import time
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True

from harness import bursts, coldstarts, idle_instances  # noqa: E402
from harness.errors import Invalid  # noqa: E402
from harness.findings import Finding, percentile  # noqa: E402
from harness.http_client import Target, at_once, paced  # noqa: E402


class Answers(socketserver.BaseRequestHandler):
    """Answers a request in two pieces; `/wrong` wrongly, `/close` not at all."""

    def handle(self):
        while asked := self.request.recv(65536):
            if asked.startswith(b"POST /close"):
                return
            body = b"wrong" if asked.startswith(b"POST /wrong") else b"Hello world!"
            answer = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
            self.request.sendall(answer[:20])
            self.request.sendall(answer[20:])


class Computed(unittest.TestCase):
    def test_percentiles_are_values_that_were_measured(self):
        values = list(range(1, 201))
        self.assertEqual([percentile(values, share) for share in (50, 99, 100)], [100, 198, 200])
        self.assertEqual(percentile([3.0], 99), 3.0)

    def test_a_finding_is_judged_by_its_side_of_the_limit(self):
        self.assertIn("**pass**", Finding("p50", 1.5, 1.5, "ms").line())
        self.assertIn("**MISS**", Finding("p50", 1.51, 1.5, "ms").line())
        self.assertIn("**MISS**", Finding("rate", 149.0, 150.0, "/s", at_least=True).line())
        self.assertNotIn("target", Finding("told", 1.0, None, "ms").line())

    def test_rates_of_a_burst_before_and_after_the_pool_has_ended(self):
        calls = [one for one in range(1, bursts.POOL + 1)]
        later = [bursts.POOL + 10 * number for number in range(1, 101)]
        self.assertEqual(bursts._rates([*later, *calls]), (1000.0, 100.0))
        self.assertEqual(bursts._rates([1.0, 2.0]), (1000.0, 0.0))

    def test_memory_of_an_instance_is_what_more_of_them_added(self):
        def memory(containers, slab, tables):
            kernel = dict.fromkeys(idle_instances.KERNEL, 0.0) | {"Slab": slab, "PageTables": tables}
            return {
                "containers": containers,
                "pss_mb": {"python": 2.0, "init": 0.1},
                "page_tables_mb": {"python": 0.05, "init": 0.01},
                "mappings": {"python": 60, "init": 20},
                "mappings_mb": 0.04 * containers,
                "kernel_mb": kernel,
            }

        found = {
            "few": memory(10, 100.0, 10.0),
            "many": memory(110, 150.0, 20.0),
            "calls_ms": [[1.0, 1.0], [1.2, 1.4]],
            "phases_ms": [{"claim": 0.1, "attach": 0.1}, {"claim": 0.2, "attach": 0.1}],
        }
        ratio, funclet, each, _, space, own, *_ = idle_instances._python_findings(found, 110)
        self.assertAlmostEqual(ratio.value, 1.3)
        self.assertAlmostEqual(funclet.value, 1.5)
        self.assertAlmostEqual(each.value, 2.7)
        self.assertAlmostEqual(space.value, 0.08)
        self.assertAlmostEqual(own.value, 0.62)

    def test_a_section_that_fails_is_no_measurement(self):
        def fails(*_):
            raise Invalid("no engine")

        told = []
        out = coldstarts.run(coldstarts.Section("nothing", fails), None, None, told.append)
        self.assertEqual((out["invalid"], out["findings"]), ("no engine", []))
        self.assertIn("INVALID", told[0])


class AtOnce(unittest.TestCase):
    def setUp(self):
        self.server = socketserver.ThreadingTCPServer(("127.0.0.1", 0), Answers)
        self.addCleanup(self.server.server_close)
        self.addCleanup(self.server.shutdown)
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def target(self, path):
        return Target(self.server.server_address[1], path)

    def test_every_call_is_answered_and_timed(self):
        took = at_once("right", [self.target("/")] * 20)
        self.assertEqual(len(took), 20)
        self.assertTrue(all(one > 0 for one in took))

    def test_paced_calls_are_counted_from_when_they_were_due(self):
        began = time.monotonic()
        took = paced("right", self.target("/"), 200, 0.1)
        self.assertEqual(len(took), 20)
        self.assertGreaterEqual(time.monotonic() - began, 19 / 200)
        with self.assertRaises(Invalid):
            paced("wrong", self.target("/wrong"), 200, 0.1)

    def test_one_wrong_or_missing_answer_is_no_measurement(self):
        for path in ("/wrong", "/close"):
            with self.assertRaises(Invalid):
                at_once("wrong", [self.target("/"), self.target(path)])


if __name__ == "__main__":
    unittest.main()
