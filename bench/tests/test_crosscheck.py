"""Tests of the generators' cross-check: what it reads from other tools, what it computes and how it judges.

`python3 -m unittest discover -s bench/tests`; needs none of the tools.
"""

import json
import subprocess
import sys
import types
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True

from harness import crosscheck, crosscheck_report, floor, others, warm  # noqa: E402
from harness.errors import Invalid  # noqa: E402

HEY = """
Summary:
  Total:	2.0021 secs
  Slowest:	0.0141 secs
  Fastest:	0.0001 secs
  Average:	0.0019 secs
  Requests/sec:	26412.1213

Latency distribution:
  10%% in 0.0005 secs
  50%% in 0.0011 secs
  90%% in 0.0020 secs
  99%% in 0.0028 secs

Status code distribution:
  [%d]	52880 responses
"""


def oha(status="200", **errors):
    at = {"p50": 0.001, "p90": 0.002, "p99": 0.003, "p99.9": 0.004}
    summary = {"total": 2.0, "average": 0.0011, "slowest": 0.005, "requestsPerSec": 999.0}
    return json.dumps(
        {
            "summary": summary,
            "latencyPercentiles": at,
            "statusCodeDistribution": {status: 4000},
            "errorDistribution": errors,
        }
    )


class Others(unittest.TestCase):
    def test_what_hey_prints_is_read(self):
        out = others.parse_hey("x", HEY % 200)
        self.assertEqual((out["requests"], out["rate"], out["p99_us"]), (52880, 26412.1213, 2800.0))
        self.assertIsNone(out["p999_us"])

    def test_what_oha_prints_is_read_and_its_cut_requests_are_no_failures(self):
        out = others.parse_oha("x", oha(**{"aborted due to deadline": 50}))
        self.assertEqual((out["requests"], out["rate"], out["p50_us"]), (4000, 2000.0, 1000.0))

    def test_failures_are_refused(self):
        for output in (HEY % 502, HEY % 200 + "\nError distribution:\n  [3] timeout", "nothing"):
            with self.assertRaises(Invalid, msg=output):
                others.parse_hey("x", output)
        for output in (oha("502"), oha(**{"connection closed": 1})):
            with self.assertRaises(Invalid, msg=output):
                others.parse_oha("x", output)


class Correction(unittest.TestCase):
    """wrk's stats_correct, on distributions that can be worked out by hand."""

    def told(self, curve, rate, connections=10):
        basics = {"rate": rate, "cpu_us": 1.0, "generator_busy": 0.1, "server_busy": 0.2, "curve": curve}
        return crosscheck.as_wrk_would(basics, connections)

    def test_even_times_stay_as_they_are(self):
        # 10 connections at 1,000/s: 10 ms from answer to answer, and no answer took twice that.
        out = self.told([[0.0, 9000.0], [1.0, 11000.0]], 1000)
        self.assertAlmostEqual(out["p50_us"], 10_000, delta=10)

    def test_a_long_answer_counts_again_for_each_interval(self):
        # Half take 1 ms, half 50 ms, at intervals of 10 ms: 50 adds 40, 30 and 20, so that 4 of 5 are of the slow kind.
        out = self.told([[0.0, 1000.0], [0.5, 1000.0], [0.5000001, 50_000.0], [1.0, 50_000.0]], 1000)
        self.assertAlmostEqual(out["p50_us"], 30_000, delta=100)
        self.assertAlmostEqual(out["mean_us"], (1 + 50 + 40 + 30 + 20) / 5 * 1000, delta=100)


class Floor(unittest.TestCase):
    def test_late_is_who_comes_within_a_gap(self):
        # A tenth of the time is a gap: 1 % of all moments are in its first tenth, late by nine tenths of it or more.
        self.assertAlmostEqual(floor.late_ns([100_000], 1_000_000, 0.01), 90_000, delta=2)
        self.assertAlmostEqual(floor.late_ns([50_000] * 2, 1_000_000, 0.01), 45_000, delta=2)
        self.assertEqual(floor.late_ns([], 1_000_000, 0.01), 0)

    def test_the_clock_is_watched(self):
        gaps, wall_ns = floor.measure(0.01)
        self.assertGreaterEqual(wall_ns, 10_000_000)
        self.assertLess(sum(gaps), wall_ns)


