"""Whole containers: made from nothing, one byte, removed; beside `bwrap` and `runc`, which take turns with ours.

The funclet's own test program does it: it has the engine's side of the protocol, and no HTTP is in the way.
"""

import json
import os
import subprocess

from .errors import Invalid
from .findings import Finding, percentile
from .processes import EVERY_CORE

TEST = ["cargo", "test", "--locked", "--release", "-p", "faaster-funclet", "--test", "system", "--"]
ONLY = ["--ignored", "--exact", "--nocapture", "whole::whole_containers"]
BWRAP_MAX, RUNC_MAX = 0.6, 0.15
SECONDS_MAX = 900


def measure(tools, _options, log):
    """Medians, and their ratios."""
    # As the engine of the other sections: all cores, for all contenders.
    inside = ["taskset", "-c", EVERY_CORE, "unshare", "--net", "--", *TEST, *ONLY]
    done = subprocess.run(
        inside,
        cwd=tools.repository,
        # The init that the engine carries, not one that cargo links as it links everything.
        env={**os.environ, "FAASTER_WHOLE_CONTAINERS": "1", "FAASTER_INIT": str(tools.init_program())},
        capture_output=True,
        text=True,
        timeout=SECONDS_MAX,
    )
    # The first stands behind the test's name.
    rounds = [json.loads(line[line.index("{") :]) for line in done.stdout.splitlines() if "made_us" in line]
    if done.returncode != 0 or not rounds:
        raise Invalid(f"the funclet's test ended with {done.returncode}: {(done.stderr + done.stdout)[-500:]}")
    ours = [one["made_us"] + one["removed_us"] for one in rounds]
    bwrap, runc = ([one[key] for one in rounds] for key in ("bwrap_us", "runc_us"))
    p50 = {name: percentile(times, 50) for name, times in (("ours", ours), ("bwrap", bwrap), ("runc", runc))}
    made = percentile([one["made_us"] for one in rounds], 50)
    findings = [
        Finding(f"made, first byte and removed, p50 of {len(rounds)}", p50["ours"] / 1e3, None, "ms"),
        Finding("of that made, to the first byte", made / 1e3, None, "ms"),
        Finding("bwrap --unshare-all --ro-bind / / true", p50["bwrap"] / 1e3, None, "ms"),
        Finding("runc run of a static no-op", p50["runc"] / 1e3, None, "ms"),
        Finding("ours over bwrap", p50["ours"] / p50["bwrap"], BWRAP_MAX, "x"),
        Finding("ours over runc", p50["ours"] / p50["runc"], RUNC_MAX, "x"),
    ]
    for finding in findings:
        log(f"  {finding.line()}")
    return rounds, findings
