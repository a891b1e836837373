"""Waiting with a deadline: the only way in which tests wait."""

import time

# Far above what anything takes: a deadline says that something hangs, never that it is slow.
PATIENCE_S = 60


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
