"""The cases: who is compared with whom, at which load, and the targets (issue 3, "Speed to reach").

`subject` is the contender that the targets are about, `baseline` the one it is divided by; all others are printed
beside them. Whatever stands in `make` is started, verified and driven in turn.
"""

from dataclasses import dataclass, field
from typing import Callable

from .baselines import Haproxy, Hello, NginxProxy, NginxStatic, Node, Uvicorn
from .engine import NODE, PYTHON_ASYNC, PYTHON_PLAIN, Engine, Function

CONNECTIONS = 64
# Of the open loop: nearly half of what nginx can proxy on one core, so that latency is seen, and no overload.
OPEN_RATE = 20_000
EXCLUSIVE_INSTANCES = 16
NODE_RUNTIME = "nodejs10"
PYTHON_RUNTIME = "python3"


@dataclass(frozen=True)
class Goal:
    """`measure` of the subject, divided by the baseline's where there is one, must be on the right side of `limit`."""

    measure: str
    limit: float
    at_least: bool = False
    unit: str = "x"

    def passes(self, value):
        return value >= self.limit if self.at_least else value <= self.limit


@dataclass(frozen=True)
class Warm:
    """A case under load."""

    key: str
    title: str
    make: Callable
    goals: tuple = ()
    subject: str = "engine"
    baseline: str = ""
    connections: int = CONNECTIONS
    # Requests per second of an open loop; None is a closed loop.
    rate: int | None = None


@dataclass(frozen=True)
class Cold:
    """First calls of functions that were never invoked: the p50 in milliseconds has a limit for each runtime."""

    key: str = "f"
    title: str = "cold start of a never-invoked function, pool warm, zip uploaded"
    runtimes: dict = field(
        default_factory=lambda: {
            "python3": (PYTHON_RUNTIME, PYTHON_PLAIN, 6.0),
            "nodejs": (NODE_RUNTIME, NODE, 6.0),
            "provided": ("provided", None, 3.0),
        }
    )


@dataclass(frozen=True)
class Idle:
    """An engine with no functions."""

    key: str = "g"
    title: str = "idle engine with no functions"
    goals: tuple = (Goal("pss_mb", 30.0, unit=" MB"), Goal("cpu_percent", 0.5, unit=" %"))


def _engines(t, function, quota, instances_max, two_shards, name="engine"):
    one = Engine(t, name, function, quota, instances_max, core=t.server_core, shards=1)
    # With the default number of shards the engine has all cores, and shares one with the load generator.
    return [one] + ([Engine(t, f"{name}-default-shards", function, quota, instances_max)] if two_shards else [])


def _provided_concurrent(t, two_shards):
    return [
        NginxProxy(t, "nginx", t.server_core),
        *_engines(t, Function(t, "provided"), CONNECTIONS, 1, two_shards),
        NginxProxy(t, "nginx-unpinned", None),
    ]


def _provided_open(t, _two_shards):
    return [NginxProxy(t, "nginx", t.server_core), *_engines(t, Function(t, "provided"), CONNECTIONS, 1, False)]


def _provided_exclusive(t, two_shards):
    return [
        Haproxy(t, "haproxy", t.server_core),
        *_engines(t, Function(t, "provided"), 0, EXCLUSIVE_INSTANCES, two_shards),
        Haproxy(t, "haproxy-unpinned", None),
    ]


def _node(t, two_shards):
    return [Node(t, "node", t.server_core), *_engines(t, Function(t, NODE_RUNTIME, NODE), CONNECTIONS, 1, two_shards)]


def _python(t, two_shards):
    plain = Function(t, PYTHON_RUNTIME, PYTHON_PLAIN)
    return [
        Uvicorn(t, "uvicorn", t.server_core),
        *_engines(t, Function(t, PYTHON_RUNTIME, PYTHON_ASYNC), CONNECTIONS, 1, two_shards),
        *_engines(t, plain, CONNECTIONS, 1, False, "engine-plain-handler"),
    ]


def _static(t, _two_shards):
    return [
        NginxStatic(t, "nginx-return", t.server_core, "/return"),
        NginxStatic(t, "nginx-file", t.server_core, "/hello.txt"),
        Hello(t, "glommio", t.server_core, "glommio_hello"),
        Hello(t, "ring", t.server_core, "ring_hello"),
    ]


CASES = (
    Warm(
        "a",
        "provided, concurrency 64, 1 instance; nginx to one unix upstream",
        _provided_concurrent,
        (Goal("front_us", 0.55), Goal("rate", 1.5, at_least=True)),
        baseline="nginx",
    ),
    Warm(
        "b",
        "provided, exclusive, 16 instances; haproxy to 16 unix servers of maxconn 1",
        _provided_exclusive,
        (Goal("front_us", 0.65), Goal("rate", 1.7, at_least=True)),
        baseline="haproxy",
    ),
    Warm(
        "c",
        "Node hello with JSON event, concurrency 64; bare Node http server",
        _node,
        (Goal("total_us", 0.7),),
        baseline="node",
    ),
    Warm(
        "d",
        "Python hello with JSON event, concurrency 64; uvicorn with uvloop",
        _python,
        (Goal("total_us", 0.6),),
        baseline="uvicorn",
    ),
    Warm(
        "e",
        "one connection, provided; nginx to one unix upstream",
        _provided_concurrent,
        (Goal("p50_us", 1.0),),
        baseline="nginx",
        connections=1,
    ),
    Cold(),
    Idle(),
    Warm("i", "static hello: nginx, glommio, our ring", _static, subject="ring", baseline="glommio"),
    Warm(
        "j",
        f"open loop of {OPEN_RATE:,} requests/s, provided, concurrency 64; nginx to one unix upstream",
        _provided_open,
        baseline="nginx",
        rate=OPEN_RATE,
    ),
)
# h is no case of its own: it adds an engine with the default number of shards to each of these.
DEFAULT_SHARDS = "h"
WITH_DEFAULT_SHARDS = "abcde"
ALL = "abcdefghij"
# Cases that need no engine, and those that can run without it: their baselines alone.
BASELINES = "abcdeij"
# Cases that wrk cannot drive.
OPEN = "j"
