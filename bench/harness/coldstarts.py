"""Cold starts at length, on an engine with default settings and all cores: the sections of `bench/coldstarts`.

Each section gives what it measured and its findings: a sentence, the value, the limit that issue 5 sets, and its unit.
"""

import json
import statistics
from dataclasses import asdict, dataclass
from typing import Callable

from . import bursts, idle_instances, recovery, whole
from .engine import NODE, PYTHON_PLAIN, Engine, Function
from .errors import Invalid
from .findings import Finding, percentile
from .cases import NODE_RUNTIME, PYTHON_RUNTIME
from .http_client import check
from .loadgen import first_calls

CALLS = 200
QUICK_CALLS = 8
# How many first calls follow each other before the engine may rest: as many as its pool surely holds ready.
GROUPS = {"python3": 50, "nodejs": 4, "provided": 4}
# p50 and p99 in milliseconds.
LIMITS = {"python3": (1.5, 5.0), "nodejs": (2.5, 6.0), "provided": (1.5, 4.0)}
EMPTY_LIMIT_MS = 5.0
WAYS = {"25 ms apart": ("--spacing", "25ms"), "back to back": ("--concurrency", "1")}


@dataclass(frozen=True)
class Section:
    """What is run: `measure(tools, options, log)` gives raw data and findings."""

    title: str
    measure: Callable


def functions(tools):
    """A hello in each language."""
    return {
        "python3": Function(tools, PYTHON_RUNTIME, PYTHON_PLAIN),
        "nodejs": Function(tools, NODE_RUNTIME, NODE),
        "provided": Function(tools, "provided"),
    }


def claims(tools, options, log):
    """First calls that find a container ready."""
    raw, findings = {}, []
    with Engine(tools, "engine-claims") as engine:
        for label, function in functions(tools).items():
            engine.deploy(f"stays-{label}", function)
            target = engine.function_target(f"stays-{label}")
            check(label, target)
            for way, drive in WAYS.items():
                calls, phases = in_groups(engine, label, function, target, drive, GROUPS[label], options)
                raw[f"{label}, {way}"] = {"calls_ms": calls, "phases_ms": phases}
                for share, limit in zip((50, 99), LIMITS[label], strict=True):
                    findings.append(
                        Finding(f"{label}, {way}, p{share} of {len(calls)}", percentile(calls, share), limit, "ms")
                    )
                    log(f"  {findings[-1].line()}")
    return raw, findings


def empty(tools, options, log):
    """First calls that find no container ready, and none in the making."""
    with Engine(tools, "engine-empty", more=("--pool", "python3=0", "--pool-max", "0")) as engine:
        function = functions(tools)["python3"]
        engine.deploy("stays", function)
        target = engine.function_target("stays")
        check("stays", target)
        calls, phases = in_groups(engine, "empty", function, target, WAYS["25 ms apart"], GROUPS["python3"], options)
    finding = Finding(
        f"python3 without a pool, 25 ms apart, p50 of {len(calls)}", statistics.median(calls), EMPTY_LIMIT_MS, "ms"
    )
    told = Finding("the same, p99", percentile(calls, 99), None, "ms")
    log(f"  {finding.line()}\n  {told.line()}")
    return {"calls_ms": calls, "phases_ms": phases}, [finding, told]


def in_groups(engine, label, function, target, drive, group, options):
    """Milliseconds of all calls, and the phases' means by group."""
    wanted = QUICK_CALLS if options.quick else CALLS
    group = min(group, wanted)
    done = [first_calls(f"cold-{label}", engine, function, target, group, drive) for _ in range(wanted // group)]
    return [call for calls, _ in done for call in calls], [phases for _, phases in done]


SECTIONS = {
    "claims": Section("first calls that find a container ready", claims),
    "empty": Section("first calls of Python without a pool", empty),
    "burst": Section("64 and 500 functions called for the first time at once", bursts.measure),
    "whole": Section("a container made from nothing and removed; bwrap; runc", whole.measure),
    "idle": Section("1,000 idle Python instances, 20 of Node", idle_instances.measure),
    "recovery": Section("funclet and engine killed, until functions are back", recovery.measure),
}


def run(section, tools, options, log):
    """One section; `invalid` says why it is no measurement."""
    out = {"title": section.title, "invalid": None, "raw": None, "findings": []}
    try:
        out["raw"], out["findings"] = section.measure(tools, options, log)
    except Invalid as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    return out


def write(path, done, environment, options):
    """Raw data, environment and summary."""
    raw = {key: {**one, "findings": [asdict(finding) for finding in one["findings"]]} for key, one in done.items()}
    (path / "raw.json").write_text(json.dumps(raw) + "\n")
    (path / "environment.json").write_text(json.dumps(environment, indent=1) + "\n")
    lines = [
        f"# Cold starts: {environment['commit'][:12]} on Linux {environment['kernel']}",
        "",
        f"{environment['cpu']}, {environment['cores']} cores, which engine, containers and loadgen share; default settings.",
        "What is measured: bench/README.md. Raw data: raw.json.",
        "",
    ]
    if options.quick:
        lines += ["A quick run: the numbers are no result.", ""]
    for key, one in done.items():
        lines += [f"## ({key}) {one['title']}", ""]
        lines += [f"**Invalid**: {one['invalid']}", ""] if one["invalid"] else []
        lines += [f"- {finding.line()}" for finding in one["findings"]] + [""]
    (path / "summary.md").write_text("\n".join(lines))
