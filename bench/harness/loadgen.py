"""Our `loadgen` as the load generator: one run, its result in a compact form, its verdict taken over.

It compares the status and the whole body of every answer. A run in which one was wrong is no measurement; any other gate
that is broken (docs/measuring.md) marks the window, with the reason.
"""

import json

from .errors import Invalid
from .http_client import check
from .processes import EVERY_CORE, run_counted

# A request without its whole answer after this has failed.
TIMEOUT_SECONDS = 10
# The server has been warmed up before: within this the connections open, and nothing is counted.
WARM_UP_SECONDS = 0.02
# loadgen's exit codes: the numbers may be quoted, or may not.
VALID, BROKEN = 0, 3
# Without these no number of the run means anything: a right answer to each request, and an account of each.
NEEDED = ("errors", "schedule")
PERCENTILES = {"p50_us": 50.0, "p90_us": 90.0, "p99_us": 99.0, "p999_us": 99.9}


def command(name, target, work, load):
    """The command line; request and answer are given in files, as bytes."""
    expected = work / f"{name}.answer"
    expected.write_bytes(target.expected)
    argv = [str(load.program), "run", "--json", "--connections", str(load.connections)]
    argv += ["--duration", f"{load.seconds}s", "--warm-up", f"{WARM_UP_SECONDS}s"]
    argv += ["--timeout", f"{TIMEOUT_SECONDS}s", "--method", target.method]
    argv += ["--expect-status", "200", "--expect-body", f"@{expected}", "--errors-max", "0"]
    for header, value in target.headers.items():
        argv += ["--header", f"{header}: {value}"]
    if target.body:
        body = work / f"{name}.body"
        body.write_bytes(target.body)
        argv += ["--body", f"@{body}"]
    argv += ["--cores", str(load.core)] if load.core is not None else []
    argv += ["--rate", str(load.rate)] if load.rate is not None else []
    argv += ["--calibration", str(load.calibration)] if load.calibration is not None else []
    return [*argv, *load.more, target.url()]


def run(name, target, work, load):
    """One run of loadgen: its figures, with its CPU seconds."""
    # It pins its thread itself. Its main thread, which adds up every second, must not get in that one's way, and would if
    # it could only use the runner's core.
    ended = run_counted(command(name, target, work, load), EVERY_CORE)
    if ended.code not in (VALID, BROKEN):
        raise Invalid(f"{name}: loadgen failed with code {ended.code}: {ended.said[-500:]!r}")
    result = parse_result(name, target, ended.output)
    if load.record is not None:
        with open(load.record, "a") as file:
            file.write(ended.output)
    return {**figures(result), "generator_cpu_seconds": ended.cpu_seconds}


def first_calls(name, engine, function, target, count, drive):
    """`loadgen cold` on an engine: the milliseconds of each call, and the means of its phases as the engine tells them. `target` is a call
    of a function that stays, to see how it answers if calls fail."""
    setup = engine.setup
    code, body, expected = (setup.work / f"{name}.{kind}" for kind in ("zip", "body", "answer"))
    code.write_bytes(function.archive(name))
    body.write_bytes(target.body)
    expected.write_bytes(target.expected)
    argv = [setup.loadgen_program(), "cold", "--json", "--functions", count, *drive, "--errors-max", "0"]
    argv += ["--runtime", function.runtime, "--handler", function.handler(), "--code", code, "--own-code"]
    argv += ["--body", f"@{body}", "--expect-body", f"@{expected}", "--account", engine.ACCOUNT]
    argv += ["--pid", engine.started["supervisor"][0].pid, "--settle"]
    argv += ["--cores", setup.load_core] if setup.load_core is not None else []
    argv += ["--registry", f"http://127.0.0.1:{engine.registry_port}", f"http://127.0.0.1:{engine.port}"]
    ended = run_counted(argv, EVERY_CORE)
    if ended.code not in (VALID, BROKEN):
        raise Invalid(f"{name}: loadgen failed with code {ended.code}: {ended.said[-500:]!r}")
    result = parse_result(name, target, ended.output)
    calls = result["cold"]["calls_us"]
    if not len(calls) == result["succeeded"] == count:
        raise Invalid(f"{name}: {len(calls)} calls, {result['succeeded']} of them good, instead of {count}")
    phases = {phase["name"]: phase["times"]["mean_us"] / 1e3 for phase in result["phases"]}
    return [one / 1e3 for one in calls], phases


def parse_result(name, target, output):
    """loadgen's object; fails if an answer was wrong or a request was forgotten."""
    try:
        result = json.loads(output)
    except json.JSONDecodeError as error:
        raise Invalid(f"{name}: loadgen printed no result: {output[-500:]!r}") from error
    failed = {kind: count for kind, count in result["failed"].items() if count}
    if failed or result["requests"] <= 0:
        check(name, target)  # where the answer is still wrong, this says how
        raise Invalid(f"{name}: {result['requests']} requests, of them failed: {failed or 'none'}; nothing may fail")
    for name_of_gate, detail in broken_gates(result).items():
        if name_of_gate in NEEDED:
            raise Invalid(f"{name}: loadgen calls its own run INVALID: {detail}")
    return result


def broken_gates(result):
    """Gate to reason."""
    return {gate["name"]: gate["detail"] for gate in result["gates"] if gate["state"] == "broken"}


def figures(result):
    """What the harness computes with; latencies are from the intended send where there is one."""
    latency = result["latency"]
    times = latency["intended_to_done"] or latency["sent_to_done"]
    setting = result["setting"]
    return {
        "requests": result["succeeded"],
        "duration_us": result["duration_s"] * 1e6,
        "bytes": result["bytes_received"],
        "rate": result["rate"],
        # Of the whole run: the requests of its short warm-up are not counted, but the server worked for them.
        "answered": result["succeeded"] * (1 + setting["warm_up_s"] / result["duration_s"]),
        "mean_us": times["mean_us"],
        "max_us": times["max_us"],
        **{key: at(times, percent) for key, percent in PERCENTILES.items()},
        "lag_p999_us": at(latency["send_lag"], 99.9) if latency["send_lag"] else None,
        "generator_busy": max(result["generator"]["busy"]),
        "broken_gates": broken_gates(result),
        "generator": compact(result),
    }


def at(distribution, percent):
    """One percentile, `None` where loadgen had too few requests to tell it."""
    return next(one["us"] for one in distribution["percentiles"] if one["percent"] == percent)


def compact(result):
    """The result without what is the same in every window, and without the curves for plots."""

    def times(distribution):
        if distribution is None:
            return None
        told = {f"{one['percent']:g}": one["us"] for one in distribution["percentiles"]}
        return {key: distribution[key] for key in ("count", "min_us", "mean_us", "max_us")} | {"percentiles": told}

    whole = ("tool", "valid", "duration_s", "requests", "succeeded", "failed", "offered_rate", "waited_for_connection")
    whole += ("connection_wait_us_max", "reconnects", "bytes_sent", "bytes_received", "generator")
    return {key: result[key] for key in whole} | {
        "setting": {
            key: result["setting"][key]
            for key in ("loop", "rate_asked", "arrivals", "seed", "connections", "cores", "request_bytes")
        },
        "gates": {gate["name"]: [gate["state"], gate["detail"]] for gate in result["gates"]},
        "latency": {key: times(distribution) for key, distribution in result["latency"].items()},
        "seconds": {
            key: [second[key] for second in result["seconds"]] for key in ("succeeded", "p50_us", "p99_us", "max_us")
        },
    }
