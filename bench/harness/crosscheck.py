"""Generators against each other, on the same nginx: do they tell the same, and what do they need for it?

Each section has a server, a load, and the generators that can make it; they take turns, as contenders of a case do. The
server has one core, the generator the other.
"""

import json
from dataclasses import dataclass, replace

from . import cpu, floor, loadgen, others, wrk
from .baselines import Baseline, NginxStatic
from .errors import Invalid, Unavailable
from .http_client import Target, check
from .load import Load
from .processes import accepts_unix, run_counted
from .setup import SYSTEM_PYTHON
from .warm import medians

# Another build of loadgen, to see what a change of it did.
BEFORE = "loadgen-before"
RUNS = {"loadgen": loadgen.run, BEFORE: loadgen.run, "wrk": wrk.run, "hey": others.run_hey, "oha": others.run_oha}
PRINTED = ("rate", "mean_us", "p50_us", "p90_us", "p99_us", "p999_us", "cpu_us", "generator_busy", "server_busy")
MANY = 10_000
PROXY = """\
upstream slow {{
        server unix:{socket};
        keepalive 512;
        keepalive_requests 1000000000;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://slow;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""


class NginxReturn(NginxStatic):
    """nginx that answers by itself, at once."""

    def __init__(self, tools):
        super().__init__(tools, "nginx", tools.server_core, "/return")


class NginxMany(NginxReturn):
    """The same, for many connections."""

    # nginx closes idle connections when less than a sixteenth of what it may have is free.
    def nginx(self, http, connections=MANY * 3 // 2):
        super().nginx(http, connections)


class NginxDelayed(Baseline):
    """nginx before a null server that holds each answer back, exponentially distributed with a mean of 5 ms: what
    everybody should measure is known, and no generator is the bottleneck."""

    DELAY = "exponential:5ms"

    def __init__(self, tools):
        super().__init__(tools, "nginx-delayed", tools.server_core)

    def start(self):
        self.started["front"] = []
        # A name of its own each time: the null server removes no file of an earlier one.
        socket = self.setup.work / f"slow-{self.port}.sock"
        argv = [self.setup.loadgen_program(), "null-server", "--listen", f"unix:{socket}", "--delay", self.DELAY]
        self.launch("worker", "slow", argv, lambda: accepts_unix(socket))
        self.nginx(PROXY.format(socket=socket, port=self.port))
        self.target = Target(self.port, "/", method="GET", body=b"", headers={})


class Null(Baseline):
    """loadgen's null server: the generator is the bottleneck."""

    def __init__(self, tools):
        super().__init__(tools, "null-server", tools.server_core)

    def start(self):
        argv = [self.setup.loadgen_program(), "null-server", "--listen", f"127.0.0.1:{self.port}"]
        self.launch("front", self.name, argv)
        self.target = Target(self.port, "/", method="GET", body=b"", headers={})


@dataclass(frozen=True)
class Section:
    """One load on one server."""

    key: str
    title: str
    server: type
    generators: tuple
    connections: int
    rate: int | None = None
    rounds_max: int = 100
    # Before each round: how late a program that only reads the clock is on the generator's core.
    floor: bool = False


SECTIONS = (
    Section("peak", "closed loop, 50 connections, nginx `return`", NginxReturn, ("loadgen", "wrk", "hey", "oha"), 50),
    Section("null", "closed loop, 50 connections, null server", Null, ("loadgen", "wrk"), 50),
    Section(
        "delayed",
        "closed loop, 50 connections, nginx to a server with exponential delays of 5 ms",
        NginxDelayed,
        ("loadgen", "wrk", "hey", "oha"),
        50,
    ),
    Section(
        "paced",
        "2,000 requests/s over 200 connections, nginx to a server with exponential delays of 5 ms",
        NginxDelayed,
        ("loadgen", "hey", "oha"),
        200,
        2_000,
    ),
    Section(
        "light",
        "1,000 requests/s over 10 connections, nginx `return`",
        NginxReturn,
        ("loadgen", "hey", "oha"),
        10,
        1_000,
    ),
    Section("lag", "20,000 requests/s over 64 connections, nginx `return`", NginxReturn, ("loadgen",), 64, 20_000, floor=True),
    Section("many", f"closed loop, {MANY:,} connections, nginx `return`", NginxMany, ("loadgen",), MANY, None, 1),
    Section(
        "many-open", f"20,000 requests/s over {MANY:,} connections", NginxMany, ("loadgen",), MANY, 20_000, 1
    ),
)


