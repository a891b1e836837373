"""Cases under load: contenders started together, driven in turn (A B A B ...), medians compared."""

import statistics

from .engine import Engine
from .errors import Invalid, Unavailable
from .http_client import check
from .load import run_wrk, window

FIRST_WARM_UP_SECONDS = 2
WARM_UP_SECONDS = 1
# A window in which others used more than this share of a core, or the host took as much, is marked.
DISTURBED_SHARE = 0.05
# wrk used its core up: the server could have done more, so its rate is a floor.
GENERATOR_FULL = 0.95

PRINTED = ("rate", "p50_us", "p99_us", "front_us", "worker_us", "support_us", "total_us")


def run(case, tools, options, log):
    """Runs one case; returns what it measured, with the reason in `invalid` if it cannot be judged."""
    contenders, out = (
        [],
        {
            "case": case.key,
            "title": case.title,
            "connections": case.connections,
            "rounds": [],
            "skipped": {},
            "command_lines": {},
            "invalid": None,
        },
    )
    try:
        for contender in case.make(tools, options.default_shards):
            if options.baselines and isinstance(contender, Engine):
                out["skipped"][contender.name] = "--baselines"
                continue
            try:
                contenders.append(contender)  # before it starts: a failed start leaves processes to end
                contender.start()
                check(contender.name, contender.target)
                run_wrk(
                    contender.name,
                    contender.target,
                    tools.work,
                    case.connections,
                    options.first_warm_up,
                    tools.load_core,
                )
                out["command_lines"][contender.name] = contender.command_lines()
            except Unavailable as reason:
                contenders.remove(contender)
                contender.stop()
                out["skipped"][contender.name] = str(reason)
                log(f"  {contender.name}: skipped: {reason}")
        for number in range(options.rounds):
            out["rounds"].append(_round(case, contenders, number, tools, options, log))
    except Invalid as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    finally:
        for contender in reversed(contenders):
            contender.stop()
    out["medians"] = medians(out["rounds"])
    return out


def _round(case, contenders, number, tools, options, log):
    results = {}
    for contender in contenders:
        if options.warm_up:
            run_wrk(contender.name, contender.target, tools.work, case.connections, options.warm_up, tools.load_core)
        measured = window(contender, tools.work, case.connections, options.seconds, tools.load_core)
        results[contender.name] = {**measured, **flat(measured["cpu"]), "marks": marks(measured)}
        log(f"  round {number + 1} {contender.name:24s} {line(results[contender.name])}")
    return results


def flat(cpu_by_role):
    """CPU per request as plain measures; the total leaves out `support`, which is printed on its own."""

    def us(role):
        return cpu_by_role.get(role, {}).get("total_us", 0.0)

    return {
        "front_us": us("front"),
        "worker_us": us("worker"),
        "support_us": us("support"),
        "total_us": us("front") + us("worker"),
    }


def marks(measured):
    """What a reader must know of this window."""
    out = []
    if measured["foreign_busy"] > DISTURBED_SHARE or measured["steal"] > DISTURBED_SHARE:
        out.append("disturbed")
    if measured["wrk_busy"] > GENERATOR_FULL:
        out.append("generator-full")
    if any(role["lost"] for role in measured["cpu"].values()):
        out.append("processes-ended")
    return out


def line(measured):
    """One window in one line."""
    text = (
        f"{measured['rate'] / 1e3:7.1f} k/s  p50 {measured['p50_us']:6.0f} us  p99 {measured['p99_us']:7.0f} us  "
        f"front {measured['front_us']:6.2f}  worker {measured['worker_us']:6.2f} us"
    )
    return f"{text}  [{', '.join(measured['marks'])}]" if measured.get("marks") else text


def medians(rounds):
    """Contender to measure to median over the rounds."""
    names = rounds[0] if rounds else {}
    return {
        name: {key: statistics.median(one[name][key] for one in rounds if name in one) for key in PRINTED}
        for name in names
    }


def judge(case, result):
    """One verdict per goal: the ratio of the medians, and the range of the rounds' own ratios."""
    ours, theirs = result["medians"].get(case.subject), result["medians"].get(case.baseline)
    out = []
    for goal in case.goals:
        if result["invalid"] or not ours or not theirs or theirs[goal.measure] <= 0:
            out.append({"goal": goal, "value": None})
            continue
        complete = [one for one in result["rounds"] if case.subject in one and case.baseline in one]
        ratios = [one[case.subject][goal.measure] / one[case.baseline][goal.measure] for one in complete]
        out.append(
            {"goal": goal, "value": ours[goal.measure] / theirs[goal.measure], "range": (min(ratios), max(ratios))}
        )
    return out
