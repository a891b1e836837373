"""wrk as the load generator: one run, its results exact and its own health checked.

wrk is a closed loop: a connection sends its next request when it has the answer to the last. It checks statuses, no bodies.
"""

import json

from .errors import Invalid
from .processes import run_counted

# wrk waits this long for an answer, then counts a timeout; any timeout makes the run invalid.
TIMEOUT_SECONDS = 10

DONE = """
done = function(summary, latency, requests)
  local e = summary.errors
  io.write(string.format(
    'RESULT {"requests":%d,"duration_us":%d,"bytes":%d,"connect_errors":%d,"read_errors":%d,"write_errors":%d,' ..
    '"status_errors":%d,"timeouts":%d,"mean_us":%.1f,"p50_us":%d,"p90_us":%d,"p99_us":%d,"p999_us":%d,"max_us":%d}\\n',
    summary.requests, summary.duration, summary.bytes, e.connect, e.read, e.write, e.status, e.timeout,
    latency.mean, latency:percentile(50), latency:percentile(90), latency:percentile(99), latency:percentile(99.9),
    latency.max))
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


def command(script, target, load):
    return [
        load.program,
        "-t1",
        f"-c{load.connections}",
        f"-d{load.seconds}s",
        f"--timeout={TIMEOUT_SECONDS}s",
        "--latency",
        "-s",
        str(script),
        target.url(),
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


def run(name, target, work, load):
    """One run of wrk: its figures, with its CPU seconds."""
    script = work / f"{name}.lua"
    script.write_text(lua_script(target))
    ended = run_counted(command(script, target, load), load.core)
    if ended.code != 0:
        raise Invalid(f"{name}: wrk failed with code {ended.code}: {(ended.output + ended.said)[-500:]!r}")
    result = parse_result(name, ended.output)
    seconds = result["duration_us"] / 1e6
    return {
        **result,
        "rate": result["requests"] / seconds,
        "answered": result["requests"],
        "generator_cpu_seconds": ended.cpu_seconds,
        "generator_busy": ended.cpu_seconds / seconds,
    }
