"""Cold starts: first calls of functions that nobody has invoked: some time apart, back to back, and eight at once.

`loadgen cold` deploys the functions of each group, each with code of its own, waits until the engine is at rest (the pool of
prepared containers is full then), calls each once and removes them. Their files are in the page cache, as just after an upload.
"""

import statistics
from dataclasses import dataclass

from . import loadgen
from .engine import Engine, Function
from .errors import Invalid
from .http_client import check
from .load import Load

SAMPLES = 40
QUICK_SAMPLES = 2
WARM_SECONDS = 1


@dataclass(frozen=True)
class Series:
    """First calls in one way; `group` is how many follow each other before the engine may rest."""

    key: str
    title: str
    group: int
    drive: tuple


# The engine keeps four containers of a runtime ready, of Python's 64: groups of four are claims alone, for which the targets are.
# 40 calls at fixed times show how long they wait for boots where the machine boots more slowly than they come.
SERIES = (
    Series("apart", "100 ms apart", SAMPLES, ("--spacing", "100ms")),
    Series("close", "25 ms apart, by fours", 4, ("--spacing", "25ms")),
    Series("back_to_back", "back to back, by fours", 4, ("--concurrency", "1")),
    Series("at_once", "8 at once", 8, ("--concurrency", "{group}")),
)
JUDGED = SERIES[1].key


def run(case, tools, options, log):
    """Runs the case on an engine of one shard; one entry per runtime, in milliseconds."""
    samples = QUICK_SAMPLES if options.quick else SAMPLES
    out = {"case": case.key, "title": case.title, "runtimes": {}, "invalid": None, "command_lines": {}}
    engine = Engine(tools, "engine-cold", core=tools.server_core, shards=1)
    try:
        engine.start()
        out["command_lines"][engine.name] = engine.command_lines()
        for label, (runtime, code, limit_ms) in case.runtimes.items():
            out["runtimes"][label] = _runtime(engine, label, Function(tools, runtime, code), samples)
            out["runtimes"][label]["limit_ms"] = limit_ms
            log(f"  {label:10s} {line(out['runtimes'][label])}")
    except Invalid as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    finally:
        engine.stop()
    return out


def _runtime(engine, label, function, samples):
    # One that stays: what of the figures is not the cold start's, and what the engine answers when a series fails.
    name = f"warm-{label}"
    engine.deploy(name, function, quota=0)
    target = engine.function_target(name)
    check(name, target)
    out = {"series": {}}
    for series in SERIES:
        group = min(series.group, samples)
        drive = [part.format(group=group) for part in series.drive]
        done = [
            loadgen.first_calls(f"cold-{label}", engine, function, target, group, drive)
            for _ in range(samples // group)
        ]
        out["series"][series.key] = {"calls_ms": [calls for calls, _ in done], "phases_ms": _mean_phases(done)}
    tools = engine.setup
    load = Load("loadgen", tools.loadgen_program(), 1, WARM_SECONDS, tools.load_core)
    out["warm_ms"] = load.run(name, target, tools.work)["p50_us"] / 1e3
    return out


def _mean_phases(done):
    """Groups are of one size, so that the mean over all calls is that of the groups' means."""
    names = dict.fromkeys(name for _, phases in done for name in phases)
    return {name: statistics.mean(phases[name] for _, phases in done if name in phases) for name in names}


def p50(values):
    return statistics.median(values)


def p90(values):
    return sorted(values)[int(len(values) * 0.9)]


def flat(measured, key):
    """All calls of a series."""
    return [call for group in measured["series"][key]["calls_ms"] for call in group]


def line(measured):
    """One runtime in one line."""
    told = []
    for series in SERIES:
        calls = flat(measured, series.key)
        told.append(f"{series.title} p50 {p50(calls):.2f} max {max(calls):.2f} ms")
    return "   ".join([*told, f"warm p50 {measured['warm_ms']:.2f} ms"])
