"""Many functions called for the first time at the same moment, and what that does to calls of another that is warm."""

import statistics
import threading

from .cases import PYTHON_RUNTIME
from .engine import PYTHON_PLAIN, Engine, Function
from .findings import Finding
from .http_client import at_once, check
from .load import Load

SMALL, LARGE = 64, 500
QUICK = 8
# Containers of Python that an engine with default settings keeps ready.
POOL = 64
SMALL_LIMIT_MS = 120.0
POOL_RATE_MIN, RATE_MIN = 400.0, 150.0
WARM_LIMIT = 2.0
ROUNDS = 3
# Calls of the warm function: enough for a p99, too few to load the machine.
WARM_RATE, WARM_CONNECTIONS, WARM_SECONDS = 1000, 16, 3


def measure(tools, options, log):
    """Both bursts, several times; the large one with a warm neighbour."""
    rounds = 1 if options.quick else ROUNDS
    small, large = (QUICK, QUICK) if options.quick else (SMALL, LARGE)
    raw, findings = {"small": [], "large": []}, []
    with Engine(tools, "engine-burst") as engine:
        function = Function(tools, PYTHON_RUNTIME, PYTHON_PLAIN)
        engine.deploy("warm", function, quota=WARM_CONNECTIONS)
        warm = engine.function_target("warm")
        check("warm", warm)
        for number in range(rounds):
            raw["small"].append(_burst(engine, function, f"small{number}", small))
            log(f"  {small} at once: all done in {_ends(raw['small'][-1]):.1f} ms")
        for number in range(rounds):
            raw["large"].append(_beside(engine, function, warm, f"large{number}", large))
            log(f"  {large} at once: {_told(raw['large'][-1])}")
    findings.append(
        Finding(f"{small} at once, all done, median of {rounds}", _median(map(_ends, raw["small"])), SMALL_LIMIT_MS, "ms")
    )
    rates = [_rates(one["calls_ms"]) for one in raw["large"]]
    first, after = (_median(rate[part] for rate in rates) for part in (0, 1))
    findings += [
        Finding(f"{large} at once, none failed: rate while the pool lasts", first, POOL_RATE_MIN, "/s", at_least=True),
        Finding("rate after it", after, RATE_MIN, "/s", at_least=True),
        Finding(
            "p99 of a warm function meanwhile, over that before",
            _median(one["warm_burst_us"] / one["warm_before_us"] for one in raw["large"]),
            WARM_LIMIT,
            "x",
        ),
    ]
    for finding in findings:
        log(f"  {finding.line()}")
    return raw, findings


def _burst(engine, function, name, count):
    """Deploys functions, waits until the engine is at rest, calls each once at the same moment."""
    for number in range(count):
        engine.deploy(f"{name}-{number}", function)
    engine.settle()
    return {"calls_ms": at_once(name, _targets(engine, name, count))}


def _beside(engine, function, warm, name, count):
    """The same with calls of a warm function before it and meanwhile."""
    for number in range(count):
        engine.deploy(f"{name}-{number}", function)
    engine.settle()
    before = _warm_p99(engine, warm)
    meanwhile = []
    calls = threading.Thread(target=lambda: meanwhile.append(_warm_p99(engine, warm)))
    calls.start()
    taken = at_once(name, _targets(engine, name, count))
    calls.join()
    if not meanwhile:
        raise RuntimeError("the warm function's calls failed; what is printed above says why")
    return {"calls_ms": taken, "warm_before_us": before, "warm_burst_us": meanwhile[0]}


def _targets(engine, name, count):
    return [engine.function_target(f"{name}-{number}") for number in range(count)]


def _warm_p99(engine, target):
    tools = engine.setup
    program = tools.loadgen_program()
    load = Load("loadgen", program, WARM_CONNECTIONS, WARM_SECONDS, tools.load_core, rate=WARM_RATE)
    return load.run("warm", target, tools.work)["p99_us"]


def _ends(burst):
    return max(burst["calls_ms"])


def _rates(calls_ms):
    """Calls per second until as many are done as the pool held, and from then on."""
    done = sorted(calls_ms)
    from_pool = min(POOL, len(done))
    pool_ends = done[from_pool - 1]
    after = (len(done) - from_pool) / (done[-1] - pool_ends) * 1e3 if len(done) > from_pool else 0.0
    return from_pool / pool_ends * 1e3, after


def _told(large):
    first, after = _rates(large["calls_ms"])
    return (
        f"all done in {_ends(large):.0f} ms, {first:.0f}/s from the pool, {after:.0f}/s after; "
        f"p99 of the warm function {large['warm_before_us']:.0f} us before, {large['warm_burst_us']:.0f} us meanwhile"
    )


def _median(values):
    return statistics.median(list(values))
