"""hey and oha as generators, for the cross-check: one run each, in the figures of the other generators.

Both run on one core: hey by `-cpus 1`, oha by one worker thread. hey tells times in steps of 0.1 ms. With a rate, oha counts
latency from the moment a request was due (`--latency-correction`); hey paces each connection, which is a closed loop with
pauses, and counts from the send.
"""

import json
import os
import re

from .errors import Invalid
from .processes import run_counted

TIMEOUT_SECONDS = 10


def run_hey(name, target, _work, load):
    """One run of hey."""
    argv = [load.program, "-z", f"{load.seconds}s", "-c", load.connections, "-cpus", 1, "-t", TIMEOUT_SECONDS]
    argv += ["-m", target.method]
    argv += ["-q", f"{load.rate / load.connections:g}"] if load.rate is not None else []
    ended = run_counted([*argv, target.url()], load.core)
    if ended.code != 0:
        raise Invalid(f"{name}: hey failed with code {ended.code}: {(ended.output + ended.said)[-500:]!r}")
    return with_cpu(parse_hey(name, ended.output), ended)


def run_oha(name, target, work, load):
    """One run of oha."""
    # It writes its result to a file of its own choice of moment; standard output is a terminal's.
    path = work / f"{name}-oha.json"
    argv = [load.program, "--no-tui", "--output-format", "json", "--output", path, "-z", f"{load.seconds}s"]
    argv += ["-c", load.connections, "-t", f"{TIMEOUT_SECONDS}s", "-m", target.method]
    argv += ["-q", load.rate, "--latency-correction"] if load.rate is not None else []
    ended = run_counted([*argv, target.url()], load.core, {**os.environ, "TOKIO_WORKER_THREADS": "1"})
    if ended.code != 0:
        raise Invalid(f"{name}: oha failed with code {ended.code}: {(ended.output + ended.said)[-500:]!r}")
    return with_cpu(parse_oha(name, path.read_text()), ended)


def with_cpu(figures, ended):
    seconds = figures["duration_us"] / 1e6
    return figures | {
        "answered": figures["requests"],
        "generator_cpu_seconds": ended.cpu_seconds,
        "generator_busy": ended.cpu_seconds / seconds,
    }


def parse_hey(name, output):
    """hey's figures; fails if any request went wrong."""

    def number(label):
        found = re.search(rf"^\s*{re.escape(label)}:\s+([0-9.]+)", output, re.M)
        if found is None:
            raise Invalid(f"{name}: hey printed no {label!r}: {output[-500:]!r}")
        return float(found[1])

    at = {int(p): float(s) * 1e6 for p, s in re.findall(r"^\s*(\d+)%+ in ([0-9.]+) secs", output, re.M)}
    statuses = {int(code): int(count) for code, count in re.findall(r"\[(\d+)\]\s+(\d+) responses", output)}
    if set(statuses) != {200} or "Error distribution" in output:
        raise Invalid(f"{name}: hey's requests went wrong: {output[-500:]!r}")
    return {
        "requests": statuses[200],
        "duration_us": number("Total") * 1e6,
        "rate": number("Requests/sec"),
        "mean_us": number("Average") * 1e6,
        "p50_us": at.get(50),
        "p90_us": at.get(90),
        "p99_us": at.get(99),
        "p999_us": None,
        "max_us": number("Slowest") * 1e6,
    }


def parse_oha(name, output):
    """oha's figures; fails if any request went wrong. Those that its end cut off are no failures."""
    result = json.loads(output)
    summary, at = result["summary"], result["latencyPercentiles"]
    statuses = result["statusCodeDistribution"]
    errors = {what: count for what, count in result["errorDistribution"].items() if what != "aborted due to deadline"}
    if set(statuses) != {"200"} or errors:
        raise Invalid(f"{name}: oha's requests went wrong: {statuses} {errors}")
    return {
        "requests": statuses["200"],
        "duration_us": summary["total"] * 1e6,
        "rate": statuses["200"] / summary["total"],
        "mean_us": summary["average"] * 1e6,
        **{key: at[of] * 1e6 for key, of in {"p50_us": "p50", "p90_us": "p90", "p99_us": "p99"}.items()},
        "p999_us": at["p99.9"] * 1e6,
        "max_us": summary["slowest"] * 1e6,
    }
