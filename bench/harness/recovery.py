"""How long functions are away when the funclet or the engine is killed: from SIGKILL to the first right answer of a function
that was warm. A fresh engine for each kill of both, as deaths that follow each other are answered with growing waits."""

import http.client
import os
import signal
import statistics
import time

from . import cpu
from .engine import Engine, Function, PYTHON_PLAIN, command_line
from .errors import Invalid
from .cases import PYTHON_RUNTIME
from .findings import Finding, percentile
from .http_client import call, check

KILLS, QUICK_KILLS = 20, 2
LIMIT_MS = 1000.0
WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.002
WHO = {"funclet": "faaster funclet", "engine": "faaster engine"}


def measure(tools, options, log):
    times = {who: [] for who in WHO}
    for number in range(QUICK_KILLS if options.quick else KILLS):
        for who, begins in WHO.items():
            with Engine(tools, f"engine-{who}-{number}", Function(tools, PYTHON_RUNTIME, PYTHON_PLAIN)) as engine:
                check("hello", engine.target)
                engine.settle()
                times[who].append(away(engine, begins))
    findings = []
    for who, taken in times.items():
        about = f"{who} killed {len(taken)} times, until the first right answer"
        findings += [
            Finding(f"{about}, p50", statistics.median(taken), LIMIT_MS, "ms"),
            Finding(f"{about}, p90", percentile(taken, 90), None, "ms"),
            Finding(f"{about}, most", max(taken), LIMIT_MS, "ms"),
        ]
    for finding in findings:
        log(f"  {finding.line()}")
    return {"until_first_answer_ms": times}, findings


def away(engine, begins):
    """Kills the process whose command line begins so; milliseconds until a call is answered right."""
    found = [pid for pid in cpu.tree(engine.started["supervisor"][0].pid) if (command_line(pid) or [""])[0].startswith(begins)]
    if len(found) != 1:
        raise Invalid(f"{len(found)} processes are {begins}")
    victim = os.pidfd_open(found[0])
    began = time.monotonic()
    try:
        signal.pidfd_send_signal(victim, signal.SIGKILL)
    finally:
        os.close(victim)
    while time.monotonic() < began + WAIT_SECONDS_MAX:
        if answers(engine.target):
            return (time.monotonic() - began) * 1e3
        time.sleep(POLL_SECONDS)
    raise Invalid(f"{begins} is not back within {WAIT_SECONDS_MAX} s")


def answers(target):
    try:
        status, body, _ = call(target.port, target.method, target.path, target.body, target.headers)
    except (OSError, http.client.HTTPException):
        return False
    return (status, body) == (200, target.expected)
