"""Tests of the benchmark's runner: what it computes, what it refuses, and a whole quick run against a stand-in.

`python3 -m unittest discover -s bench/tests`; the last class installs nginx, haproxy and wrk where they are missing, builds
loadgen for release, and needs node.
"""

import dataclasses
import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
import types
import unittest
from pathlib import Path
from unittest import mock

BENCH = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(BENCH))
sys.dont_write_bytecode = True

from harness import cases, cold, cpu, engine, http_client, idle, load, loadgen, processes  # noqa: E402
from harness import report, setup, warm, wrk  # noqa: E402
from harness.errors import Invalid, Setup, Unavailable  # noqa: E402

RESULT = (
    'RESULT {"requests":%d,"duration_us":1000000,"bytes":9000,"connect_errors":0,"read_errors":0,"write_errors":0,'
    '"status_errors":%d,"timeouts":0,"p50_us":1,"p90_us":2,"p99_us":3,"max_us":4}'
)
OPTIONS = {"rounds": 2, "seconds": 1, "first_warm_up": 1, "warm_up": 0, "quick": True, "baselines": False}
OPTIONS |= {"generator": "loadgen", "calibration": None}
TARGET = http_client.Target(1, "/f", headers={"X-A": 'say "b"'})


def options(**changed):
    return types.SimpleNamespace(**{**OPTIONS, "default_shards": False, **changed})


def usage(start=1, user=0, system=0, tasks=None):
    return cpu.Usage(start, user, system, tasks if tasks is not None else {1: user + system})


