"""Cold starts: first calls of functions that nobody has invoked: some time apart, back to back, and eight at once.

`loadgen cold` deploys the functions of each series, each with code of its own, waits until the engine is at rest (the pool of
prepared containers is full then), calls each once and removes them. Their files are in the page cache, as just after an upload.
"""

import statistics

from . import loadgen
from .engine import Engine, Function
from .errors import Invalid
from .http_client import check
from .load import Load

AT_ONCE = 8
SAMPLES = 40
QUICK_SAMPLES = 2
WARM_SECONDS = 1
# Of a result: the calls' milliseconds; the name in tables; how loadgen spaces them. The targets are for the first.
SERIES = (
    ("spaced_ms", "100 ms apart", ("--spacing", "100ms")),
    ("close_ms", "25 ms apart", ("--spacing", "25ms")),
    ("back_to_back_ms", "back to back", ("--concurrency", "1")),
)


def run(case, tools, options, log):
    """Runs the case on an engine of one shard; one entry per runtime, in milliseconds."""
    samples, at_once = (QUICK_SAMPLES, QUICK_SAMPLES) if options.quick else (SAMPLES, AT_ONCE)
    out = {"case": case.key, "title": case.title, "runtimes": {}, "invalid": None, "command_lines": {}}
    engine = Engine(tools, "engine-cold", core=tools.server_core, shards=1)
    try:
        engine.start()
        out["command_lines"][engine.name] = engine.command_lines()
        for label, (runtime, code, limit_ms) in case.runtimes.items():
            out["runtimes"][label] = _runtime(engine, label, Function(tools, runtime, code), samples, at_once)
            out["runtimes"][label]["limit_ms"] = limit_ms
            log(f"  {label:10s} {line(out['runtimes'][label])}")
    except Invalid as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    finally:
        engine.stop()
    return out


def _runtime(engine, label, function, samples, at_once):
    # One that stays: what of the figures is not the cold start's, and what the engine answers when a series fails.
    name = f"warm-{label}"
    engine.deploy(name, function, quota=0)
    target = engine.function_target(name)
    check(name, target)

    def first_calls(count, drive):
        return loadgen.first_calls(f"cold-{label}", engine, function, target, count, drive)

    out = {"phases_ms": {}, "at_once": at_once, "at_once_ms": []}
    for key, _, drive in SERIES:
        out[key], out["phases_ms"][key] = first_calls(samples, drive)
    for _ in range(max(1, samples // at_once)):
        calls, phases = first_calls(at_once, ("--concurrency", str(at_once)))
        out["at_once_ms"].append(calls)
        out["phases_ms"].setdefault("at_once_ms", []).append(phases)
    tools = engine.setup
    load = Load("loadgen", tools.loadgen_program(), 1, WARM_SECONDS, tools.load_core)
    out["warm_ms"] = load.run(name, target, tools.work)["p50_us"] / 1e3
    return out


def p50(values):
    return statistics.median(values)


def p90(values):
    return sorted(values)[int(len(values) * 0.9)]


def flat_bursts(measured):
    return [value for burst in measured["at_once_ms"] for value in burst]


def line(measured):
    """One runtime in one line."""
    series = "   ".join(
        f"{title} p50 {p50(measured[key]):6.2f} max {max(measured[key]):6.2f} ms" for key, title, _ in SERIES
    )
    bursts = flat_bursts(measured)
    return (
        f"{series}   {measured['at_once']} at once p50 {p50(bursts):6.2f} max {max(bursts):6.2f} ms   "
        f"warm p50 {measured['warm_ms']:5.2f} ms"
    )
