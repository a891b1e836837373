"""What idle instances cost: memory of each, and whether a first call takes longer where there are many."""

import statistics
from pathlib import Path

from . import cpu
from .cases import NODE_RUNTIME, PYTHON_RUNTIME
from .engine import NODE, PYTHON_PLAIN, Engine, Function, command_line
from .errors import Invalid
from .findings import Finding
from .http_client import at_once, check
from .loadgen import first_calls

FEW, MANY, QUICK_MANY = 10, 1000, 20
NODES = 20
CALLS, QUICK_CALLS = 50, 4
# At once: what the engine makes without refusing anybody, and without the generator waiting long.
STEP = 50
CLAIM_LIMIT, EACH_LIMIT_MB, OWN_LIMIT_MB, NODE_LIMIT_MB = 1.3, 3.0, 0.7, 15.0
# As many instances of 128 MB as are wanted, and idle for long enough.
MORE = ("--memory-overcommit", "16", "--slots-max", "1500", "--max-runtime-idle", "3600s", "--freeze-after", "never")
KERNEL = ("Slab", "PageTables", "KernelStack", "Percpu", "MemAvailable")
INIT = "faaster-init"
# Of /proc/slabinfo: what the kernel keeps of a process's mappings.
MAPPINGS = ("vm_area_struct", "anon_vma", "anon_vma_chain", "maple_node")


def measure(tools, options, log):
    """Python's memory and first calls at few and at many instances, then Node's memory."""
    many, calls = (QUICK_MANY, QUICK_CALLS) if options.quick else (MANY, CALLS)
    raw, findings = {}, []
    with Engine(tools, "engine-idle-python", more=MORE) as engine:
        function = Function(tools, PYTHON_RUNTIME, PYTHON_PLAIN)
        engine.deploy("stays", function)
        target = engine.function_target("stays")
        check("stays", target)
        _grow(engine, function, 1, FEW)
        few_calls, few_phases = _claims(engine, function, target, calls)
        engine.settle()
        few = _memory(engine)
        _grow(engine, function, FEW, many)
        engine.settle()
        full = _memory(engine)
        many_calls, many_phases = _claims(engine, function, target, calls)
        if engine.instances() is not None and engine.instances() < many:
            raise Invalid(f"{engine.instances()} instances are left of {many}")
    raw["python"] = {
        "few": few,
        "many": full,
        "calls_ms": [few_calls, many_calls],
        "phases_ms": [few_phases, many_phases],
    }
    findings += _python_findings(raw["python"], many)
    with Engine(tools, "engine-idle-node", more=MORE) as engine:
        _grow(engine, Function(tools, NODE_RUNTIME, NODE), 0, NODES)
        engine.settle()
        raw["node"] = _memory(engine)
    findings.append(
        Finding(f"PSS of a Node process, {NODES} instances", raw["node"]["pss_mb"]["node"], NODE_LIMIT_MB, "MB")
    )
    for finding in findings:
        log(f"  {finding.line()}")
    return raw, findings


def _python_findings(found, many):
    few, full = found["few"], found["many"]
    more = full["containers"] - few["containers"]
    kernel = {name: (full["kernel_mb"][name] - few["kernel_mb"][name]) / more for name in KERNEL}
    python, init = full["pss_mb"]["python"], full["pss_mb"]["init"]
    each = python + init + kernel["Slab"] + kernel["PageTables"]
    # It has these wherever it runs. Those of its mappings are its part of all, by their number.
    counts = full["mappings"]
    mappings = (full["mappings_mb"] - few["mappings_mb"]) / more * counts["python"] / (counts["python"] + counts["init"])
    space = full["page_tables_mb"]["python"] + mappings
    claims = [statistics.median(calls) for calls in found["calls_ms"]]
    funclet = [phases.get("claim", 0) + phases.get("attach", 0) for phases in found["phases_ms"]]
    return [
        Finding(f"p50 of a first call at {many} instances over that at {FEW}", claims[1] / claims[0], CLAIM_LIMIT, "x"),
        Finding("claim and attach alone, means, likewise", funclet[1] / max(1e-9, funclet[0]), None, "x"),
        Finding("memory of each: PSS, slab, page tables", each, EACH_LIMIT_MB, "MB"),
        Finding("of that PSS of the Python process", python, None, "MB"),
        Finding("of that page tables and mappings of the Python process", space, None, "MB"),
        Finding(
            "of that all else: the container's init and what the kernel has of it", each - python - space, OWN_LIMIT_MB, "MB"
        ),
        Finding("kernel stacks and per-cpu memory, not in it", kernel["KernelStack"] + kernel["Percpu"], None, "MB"),
        Finding("what each takes of the machine's available memory", -kernel["MemAvailable"], None, "MB"),
    ]


def _grow(engine, function, have, wanted):
    """Functions with one idle instance each."""
    while have < wanted:
        count = min(STEP, wanted - have)
        name = f"idle-{have}"
        for number in range(count):
            engine.deploy(f"{name}-{number}", function)
        at_once(name, [engine.function_target(f"{name}-{number}") for number in range(count)])
        have += count


def _claims(engine, function, target, count):
    return first_calls("cold-idle", engine, function, target, count, ("--spacing", "25ms"))


def _memory(engine):
    """Mean PSS by kind of process, the kernel's figures, and how many containers there are, the pool's with them."""
    pss, tables, mappings = ({"init": [], "python": [], "node": []} for _ in range(3))
    for pid in engine.roles()["worker"]:
        kind = _kind(pid)
        if kind is None:
            continue
        pss[kind].append(cpu.pss_bytes(pid) / 1e6)
        tables[kind].append(_page_tables_mb(pid))
        mappings[kind].append(len(Path(f"/proc/{pid}/maps").read_text().splitlines()))
    lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
    kernel = {words[0].rstrip(":"): int(words[1]) * 1024 / 1e6 for words in lines}
    return {
        "containers": len(pss["init"]),
        "processes": {kind: len(sizes) for kind, sizes in pss.items()},
        "pss_mb": _means(pss),
        "page_tables_mb": _means(tables),
        "mappings": _means(mappings),
        "mappings_mb": _mappings_mb(),
        "kernel_mb": {name: kernel[name] for name in KERNEL},
    }


def _means(values):
    return {kind: statistics.mean(found) if found else 0.0 for kind, found in values.items()}


def _page_tables_mb(pid):
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmPTE:")) * 1024 / 1e6


def _mappings_mb():
    """What the kernel keeps of all processes' mappings."""
    lines = (line.split() for line in Path("/proc/slabinfo").read_text().splitlines())
    return sum(int(words[1]) * int(words[3]) for words in lines if words[0] in MAPPINGS) / 1e6


def _kind(pid):
    words = command_line(pid)
    name = Path(words[0].split()[0]).name if words and words[0] else ""
    if name.startswith(INIT):
        return "init"
    return next((kind for kind in ("python", "node") if name.startswith(kind)), None)
