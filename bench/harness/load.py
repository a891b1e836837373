"""wrk as the load generator: one measured run, with its results exact and its own health checked.

wrk is a closed loop: a connection sends its next request when it has the answer to the last. Rates and CPU per request
are sound under it; its latency percentiles are those of a saturated server, not of one at a given load.
"""

import json
import os
import subprocess
import threading
import time

from . import cpu
from .errors import Invalid
from .http_client import answer_bytes, check

PROBE_SECONDS = 0.5
# wrk waits this long for an answer, then counts a timeout; any timeout makes the run invalid.
WRK_TIMEOUT_SECONDS = 10
# Bytes by which the mean answer may differ from the checked one: request ids and times vary in length.
ANSWER_BYTES_SLACK = 48

DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"connect_errors":%d,"read_errors":%d,"write_errors":%d,' ..
    '"status_errors":%d,"timeouts":%d,"p50_us":%d,"p90_us":%d,"p99_us":%d,"max_us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency:percentile(50), latency:percentile(90), latency:percentile(99), latency.max))
end
"""
ERRORS = ("connect_errors", "read_errors", "write_errors", "status_errors", "timeouts")


def lua_script(target):
    """The request as wrk's script: static, so that no Lua runs per request. JSON's escapes are Lua's for ASCII."""
    quoted = json.dumps
    lines = [f"wrk.method = {quoted(target.method)}"]
    lines += [f"wrk.headers[{quoted(name)}] = {quoted(value)}" for name, value in target.headers.items()]
    if target.body:
        lines.append(f"wrk.body = {quoted(target.body.decode('ascii'))}")
    return "\n".join(lines) + "\n" + DONE


class Sampler(threading.Thread):
    """Checks a whole answer twice per second while the load runs: a fast wrong answer is a failure."""

    def __init__(self, name, target):
        super().__init__(daemon=True)
        self.label, self.target = name, target
        self.ended = threading.Event()
        self.checked, self.failure = 0, None

    def run(self):
        while not self.ended.wait(PROBE_SECONDS):
            try:
                check(self.label, self.target)
                self.checked += 1
            except Invalid as failure:
                self.failure = failure
                return

    def finish(self):
        self.ended.set()
        self.join()
        if self.failure is not None:
            raise self.failure


def command(script, target, connections, seconds, core):
    pinned = ["taskset", "-c", str(core)] if core is not None else []
    return pinned + [
        "wrk",
        "-t1",
        f"-c{connections}",
        f"-d{seconds}s",
        f"--timeout={WRK_TIMEOUT_SECONDS}s",
        "--latency",
        "-s",
        str(script),
        f"http://127.0.0.1:{target.port}{target.path}",
    ]


def parse_result(name, output):
    """wrk's figures; fails if any request went wrong."""
    lines = [line for line in output.splitlines() if line.startswith("RESULT ")]
    if len(lines) != 1:
        raise Invalid(f"{name}: wrk printed no result: {output[-500:]!r}")
    result = json.loads(lines[0].removeprefix("RESULT "))
    wrong = {key: result[key] for key in ERRORS if result[key]}
    if wrong or result["requests"] <= 0:
        raise Invalid(f"{name}: {result['requests']} requests, of them failed: {wrong or 'none'}; nothing may fail")
    return result


def run_wrk(name, target, work, connections, seconds, core):
    """One run of wrk without anything around it: its figures and its CPU seconds."""
    script = work / f"{name}.lua"
    script.write_text(lua_script(target))
    argv = command(script, target, connections, seconds, core)
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as wrk:
        output = wrk.stdout.read()
        _, status, used = os.wait4(wrk.pid, 0)
        wrk.returncode = os.waitstatus_to_exitcode(status)
    if wrk.returncode != 0:
        raise Invalid(f"{name}: wrk failed with code {wrk.returncode}: {output[-500:]!r}")
    return parse_result(name, output), used.ru_utime + used.ru_stime


def window(contender, work, connections, seconds, core):
    """One measured window: figures of wrk, CPU per request by role, and what else the machine did meanwhile."""
    name, target = contender.name, contender.target
    check(name, target)
    checked_bytes = answer_bytes(name, target)
    sampler = Sampler(name, target) if connections > 1 else None  # with one connection it would be half of the load
    before = {role: cpu.snapshot(pids) for role, pids in contender.roles().items()}
    machine, own, began = cpu.Machine.read(), time.process_time(), time.monotonic()
    if sampler:
        sampler.start()
    try:
        result, wrk_seconds = run_wrk(name, target, work, connections, seconds, core)
    finally:
        if sampler:
            sampler.finish()
    elapsed = time.monotonic() - began
    own = time.process_time() - own
    machine_after = cpu.Machine.read()
    after = {role: cpu.snapshot(pids) for role, pids in contender.roles().items()}
    check(name, target)
    mean_bytes = result["bytes"] / result["requests"]
    if abs(mean_bytes - checked_bytes) > ANSWER_BYTES_SLACK:
        raise Invalid(f"{name}: answers under load have {mean_bytes:.0f} bytes, the right one has {checked_bytes}")
    spent = {role: cpu.spent(before.get(role, {}), found) for role, found in after.items()}
    known = sum(role.total_ns for role in spent.values()) / 1e9 + wrk_seconds + own
    busy = (machine_after.busy_ns - machine.busy_ns) / 1e9
    return {
        **result,
        "rate": result["requests"] / (result["duration_us"] / 1e6),
        "answer_bytes": mean_bytes,
        "cpu": {role: value.per(result["requests"]) for role, value in spent.items()},
        "server_busy": sum(role.total_ns for role in spent.values()) / 1e9 / elapsed,
        "wrk_busy": wrk_seconds / elapsed,
        # Cores' worth of work that belonged to nobody in this comparison.
        "foreign_busy": max(0.0, busy - known) / elapsed,
        "steal": (machine_after.steal_ns - machine.steal_ns) / 1e9 / elapsed,
        "answers_checked": 3 + (sampler.checked if sampler else 0),
        "instances": contender.instances(),
    }
