"""A measured window: load from a generator, checks of the answers around it, and the CPU of everybody in it."""

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from . import cpu, loadgen, wrk
from .errors import Invalid
from .http_client import answer_bytes, check

PROBE_SECONDS = 0.5
# Bytes by which the mean answer may differ from the checked one: request ids and times vary in length.
ANSWER_BYTES_SLACK = 48
GENERATORS = {"loadgen": loadgen, "wrk": wrk}


@dataclass(frozen=True)
class Load:
    """How a contender is driven, by which generator on which core."""

    generator: str
    program: str
    connections: int
    seconds: int
    core: int | None
    # Requests per second of an open loop, which only loadgen has; None is a closed loop.
    rate: int | None = None
    # loadgen's result against its null server.
    calibration: Path | None = None
    # Where to add the whole result as a line.
    record: Path | None = None
    # More flags of the generator.
    more: tuple = ()

    def run(self, name, target, work):
        """One run of the generator without anything around it."""
        return GENERATORS[self.generator].run(name, target, work, self)

    def is_sampled(self):
        """Whether the runner checks answers meanwhile. Not where its own requests would be half of the load, and not in
        an open loop, whose sends they would delay: they come from the generator's core."""
        return self.connections > 1 and self.rate is None


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


def window(contender, work, load):
    """One measured window: the generator's figures, CPU per request by role, and what else the machine did meanwhile."""
    name, target = contender.name, contender.target
    check(name, target)
    checked_bytes = answer_bytes(name, target)
    sampler = Sampler(name, target) if load.is_sampled() else None
    before = {role: cpu.snapshot(pids) for role, pids in contender.roles().items()}
    machine, own, began = cpu.Machine.read(), time.process_time(), time.monotonic()
    if sampler:
        sampler.start()
    try:
        result = load.run(name, target, work)
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
    known = sum(role.total_ns for role in spent.values()) / 1e9 + result["generator_cpu_seconds"] + own
    busy = (machine_after.busy_ns - machine.busy_ns) / 1e9
    return {
        **result,
        "answer_bytes": mean_bytes,
        "cpu": {role: value.per(result["answered"]) for role, value in spent.items()},
        "server_busy": sum(role.total_ns for role in spent.values()) / 1e9 / elapsed,
        # Cores' worth of work that belonged to nobody in this comparison.
        "foreign_busy": max(0.0, busy - known) / elapsed,
        "steal": (machine_after.steal_ns - machine.steal_ns) / 1e9 / elapsed,
        "answers_checked": 3 + (sampler.checked if sampler else 0),
        "instances": contender.instances(),
    }
