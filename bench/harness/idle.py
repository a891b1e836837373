"""What an engine with no functions costs: memory of its processes and CPU over a while. The pool is reported apart."""

import time

from . import cpu
from .engine import Engine, command_line
from .errors import Invalid

SECONDS = 20
QUICK_SECONDS = 2


def run(case, tools, options, log):
    """Runs the case with the default settings."""
    seconds = QUICK_SECONDS if options.quick else SECONDS
    out = {
        "case": case.key,
        "title": case.title,
        "seconds": seconds,
        "invalid": None,
        "command_lines": {},
        "measured": {},
    }
    engine = Engine(tools, "engine-idle")
    try:
        engine.start()
        out["command_lines"][engine.name] = engine.command_lines()
        roles = engine.roles()
        own, pool = roles["front"] + roles["support"], roles["worker"]
        before, pool_before = cpu.snapshot(own), cpu.snapshot(pool)
        time.sleep(seconds)
        spent, pool_spent = cpu.spent(before, cpu.snapshot(own)), cpu.spent(pool_before, cpu.snapshot(pool))
        out["measured"] = {
            "pss_mb": sum(map(cpu.pss_bytes, own)) / 1e6,
            "cpu_percent": spent.total_ns / 1e7 / seconds,
            "by_process": {" ".join(_name(pid)): cpu.pss_bytes(pid) / 1e6 for pid in own},
            "pool_pss_mb": sum(map(cpu.pss_bytes, pool)) / 1e6,
            "pool_processes": len(pool),
            "pool_cpu_percent": pool_spent.total_ns / 1e7 / seconds,
        }
        log(f"  {out['measured']['pss_mb']:.1f} MB, {out['measured']['cpu_percent']:.2f} % of a core")
    except Invalid as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    finally:
        engine.stop()
    return out


def _name(pid):
    return [str(pid), *command_line(pid)[:2]]


def judge(case, result):
    """One verdict per goal."""
    return [
        {"goal": goal, "value": None if result["invalid"] else result["measured"][goal.measure]} for goal in case.goals
    ]
