"""Cold starts: first calls of functions that nobody has invoked, one by one and eight at once.

All functions are deployed before the first call, each with code of its own, and the pool of prepared containers is full
before each series. Their files are in the page cache, as just after an upload.
"""

import statistics
import time

from .engine import Engine, Function
from .errors import Invalid
from .http_client import Probe, timed, timed_at_once

SPACING_SECONDS = 0.1
AT_ONCE = 8
SAMPLES = 40
QUICK_SAMPLES = 2


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
    spaced = [f"cold-{label}-{i}" for i in range(samples)]
    bursts = [[f"burst-{label}-{i}-{k}" for k in range(at_once)] for i in range(max(1, samples // at_once))]
    for name in [*spaced, *(name for burst in bursts for name in burst)]:
        engine.deploy(name, function, quota=0)
    engine.settle()
    probe = Probe(engine.port)
    try:
        _, status, _, _ = _get_health(probe, engine.port)
        if status != 200:
            raise Invalid(f"{engine.name}: /healthz answers {status}")
        one_by_one = []
        for name in spaced:
            time.sleep(SPACING_SECONDS)
            one_by_one.append(timed(name, probe, engine.function_target(name)))
        # The same functions once more, now warm: what of the figures is not the cold start's.
        warm = [timed(name, probe, engine.function_target(name)) for name in spaced]
    finally:
        probe.close()
    return {
        "spaced_ms": one_by_one,
        "warm_ms": warm,
        "at_once_ms": [_burst(engine, burst) for burst in bursts],
        "at_once": at_once,
    }


def _get_health(probe, port):
    probe.send(f"GET /healthz HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n\r\n".encode())
    return probe.receive()


def _burst(engine, names):
    engine.settle()
    probes = []
    try:
        for _ in names:
            probes.append(Probe(engine.port))
            _get_health(probes[-1], engine.port)
        return timed_at_once("cold burst", probes, [engine.function_target(name) for name in names])
    finally:
        for probe in probes:
            probe.close()


def p50(values):
    return statistics.median(values)


def p90(values):
    return sorted(values)[int(len(values) * 0.9)]


def flat_bursts(measured):
    return [value for burst in measured["at_once_ms"] for value in burst]


def line(measured):
    """One runtime in one line."""
    spaced, bursts = measured["spaced_ms"], flat_bursts(measured)
    return (
        f"cold p50 {p50(spaced):6.2f} p90 {p90(spaced):6.2f} max {max(spaced):6.2f} ms   {measured['at_once']} at once "
        f"p50 {p50(bursts):6.2f} max {max(bursts):6.2f} ms   warm p50 {p50(measured['warm_ms']):5.2f} ms"
    )
