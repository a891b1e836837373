"""Waiting with a deadline: the only way in which tests wait."""

import os
import time

# By how much a slow machine's tests wait longer: tests/vm/run measures it. tests/patience is the same for Rust.
TIME_FACTOR = int(os.environ.get("FAASTER_TEST_TIME_FACTOR", "1"))
assert TIME_FACTOR >= 1, f"FAASTER_TEST_TIME_FACTOR is {TIME_FACTOR}"


def patience(ordinary_s):
    """Seconds that are ample on an ordinary machine, made ample for this one."""
    return ordinary_s * TIME_FACTOR


def timeout(ordinary_s):
    """Seconds for a function's own time-out that a test waits for: longer on a slow machine, but not by all of it."""
    return ordinary_s * min(TIME_FACTOR, 5)


# Far above what anything takes: a deadline says that something hangs, never that it is slow.
PATIENCE_S = patience(60)


def until(condition, what, patience_s=PATIENCE_S, interval_s=0.01):
    """Polls until the condition gives something true, and gives that back."""
    deadline = time.monotonic() + patience_s
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > deadline:
            raise AssertionError(f"{what}: not within {patience_s} s")
        time.sleep(interval_s)