class Report(unittest.TestCase):
    def section(self, key, rounds, **changed):
        told = dict.fromkeys(crosscheck.PRINTED, 1.0) | {"under_way": 50.0}
        rounds = [{name: told | one for name, one in each.items()} for each in rounds]
        out = {"key": key, "title": "t", "connections": 10_000, "rounds": rounds, "skipped": {}, "invalid": None}
        return out | {"medians": warm.medians(rounds, crosscheck.PRINTED), "pages": {}} | changed

    def test_targets_are_judged_by_the_ratio_of_medians(self):
        peak = [{"loadgen": {"rate": rate, "cpu_us": 6.0}, "wrk": {"rate": 100.0, "cpu_us": 5.0}} for rate in (99, 101, 102)]
        lines = crosscheck_report.speed_verdicts({"peak": self.section("peak", peak)})
        self.assertIn("1.010x (rounds 0.990 to 1.020): **pass**", lines[0])
        self.assertIn("1.200x (rounds 1.200 to 1.200): **MISS**", lines[1])

    def test_lag_and_memory_are_judged(self):
        both = ((150.0, 151.0), (60.0, 400.0), (90.0, 300.0))
        lag = self.section(
            "lag", [{"loadgen": {"lag_p999_us": now}, "loadgen-before": {"lag_p999_us": was}} for now, was in both]
        )
        generator = {"generator": {"generator": {"memory_peak_kib": 65 * 1024}}}
        lines = crosscheck_report.speed_verdicts({"lag": lag, "many": self.section("many", [{"loadgen": generator}])})
        self.assertIn("median 90.0 us (60.0, 90.0, 150.0): **pass**", "\n".join(lines))
        self.assertIn("build before, in turns with it: median 300.0 us (151.0, 300.0, 400.0)", "\n".join(lines))
        self.assertIn("65.0 MiB: **MISS**", "\n".join(lines))
        alone = crosscheck_report.speed_verdicts({"lag": self.section("lag", [{"loadgen": {"lag_p999_us": 1.0}}])})
        self.assertNotIn("before", "\n".join(alone))

    def test_what_is_farther_than_5_percent_is_bold(self):
        one = {"loadgen": {"rate": 100, "p50_us": 10}, "hey": {"rate": 96, "p50_us": 11, "p99_us": None}}
        rows = crosscheck_report.agreement(self.section("peak", [one]))
        self.assertEqual(rows, ["| peak | hey | 0.960 | **1.100** | 1.000 | - |"])

    def test_the_summary_tells_broken_gates_and_who_is_missing(self):
        one = {"loadgen": {"broken_gates": {"lag": "late"}, "lag_p999_us": 1.0}, "wrk": {}}
        section = self.section("lag", [one, one], skipped={"oha": "not installed"})
        where = {"commit": "c" * 40, "kernel": "6", "cpu": "c", "cores": 2, "server_core": 0, "load_core": 1}
        where |= {"generators": {"wrk": "4.1"}, "modified_files": 0}
        options = types.SimpleNamespace(rounds=2, seconds=1, quick=False)
        text = crosscheck_report.summary([section], where, options)
        self.assertIn("Gates that loadgen found broken (rounds): lag 2", text)
        self.assertIn("Not there: oha (not installed)", text)
        invalid = crosscheck_report.summary([section | {"invalid": "502"}], where, options)
        self.assertIn("**Invalid**: 502", invalid)
        self.assertNotIn("**pass**", invalid)

    def test_bad_choices_are_refused(self):
        done = subprocess.run([BENCH / "crosscheck", "--sections", "peak,x"], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2)
        self.assertIn("--sections takes some of", done.stderr)


if __name__ == "__main__":
    unittest.main()