class Cpu(unittest.TestCase):
    def test_a_command_name_may_hold_anything(self):
        self.assertEqual(cpu.stat_fields("7 (a) b (c)) S 3 7")[:2], ["S", "3"])

    def test_threads_are_summed_and_a_new_process_counts_in_full(self):
        before = {10: usage(user=100, tasks={10: 60, 11: 40})}
        after = {10: usage(user=300, tasks={10: 160, 11: 80, 12: 5}), 20: usage(start=9, user=7, tasks={20: 7})}
        out = cpu.spent(before, after)
        self.assertEqual((out.total_ns, out.processes, out.lost), (100 + 40 + 5 + 7, 2, 0))

    def test_what_an_ended_thread_used_is_taken_from_the_ticks(self):
        out = cpu.spent({10: usage(user=100, tasks={10: 60, 11: 40})}, {10: usage(user=350, tasks={10: 90})})
        self.assertEqual(out.total_ns, 250)

    def test_another_process_under_an_old_number_is_another_process(self):
        out = cpu.spent({10: usage(start=1, user=1000)}, {10: usage(start=2, user=30)})
        self.assertEqual((out.total_ns, out.lost), (30, 1))

    def test_a_busy_child_is_found_and_charged(self):
        child = subprocess.Popen(
            [sys.executable, "-c", "n = 0\nfor i in range(3000000): n += i\nprint(n); input()"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        try:
            child.stdout.readline()
            self.assertIn(child.pid, cpu.tree(os.getpid()))
            self.assertGreater(cpu.spent({}, cpu.snapshot([child.pid])).total_ns, 1_000_000)
            self.assertGreater(cpu.pss_bytes(child.pid), 100_000)
        finally:
            child.communicate(b"\n")

    def test_per_request(self):
        spent = cpu.Spent(total_ns=8_000_000, user_ns=30, system_ns=10, processes=1)
        self.assertEqual(
            spent.per(1000), {"total_us": 8.0, "user_us": 6.0, "system_us": 2.0, "processes": 1, "lost": 0}
        )


class Wrk(unittest.TestCase):
    def test_a_clean_run_is_taken(self):
        self.assertEqual(wrk.parse_result("x", "Running\n" + RESULT % (70, 0))["requests"], 70)

    def test_runs_that_mean_nothing_are_refused(self):
        for output in (RESULT % (70, 1), RESULT % (0, 0), "unable to connect", ""):
            with self.assertRaises(Invalid, msg=output):
                wrk.parse_result("x", output)

    def test_the_request_is_lua(self):
        script = wrk.lua_script(TARGET)
        self.assertIn('wrk.headers["X-A"] = "say \\"b\\""', script)
        self.assertIn('wrk.body = "{\\"key1\\"', script)
        self.assertNotIn("wrk.body", wrk.lua_script(http_client.Target(1, "/", method="GET", body=b"")))


def told(**broken):
    """A result as loadgen prints it; `broken` is gate to reason."""

    def times(most):
        percentiles = [{"percent": 50.0, "us": 7.0}, {"percent": 90.0, "us": 8.0}, {"percent": 99.0, "us": most}]
        percentiles += [{"percent": 99.9, "us": None}, {"percent": 100.0, "us": 9.5}]
        basics = {"count": 100, "min_us": 1.0, "mean_us": 7.1, "max_us": 9.5, "curve": [[0.5, 7.0]]}
        return basics | {"percentiles": percentiles}

    names = ("schedule", "lag", "delivered", "cpu", "errors")
    second = {"second": 0, "length_s": 1.0, "succeeded": 100, "failed": 0, "bytes_received": 1, "p50_us": 7.0}
    keys = ("loop", "rate_asked", "arrivals", "seed", "connections", "cores", "request_bytes")
    return {
        "tool": "loadgen 0",
        "valid": not broken,
        "gates": [
            {"number": 1, "name": name, "state": "broken" if name in broken else "passed", "detail": broken.get(name)}
            for name in names
        ],
        "setting": {"warm_up_s": 0.5, "target": "t"} | dict.fromkeys(keys, 1),
        "duration_s": 1.0,
        "requests": 100,
        "succeeded": 100,
        "failed": {"status": 0, "body": 0},
        "rate": 100.0,
        "offered_rate": 100.0,
        "latency": {"intended_to_done": times(9.0), "sent_to_done": times(5.0), "send_lag": times(2.0)},
        "waited_for_connection": 0,
        "connection_wait_us_max": 0.0,
        "reconnects": 0,
        "bytes_sent": 1,
        "bytes_received": 9000,
        "generator": {"cpu_us_per_request": 5.0, "busy": [0.4, 0.75]},
        "seconds": [second | {"p99_us": 9.0, "max_us": 9.5}],
        "environment": {"kernel": "6.18"},
    }


class Loadgen(unittest.TestCase):
    def parsed(self, result):
        return loadgen.parse_result("x", TARGET, json.dumps(result))

    def test_figures_are_from_the_intended_send(self):
        out = loadgen.figures(self.parsed(told()))
        self.assertEqual((out["requests"], out["p50_us"], out["p99_us"], out["p999_us"]), (100, 7.0, 9.0, None))
        self.assertEqual((out["generator_busy"], out["broken_gates"]), (0.75, {}))
        # Half a second of warm-up before one of measuring: the server answered half as many more.
        self.assertEqual(out["answered"], 150)

    def test_a_closed_loop_has_service_times_alone(self):
        result = told()
        result["latency"] |= {"intended_to_done": None, "send_lag": None}
        out = loadgen.figures(self.parsed(result))
        self.assertEqual((out["p99_us"], out["lag_p999_us"]), (5.0, None))

    def test_broken_gates_are_taken_over(self):
        out = loadgen.figures(self.parsed(told(lag="late", cpu="75 %")))
        self.assertEqual(out["broken_gates"], {"lag": "late", "cpu": "75 %"})
        self.assertEqual(out["generator"]["gates"]["lag"], ["broken", "late"])
        calm = {"foreign_busy": 0.0, "steal": 0.0, "cpu": {}}
        self.assertEqual(warm.marks(calm | out), ["gate-lag", "gate-cpu"])

    def test_runs_that_mean_nothing_are_refused(self):
        right = mock.patch.object(loadgen, "check")
        wrong = mock.patch.object(loadgen, "check", side_effect=Invalid("answers Hello wrong!"))
        with right, self.assertRaisesRegex(Invalid, "failed: {'body': 3}"):
            self.parsed(told() | {"failed": {"status": 0, "body": 3}})
        with wrong, self.assertRaisesRegex(Invalid, "Hello wrong!"):
            self.parsed(told() | {"failed": {"status": 0, "body": 3}})
        with right, self.assertRaisesRegex(Invalid, "0 requests"):
            self.parsed(told() | {"requests": 0})
        with self.assertRaisesRegex(Invalid, "calls its own run INVALID: one was forgotten"):
            self.parsed(told(schedule="one was forgotten"))
        with self.assertRaisesRegex(Invalid, "no result"):
            loadgen.parse_result("x", TARGET, "error: ")

    def test_the_raw_data_leaves_out_curves_and_the_environment(self):
        out = loadgen.compact(told())
        self.assertNotIn("environment", out)
        self.assertNotIn("curve", out["latency"]["send_lag"])
        self.assertEqual(out["latency"]["send_lag"]["percentiles"]["99"], 2.0)
        self.assertEqual(out["seconds"]["succeeded"], [100])

    def test_the_request_and_the_right_answer_are_files(self):
        with tempfile.TemporaryDirectory() as folder:
            asked = load.Load("loadgen", "lg", 64, 3, 1, rate=500)
            argv = loadgen.command("x", TARGET, Path(folder), asked)
            self.assertEqual((Path(folder) / "x.answer").read_bytes(), http_client.HELLO)
            self.assertEqual((Path(folder) / "x.body").read_bytes(), http_client.EVENT)
        self.assertEqual(argv[:2], ["lg", "run"])
        self.assertEqual(argv[argv.index("--cores") + 1], "1")
        self.assertEqual(argv[argv.index("--rate") + 1], "500")
        self.assertEqual(argv[argv.index("--header") + 1], 'X-A: say "b"')
        self.assertFalse(asked.is_sampled())


class Programs(unittest.TestCase):
    def test_what_has_no_core_of_its_own_may_use_every_core(self):
        own = os.sched_getaffinity(0)
        work = Path(tempfile.mkdtemp())
        self.addCleanup(shutil.rmtree, work)
        self.addCleanup(os.sched_setaffinity, 0, own)
        os.sched_setaffinity(0, {min(own)})
        for core, allowed in ((None, own), (max(own), {max(own)})):
            process = processes.Process("sleeper", ["sleep", "60"], work, core)
            try:
                processes.until(process, "being pinned", lambda one=process, to=allowed: os.sched_getaffinity(one.pid) == to)
            finally:
                process.stop()

    def test_a_program_runs_to_its_end_in_a_session_of_its_own(self):
        text = "import os, sys; print(os.getsid(0) == os.getpid()); sys.stderr.write('said\\n'); sys.exit(7)"
        ended = processes.run_counted([sys.executable, "-c", text])
        self.assertEqual((ended.code, ended.output, ended.said), (7, "True\n", "said"))
        self.assertGreater(ended.cpu_seconds, 0)


class Verdicts(unittest.TestCase):
    CASE = cases.Warm(
        "a", "t", None, (cases.Goal("front_us", 0.5), cases.Goal("rate", 2.0, at_least=True)), baseline="nginx"
    )

    def result(self, ours, theirs, invalid=None):
        rounds = [
            {"engine": dict.fromkeys(warm.PRINTED, 0) | one, "nginx": dict.fromkeys(warm.PRINTED, 0) | two}
            for one, two in zip(ours, theirs, strict=True)
        ]
        return {"rounds": rounds, "medians": warm.medians(rounds), "invalid": invalid}

    def test_ratios_of_medians_with_the_range_of_rounds(self):
        ours = [{"front_us": 4, "rate": 30}, {"front_us": 5, "rate": 20}, {"front_us": 9, "rate": 10}]
        result = self.result(ours, [{"front_us": 10, "rate": 10}] * 3)
        front, rate = warm.judge(self.CASE, result)
        self.assertEqual((front["value"], front["range"]), (0.5, (0.4, 0.9)))
        self.assertEqual([report.verdict(one["goal"], one["value"]) for one in (front, rate)], ["pass", "pass"])

    def test_a_miss_is_called_one(self):
        result = self.result([{"front_us": 5.1, "rate": 19}], [{"front_us": 10, "rate": 10}])
        self.assertEqual(
            [report.verdict(one["goal"], one["value"]) for one in warm.judge(self.CASE, result)], ["MISS"] * 2
        )
        self.assertIn("**MISS**", "\n".join(report.verdicts(self.CASE, result)))

    def test_no_verdict_without_both_sides_or_on_an_invalid_case(self):
        good = [{"front_us": 1, "rate": 50}]
        alone = self.result(good, good)
        del alone["medians"]["nginx"]
        for result in (alone, self.result(good, good, invalid="answered 502")):
            self.assertEqual([one["value"] for one in warm.judge(self.CASE, result)], [None, None])
            self.assertIn("not measured", report.verdicts(self.CASE, result)[0])

    def test_cold_and_idle(self):
        series = {one.key: {"calls_ms": [[2.0]], "phases_ms": {}} for one in cold.SERIES}
        series["apart"] = {"calls_ms": [[1.0, 7.0], [6.5]], "phases_ms": {"claim": 0.5}}
        series[cold.JUDGED] = {"calls_ms": [[1.0, 7.0], [6.5]], "phases_ms": {}}
        series["at_once"] = {"calls_ms": [[9.0, 8.0]], "phases_ms": {"load": 0.25}}
        result = {"runtimes": {"python3": {"series": series, "warm_ms": 0.1}}, "invalid": None}
        lines = report.verdicts(cases.Cold(), result)
        self.assertIn("6.50 ms: **MISS**", lines[0])
        self.assertIn("not measured", lines[1])
        table = report._cold_table(result)
        for row in (
            "| python3 | 100 ms apart | 3 | 6.50 | 7.00 | 7.00 | 0.10 |",
            "| python3 | 8 at once | 2 | 8.50 | 9.00 | 9.00 | 0.10 |",
            "| runtime | calls | claim | load |",
            "| python3 | 100 ms apart | 0.50 | - |",
            "| python3 | 8 at once | - | 0.25 |",
        ):
            self.assertIn(row, table)
        self.assertEqual(cold._mean_phases([([], {"a": 1.0, "b": 3.0}), ([], {"a": 2.0})]), {"a": 1.5, "b": 3.0})
        done = {"measured": {"pss_mb": 29.9, "cpu_percent": 0.6}, "invalid": None}
        self.assertEqual(
            [report.verdict(one["goal"], one["value"]) for one in idle.judge(cases.Idle(), done)], ["pass", "MISS"]
        )

    def test_every_goal_names_a_measure(self):
        for case in cases.CASES:
            for goal in getattr(case, "goals", ()):
                self.assertIn(goal.measure, (*warm.PRINTED, "pss_mb", "cpu_percent"))

    def test_what_could_not_be_told_has_no_median_and_no_verdict(self):
        result = self.result([{"front_us": None, "rate": 30}], [{"front_us": 10, "rate": 10}])
        self.assertIsNone(result["medians"]["engine"]["front_us"])
        self.assertEqual([one["value"] for one in warm.judge(self.CASE, result)], [None, 3.0])

    def test_raw_data_has_a_line_for_each_window(self):
        results = [{"case": "a", "rounds": [{"engine": {"rate": 1}, "nginx": {"rate": 2}}]}, {"case": "g"}]
        text = report.raw_data(results)
        self.assertEqual(json.loads(text), results)
        self.assertIn('"nginx": {"rate": 2}\n', text)

    def test_windows_are_marked(self):
        calm = {"foreign_busy": 0.01, "steal": 0.0, "generator_busy": 0.5, "cpu": {"front": {"lost": 0}}}
        self.assertEqual(warm.marks(calm), [])
        self.assertEqual(warm.marks(calm | {"steal": 0.1, "generator_busy": 0.99}), ["disturbed", "generator-full"])
        self.assertEqual(warm.marks(calm | {"cpu": {"front": {"lost": 1}}}), ["processes-ended"])


class CommandLine(unittest.TestCase):
    def refused(self, *words):
        done = subprocess.run([BENCH / "run", *words], capture_output=True, text=True)
        self.assertEqual(done.returncode, 2, done.stderr)
        return done.stderr

    def test_bad_choices_are_refused_in_a_sentence(self):
        self.assertIn("unknown: x", self.refused("--cases", "a,x"))
        self.assertIn("name at least one", self.refused("--cases", "h"))
        self.assertIn("measures the engine alone", self.refused("--baselines", "--cases", "f"))
        self.assertIn("at least 1", self.refused("--rounds", "0"))
        self.assertIn("which wrk does not have", self.refused("--generator", "wrk", "--cases", "j"))

    def test_a_missing_engine_is_named(self):
        with tempfile.TemporaryDirectory() as empty:
            with self.assertRaisesRegex(Setup, "cargo build --release"):
                setup.Tools(Path(empty), 0, 1, empty).engine_program()
            with self.assertRaises(Unavailable):
                setup.Tools(Path(empty), 0, 1, empty).program("ring_hello")

    def test_missing_programs_and_modules_are_named_by_their_packages(self):
        there, absent = {"sh": "dash"}, {"no-such-program": "b", "no-such-either": "b"}
        with mock.patch.multiple(setup, PACKAGES=there | absent, MODULES={"json": "c", "no_such_module": "a"}):
            self.assertEqual(setup.missing_packages(), ["a", "b"])
        with mock.patch.multiple(setup, PACKAGES=there, MODULES={"json": "c"}):
            self.assertEqual(setup.missing_packages(), [])

    def test_packages_start_no_services_while_they_are_installed(self):
        with tempfile.TemporaryDirectory() as folder:
            policy = Path(folder) / "policy-rc.d"
            with setup.no_services_started(policy):
                self.assertEqual(subprocess.run([policy, "nginx", "start"]).returncode, 101)
            self.assertFalse(policy.exists())
            policy.write_text("the owner's")
            with setup.no_services_started(policy):
                self.assertEqual(policy.read_text(), "the owner's")
            self.assertEqual(policy.read_text(), "the owner's")

    def test_folders_of_runs_are_never_reused(self):
        with tempfile.TemporaryDirectory() as root:
            where = {"host": "h", "kernel": "6.18"}
            first, second = (report.folder(Path(root), where) for _ in range(2))
            self.assertTrue(first.name.endswith("-h-6.18") and second.name == f"{first.name}-2")


class WholeRun(unittest.TestCase):
    """The engine contender and its cases against the stand-in, beside a real baseline, driven by the real loadgen."""

    @classmethod
    def setUpClass(cls):
        setup.install_packages()
        real = setup.Tools(None, None, None)
        real.build_loadgen()
        cls.loadgen = real.loadgen_program()

    def setUp(self):
        self.folder = Path(tempfile.mkdtemp(prefix="faaster-bench-test-"))
        self.addCleanup(shutil.rmtree, self.folder)
        program = self.folder / "target" / "release" / "faaster"
        program.parent.mkdir(parents=True)
        shutil.copy(BENCH / "tests" / "fake_faaster.py", program)
        program.chmod(program.stat().st_mode | stat.S_IXUSR)
        (program.parent / "loadgen").symlink_to(self.loadgen)
        self.addCleanup(os.environ.pop, "FAKE_WRONG_AFTER", None)
        self.tools = setup.Tools(self.folder, None, None, self.folder / "target")
        self.tools._bootstrap = b"not run by the stand-in"
        self.said = []

    def case(self, key):
        return next(case for case in cases.CASES if case.key == key)

    def test_a_warm_case_with_everything_in_it(self):
        case = self.case("c")
        result = warm.run(case, self.tools, options(default_shards=True), self.said.append)
        self.assertIsNone(result["invalid"], self.said)
        self.assertEqual(list(result["medians"]), ["node", "engine", "engine-default-shards"])
        last = result["rounds"][1]["engine"]
        self.assertEqual(last["instances"], 1)
        self.assertGreater(last["front_us"], 0)
        self.assertEqual([last["cpu"][role]["processes"] for role in ("front", "worker", "support")], [1, 1, 2])
        self.assertAlmostEqual(last["rate"], last["requests"] / last["duration_us"] * 1e6)
        self.assertEqual(last["generator"]["setting"]["connections"], cases.CONNECTIONS)
        self.assertEqual(len(last["generator"]["gates"]), 11)
        self.assertIsNotNone(warm.judge(case, result)[0]["value"])
        environment = setup.environment(self.tools, ["run"])
        text = report.summary([(case, result)], environment, options(quick=False))
        self.assertIn("| engine-default-shards |", text)
        self.assertIn("(c) total_us, engine / node: target <= 0.7x", text)
        self.assertNotIn("target <=", report.summary([(case, result)], environment, options()))
        self.nothing_runs()

    def test_wrk_can_drive_as_well(self):
        result = warm.run(self.case("c"), self.tools, options(generator="wrk", rounds=1), self.said.append)
        self.assertIsNone(result["invalid"], self.said)
        self.assertNotIn("generator", result["rounds"][0]["engine"])
        self.assertGreater(result["medians"]["engine"]["p50_us"], 0)
        self.nothing_runs()

    def test_an_open_loop_tells_latencies_at_its_rate_with_plots(self):
        case = dataclasses.replace(self.case("c"), rate=100)
        result = warm.run(case, self.tools, options(), self.said.append)
        self.assertIsNone(result["invalid"], self.said)
        last = result["rounds"][1]["engine"]
        self.assertEqual(last["generator"]["offered_rate"], 100)
        self.assertEqual((last["requests"], last["generator"]["latency"]["send_lag"]["count"]), (100, 100))
        self.assertIn("gate-samples", last["marks"])
        self.assertIn("<svg", result["pages"]["case-c.html"])
        text = report.summary([(case, result)], setup.environment(self.tools, ["run"]), options(quick=False))
        self.assertIn("send lag p99.9 us", text)
        written = self.folder / "out"
        written.mkdir()
        report.write(written, [(case, result)], setup.environment(self.tools, ["run"]), options())
        self.assertEqual(json.loads((written / "rounds.json").read_text())[0]["rounds"][1]["engine"], last)
        self.assertEqual((written / "case-c.html").read_text(), result["pages"]["case-c.html"])
        self.nothing_runs()

    def test_an_engine_that_begins_to_answer_wrongly_makes_the_case_invalid(self):
        os.environ["FAKE_WRONG_AFTER"] = "60"
        result = warm.run(self.case("c"), self.tools, options(), self.said.append)
        self.assertIn("Hello wrong!", result["invalid"])
        self.assertEqual([one["value"] for one in warm.judge(self.case("c"), result)], [None])
        self.nothing_runs()

    def test_cold_and_idle(self):
        result = cold.run(self.case("f"), self.tools, options(), self.said.append)
        self.assertIsNone(result["invalid"], self.said)
        self.assertEqual(set(result["runtimes"]), {"python3", "nodejs", "provided"})
        measured = result["runtimes"]["nodejs"]
        for series in cold.SERIES:
            told = measured["series"][series.key]
            self.assertEqual([len(calls) for calls in told["calls_ms"]], [cold.QUICK_SAMPLES])
            self.assertEqual(set(told["phases_ms"]), {"claim", "run", "elsewhere"})
            self.assertAlmostEqual(told["phases_ms"]["claim"], 1.5, places=2)
        self.assertGreater(measured["warm_ms"], 0)
        text = report.summary([(self.case("f"), result)], setup.environment(self.tools, ["run"]), options(quick=False))
        self.assertIn("| nodejs | back to back, by fours | 2 |", text)
        resting = idle.run(self.case("g"), self.tools, options(), self.said.append)
        self.assertIsNone(resting["invalid"], self.said)
        self.assertGreater(resting["measured"]["pss_mb"], 1)
        self.assertEqual(resting["measured"]["pool_processes"], 1)
        self.nothing_runs()

    def test_a_cold_start_that_fails_is_no_measurement(self):
        os.environ["FAKE_WRONG_AFTER"] = "3"
        result = cold.run(self.case("f"), self.tools, options(), self.said.append)
        self.assertIn("Hello wrong!", result["invalid"])
        self.nothing_runs()

    def test_the_zip_of_a_provided_function_is_executable(self):
        function = engine.Function(self.tools, "provided")
        self.assertNotEqual(function.archive("a"), function.archive("b"))
        path = self.folder / "f.zip"
        path.write_bytes(function.archive("a"))
        with engine.zipfile.ZipFile(path) as archive:
            self.assertEqual(archive.getinfo("bootstrap").external_attr >> 16, 0o755)

    def nothing_runs(self):
        mine = [pid for pid in cpu.tree(os.getpid()) if pid != os.getpid()]
        self.assertEqual([engine.command_line(pid) for pid in mine], [])


if __name__ == "__main__":
    unittest.main()
