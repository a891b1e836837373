"""How long functions are away when the funclet or the engine is killed: from SIGKILL to the first answer of another process
of a function that was warm. A fresh engine for each kill, as deaths that follow each other are answered with growing waits."""

import http.client
import os
import signal
import statistics
import time

from . import cpu
from .engine import Engine, Function, command_line
from .errors import Invalid
from .cases import PYTHON_RUNTIME
from .findings import Finding, percentile
from .http_client import call

KILLS, QUICK_KILLS = 20, 2
LIMIT_MS = 1000.0
WAIT_SECONDS_MAX = 30.0
POLL_SECONDS = 0.002
# Says which process it is: one that was not killed yet may answer a moment longer.
TOKEN = "import os\nTOKEN = os.urandom(8).hex()\ndef handler(event, context):\n    return TOKEN\n"
WHO = {"funclet": "faaster funclet", "engine": "faaster engine"}


def measure(tools, options, log):
    times = {who: [] for who in WHO}
    for number in range(QUICK_KILLS if options.quick else KILLS):
        for who, begins in WHO.items():
            with Engine(tools, f"engine-{who}-{number}", Function(tools, PYTHON_RUNTIME, TOKEN)) as engine:
                times[who].append(away(engine, begins))
    findings = []
    for who, taken in times.items():
        about = f"{who} killed {len(taken)} times, until the first answer of another process"
        findings += [
            Finding(f"{about}, p50", statistics.median(taken), LIMIT_MS, "ms"),
            Finding(f"{about}, p90", percentile(taken, 90), None, "ms"),
            Finding(f"{about}, most", max(taken), LIMIT_MS, "ms"),
        ]
    for finding in findings:
        log(f"  {finding.line()}")
    return {"until_another_answers_ms": times}, findings


def away(engine, begins):
    """Kills the process whose command line begins so; milliseconds until a call is answered right."""
    found = [pid for pid in cpu.tree(engine.started["supervisor"][0].pid) if (command_line(pid) or [""])[0].startswith(begins)]
    if len(found) != 1:
        raise Invalid(f"{len(found)} processes are {begins}")
    before = token(engine.target)
    if before is None:
        raise Invalid("the function does not answer")
    engine.settle()
    victim = os.pidfd_open(found[0])
    began = time.monotonic()
    try:
        signal.pidfd_send_signal(victim, signal.SIGKILL)
    finally:
        os.close(victim)
    while time.monotonic() < began + WAIT_SECONDS_MAX:
        if token(engine.target) not in (None, before):
            return (time.monotonic() - began) * 1e3
        time.sleep(POLL_SECONDS)
    raise Invalid(f"{begins} is not back within {WAIT_SECONDS_MAX} s")


def token(target):
    """What the function's process calls itself; None where there is no good answer."""
    try:
        status, body, headers = call(target.port, target.method, target.path, target.body, target.headers)
    except (OSError, http.client.HTTPException):
        return None
    return body if status == 200 and "x-easyfaas-function-error" not in headers else None
