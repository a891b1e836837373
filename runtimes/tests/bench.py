#!/usr/bin/env python3
"""CPU of the runtime's process per call of the hello function, in microseconds, with 1 call in flight and with 64 in one write.

Usage: bench.py [RUNTIME...] [--calls N]. It measures the runtime's side alone: the engine's is in bench/ of the project.
"""
import argparse
import statistics
import sys
import time

import wire
from engine import Instance, Runtime, Unavailable

ROUNDS = 5
EVENT = b'{"name":"x"}'


def run_batches(instance, batches, size):
    """CPU microseconds per call over `batches` writes of `size` invocations each."""
    first = instance.last_id + 1
    data = b"".join(wire.pack_invoke(first + index, EVENT) for index in range(size))
    before = instance.cpu_ns()
    for _ in range(batches):
        instance.channel.setblocking(True)
        instance.channel.sendall(data)
        answered = 0
        while answered < size:
            instance.buffer += instance.channel.recv(1 << 20)
            while (frame := wire.take(instance.buffer)) is not None:
                assert frame.kind == wire.RESPONSE, frame
                answered += 1
    instance.channel.setblocking(False)
    return (instance.cpu_ns() - before) / (batches * size) / 1000


def measure(runtime, case, concurrency, size, calls):
    with Instance(runtime, case, concurrency=concurrency) as instance:
        run_batches(instance, max(1, calls // size // 4), size)  # warm up: caches, JIT
        rounds = [run_batches(instance, max(1, calls // size // ROUNDS), size) for _ in range(ROUNDS)]
        return statistics.median(rounds), min(rounds), max(rounds)


def time_sleepers(runtime, case, sleep_ms, rounds=3):
    """Wall milliseconds until 64 calls that sleep are all answered, for a fresh process and then again."""
    with Instance(runtime, case, concurrency=64) as instance:
        walls = []
        for _ in range(rounds):
            began = time.perf_counter()
            instance.call_all([{"ms": sleep_ms}] * 64)
            walls.append((time.perf_counter() - began) * 1000)
        return walls


def print_sleepers(names):
    print("\n64 calls at once that sleep, ms until all are answered (first round, second, third)")
    for name in names:
        for case in ("sleep", "sleep_async"):
            for sleep_ms in (100, 5, 0.3):
                try:
                    walls = time_sleepers(Runtime.find(name), case, sleep_ms)
                except Unavailable:
                    break
                print(f"{name:10} {case:12} {sleep_ms:5} ms: {'  '.join(f'{wall:6.1f}' for wall in walls)}")


def main():
    options = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    options.add_argument("runtimes", nargs="*", default=["python3", "nodejs", "ruby", "provided"])
    options.add_argument("--calls", type=int, default=50_000)
    options.add_argument("--case", nargs="*", default=["hello"])
    chosen = options.parse_args()
    print(f"{'runtime':10} {'function':10} {'instance':11} {'in flight':>9} {'us/call':>8}   (min-max of {ROUNDS} rounds)")
    for name in chosen.runtimes:
        for case in chosen.case:
            for concurrency, size in ((0, 1), (64, 1), (64, 64)):
                try:
                    runtime = Runtime.find(name)
                    with Instance(runtime, case) as probe:
                        if concurrency and not probe.concurrent:
                            continue
                    middle, low, high = measure(runtime, case, concurrency, size, chosen.calls if size > 1 else chosen.calls // 5)
                except Unavailable as reason:
                    print(f"{name:10} {case:10} skipped: {reason}")
                    break
                kind = "concurrent" if concurrency else "exclusive"
                print(f"{name:10} {case:10} {kind:11} {size:9} {middle:8.2f}   ({low:.2f}-{high:.2f})", flush=True)
    print_sleepers(chosen.runtimes)


if __name__ == "__main__":
    sys.exit(main())
