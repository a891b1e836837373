"""Cases under load: contenders started together, driven in turn (A B A B ...), medians compared."""

import statistics
import subprocess

from .engine import Engine
from .errors import Invalid, Unavailable
from .http_client import check
from .load import Load, window

FIRST_WARM_UP_SECONDS = 2
WARM_UP_SECONDS = 1
# A window in which others used more than this share of a core, or the host took as much, is marked.
DISTURBED_SHARE = 0.05
# The generator used its core up: the server could have done more, so its rate is a floor.
GENERATOR_FULL = 0.95

PRINTED = ("rate", "p50_us", "p99_us", "front_us", "worker_us", "support_us", "total_us")
# Of an open loop.
PRINTED_OPEN = (*PRINTED, "p90_us", "p999_us", "lag_p999_us")


def run(case, tools, options, log):
    """Runs one case; returns what it measured, with the reason in `invalid` if it cannot be judged."""
    contenders, out = (
        [],
        {
            "case": case.key,
            "title": case.title,
            "connections": case.connections,
            "rate_asked": case.rate,
            "generator": options.generator,
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
                load = _load(case, tools, options, options.first_warm_up)
                load.run(contender.name, contender.target, tools.work)
                out["command_lines"][contender.name] = contender.command_lines()
            except Unavailable as reason:
                contenders.remove(contender)
                contender.stop()
                out["skipped"][contender.name] = str(reason)
                log(f"  {contender.name}: skipped: {reason}")
        for number in range(options.rounds):
            out["rounds"].append(_round(case, contenders, number, tools, options, log))
        if case.rate is not None and len(contenders) > 1:
            out["pages"] = {f"case-{case.key}.html": _page(tools, _records(case, tools))}
    except Invalid as reason:
        out["invalid"] = str(reason)
        log(f"  INVALID: {reason}")
    finally:
        for contender in reversed(contenders):
            contender.stop()
    out["medians"] = medians(out["rounds"], PRINTED if case.rate is None else PRINTED_OPEN)
    return out


def _load(case, tools, options, seconds, **more):
    program = tools.loadgen_program() if options.generator == "loadgen" else "wrk"
    return Load(options.generator, program, case.connections, seconds, tools.load_core, rate=case.rate, **more)


def _records(case, tools):
    """Folder of the whole results of an open loop, a file for each contender."""
    return tools.work / f"case-{case.key}"


def _page(tools, records):
    """loadgen's page with plots of all rounds."""
    page = records / "page.html"
    files = sorted(records.glob("*.json"))
    argv = [tools.loadgen_program(), "compare", *files, "--html", page]
    done = subprocess.run([str(part) for part in argv], capture_output=True, text=True)
    if not page.exists():
        raise Invalid(f"loadgen made no page of {len(files)} files: {done.stderr.strip()[-500:]}")
    return page.read_text()


def _round(case, contenders, number, tools, options, log):
    results, more = {}, {}
    if case.rate is not None:
        _records(case, tools).mkdir(exist_ok=True)
    for contender in contenders:
        if options.warm_up:
            load = _load(case, tools, options, options.warm_up)
            load.run(contender.name, contender.target, tools.work)
        if case.rate is not None:
            more = {"record": _records(case, tools) / f"{contender.name}.json", "calibration": options.calibration}
        measured = window(contender, tools.work, _load(case, tools, options, options.seconds, **more))
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
    if measured["generator_busy"] > GENERATOR_FULL:
        out.append("generator-full")
    # What makes loadgen call a run INVALID, by the gate's name; the reason stands beside it in rounds.json.
    out += [f"gate-{name}" for name in measured.get("broken_gates", {})]
    if any(role["lost"] for role in measured["cpu"].values()):
        out.append("processes-ended")
    return out


def line(measured):
    """One window in one line."""
    text = (
        f"{measured['rate'] / 1e3:7.1f} k/s  p50 {us(measured['p50_us']):>6s} us  p99 {us(measured['p99_us']):>7s} us  "
        f"front {measured['front_us']:6.2f}  worker {measured['worker_us']:6.2f} us"
    )
    return f"{text}  [{', '.join(measured['marks'])}]" if measured.get("marks") else text


def us(value):
    """A time, or `-` where there were too few requests to tell it."""
    return "-" if value is None else f"{value:.0f}"


def medians(rounds, keys=PRINTED):
    """Contender to measure to median over the rounds; `None` where a round has none."""
    names = rounds[0] if rounds else {}
    out = {}
    for name in names:
        values = {key: [one[name][key] for one in rounds if name in one] for key in keys}
        out[name] = {key: None if None in found else statistics.median(found) for key, found in values.items()}
    return out


def judge(case, result):
    """One verdict per goal: the ratio of the medians, and the range of the rounds' own ratios."""
    ours, theirs = result["medians"].get(case.subject), result["medians"].get(case.baseline)
    out = []
    for goal in case.goals:
        known = ours and theirs and None not in (ours[goal.measure], theirs[goal.measure])
        if result["invalid"] or not known or theirs[goal.measure] <= 0:
            out.append({"goal": goal, "value": None})
            continue
        complete = [one for one in result["rounds"] if case.subject in one and case.baseline in one]
        ratios = [one[case.subject][goal.measure] / one[case.baseline][goal.measure] for one in complete]
        out.append(
            {"goal": goal, "value": ours[goal.measure] / theirs[goal.measure], "range": (min(ratios), max(ratios))}
        )
    return out