def run(section, tools, programs, options, log):
    """Runs a section; `programs` is generator to path, of those that are there."""
    out = {"key": section.key, "title": section.title, "connections": section.connections, "rate_asked": section.rate}
    out |= {"rounds": [], "skipped": {}, "command_lines": {}, "invalid": None, "pages": {}}
    wanted = section.generators + ((BEFORE,) if section.floor else ())
    generators = [name for name in wanted if name in programs]
    out["skipped"] = {name: "not installed" for name in section.generators if name not in programs}
    server = section.server(tools)
    try:
        server.start()
        out["command_lines"][server.name] = server.command_lines()
        warm_up = Load("loadgen", programs["loadgen"], section.connections, 1, tools.load_core, rate=section.rate)
        loadgen.run(server.name, server.target, tools.work, warm_up)
        for number in range(min(options.rounds, section.rounds_max)):
            done = {}
            if section.floor:
                out.setdefault("floors", []).append(_floor(tools, options.seconds))
                log(f"  round {number + 1} floor    late by {out['floors'][-1]['late_p999_us']:.1f} us at p99.9")
            for name in generators:
                load = replace(warm_up, generator=name, program=programs[name], seconds=options.seconds)
                done[name] = _measure(name, server, tools, load, out if number == 0 else None)
                log(f"  round {number + 1} {name:8s} {line(done[name])}")
            if "wrk" in done:
                done["loadgen, as wrk would tell it"] = as_wrk_would(done["loadgen"], section.connections)
            out["rounds"].append(done)
    except (Invalid, Unavailable) as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    finally:
        server.stop()
    out["medians"] = medians(out["rounds"], PRINTED)
    return out


def _floor(tools, seconds):
    ended = run_counted([SYSTEM_PYTHON, floor.__file__, tools.load_core, seconds])
    if ended.code != 0:
        raise Invalid(f"the clock could not be watched: {ended.said[-500:]!r}")
    return json.loads(ended.output)


def _measure(name, server, tools, load, paged):
    """One run with checks around it. `paged` is where the first run of loadgen leaves its page with plots."""
    check(server.name, server.target)
    page = tools.work / "page.html"
    if name == "loadgen" and paged is not None:
        load = replace(load, more=("--html", str(page)))
    if name in ("loadgen", BEFORE):
        load = replace(load, record=tools.work / "whole.json")
    before = cpu.snapshot(pid for pids in server.roles().values() for pid in pids)
    machine = cpu.Machine.read()
    figures = RUNS[name](server.name, server.target, tools.work, load)
    spent = cpu.spent(before, cpu.snapshot(before))
    check(server.name, server.target)
    if load.more:
        paged["pages"][f"{paged['key']}.html"] = page.read_text()
    seconds = figures["duration_us"] / 1e6
    cpu_us = figures["generator_cpu_seconds"] / figures["answered"] * 1e6
    if name in ("loadgen", BEFORE) and load.rate is not None:
        cpu_us = figures["generator"]["generator"]["cpu_us_per_request"]  # without the spinning around sends
    if load.record is not None:
        figures["curve"] = json.loads(load.record.read_text())["latency"]["sent_to_done"]["curve"]
        load.record.unlink()
    return figures | {
        "cpu_us": cpu_us,
        "server_busy": spent.total_ns / 1e9 / seconds,
        "steal": (cpu.Machine.read().steal_ns - machine.steal_ns) / 1e9 / seconds,
        # Little's law: so many requests are under way on average, if rate and mean time are right.
        "under_way": figures["rate"] * figures["mean_us"] / 1e6,
    }


def as_wrk_would(figures, connections, samples=50_000):
    """loadgen's times with wrk's correction (`stats_correct` in its stats.c, which cannot be switched off): an answer
    that took more than twice the mean time between two answers of a connection counts once more for each such time
    that it took. In a closed loop nobody asked then; it makes percentiles of a server with uneven times higher."""
    curve = figures["curve"]
    interval = connections / figures["rate"] * 1e6
    times, place = [], 1
    for number in range(samples):
        quantile = min((number + 0.5) / samples, curve[-1][0])
        while curve[place][0] < quantile and place < len(curve) - 1:
            place += 1
        (q0, v0), (q1, v1) = curve[place - 1], curve[place]
        time = v1 if q1 <= q0 else v0 + (v1 - v0) * (quantile - q0) / (q1 - q0)
        times.append(time)
        added = time - interval
        while time >= 2 * interval and added > interval:
            times.append(added)
            added -= interval
    times.sort()

    def at(share):
        return times[int(len(times) * share)]

    told = {"p50_us": at(0.5), "p90_us": at(0.9), "p99_us": at(0.99), "p999_us": at(0.999)}
    told["mean_us"] = sum(times) / len(times)
    kept = {key: figures[key] for key in ("rate", "cpu_us", "generator_busy", "server_busy")}
    return kept | told | {"under_way": figures["rate"] * told["mean_us"] / 1e6}


def line(figures):
    """One run in one line."""

    def us(value):
        return "-" if value is None else f"{value:.0f}"

    text = f"{figures['rate'] / 1e3:7.2f} k/s  p50 {us(figures['p50_us']):>6s}  p99 {us(figures['p99_us']):>6s} us  "
    text += f"generator {figures['cpu_us']:6.2f} us, {figures['generator_busy']:.2f} of a core"
    lag = figures.get("lag_p999_us")
    return text if lag is None else f"{text}, lag p99.9 {lag:.1f} us"
