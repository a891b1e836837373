"""How late the most eager program would be on a core: it only reads the clock, and asks for nothing else.

What it is held up for, another program, an interrupt or the hypervisor took; no generator can send in that time. Run as a
program of its own (`python3 floor.py CORE SECONDS`), so that nothing of the runner is in it. Prints one JSON object.
"""

import gc
import json
import os
import sys
import time

# Between two readings lie some 100 ns; what is longer than this was not the program's own.
GAP_NS_MIN = 5_000
STALL_NS_MIN = 20_000


def late_ns(gaps, wall_ns, share):
    """How late the given share of moments is at least, if a program is late until the end of the gap that holds them."""
    low, high = 0, max(gaps, default=0)
    while high - low > 1:
        middle = (low + high) // 2
        if sum(max(0, gap - middle) for gap in gaps) > share * wall_ns:
            low = middle
        else:
            high = middle
    return high


def measure(seconds):
    """Reads the clock for so long; the gaps in it, and the time that all took."""
    now, gaps = time.monotonic_ns, []
    gc.disable()
    begun = last = now()
    while last - begun < seconds * 1_000_000_000:
        read = now()
        if read - last >= GAP_NS_MIN:
            gaps.append(read - last)
        last = read
    return gaps, last - begun


def main():
    core, seconds = int(sys.argv[1]), float(sys.argv[2])
    os.sched_setaffinity(0, {core})
    os.nice(-20)
    gaps, wall_ns = measure(seconds)
    stalls = [gap for gap in gaps if gap >= STALL_NS_MIN]
    figures = {
        "late_p99_us": late_ns(gaps, wall_ns, 0.01) / 1e3,
        "late_p999_us": late_ns(gaps, wall_ns, 0.001) / 1e3,
        "stalled_share": sum(stalls) / wall_ns,
        "stalls": len(stalls),
        "stall_us_max": max(gaps, default=0) / 1e3,
    }
    print(json.dumps(figures))


if __name__ == "__main__":
    main()
