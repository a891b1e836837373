"""What a run leaves: raw data, the environment, and a summary with a verdict for each target."""

import datetime
import json
import re
from pathlib import Path

from . import cold, idle, warm
from .cases import Cold, Idle


def folder(root, environment, out=None, kind=""):
    """A new folder `<date>-<host>-<kernel>` and `kind` below bench/runs; with a number if there is one of that name."""
    if out is not None:
        path = Path(out)
        path.mkdir(parents=True, exist_ok=True)
        return path
    name = f"{datetime.date.today().isoformat()}-{environment['host']}-{environment['kernel']}{kind}"
    for number in range(1, 1000):
        path = root / (name if number == 1 else f"{name}-{number}")
        try:
            path.mkdir(parents=True)
            return path
        except FileExistsError:
            continue
    raise FileExistsError(f"{root / name} and its 999 successors exist: remove some")


def verdict(goal, value):
    """`pass`, `MISS` or `not measured`."""
    if value is None:
        return "not measured"
    return "pass" if goal.passes(value) else "MISS"


def verdict_line(case, judged, against):
    """One target with its outcome."""
    goal, value = judged["goal"], judged["value"]
    sign = ">=" if goal.at_least else "<="
    text = f"({case.key}) {goal.measure}{against}: target {sign} {goal.limit:g}{goal.unit}"
    if value is None:
        return f"{text}: not measured"
    spread = f" (rounds {judged['range'][0]:.2f} to {judged['range'][1]:.2f})" if "range" in judged else ""
    return f"{text}: {value:.2f}{goal.unit}{spread}: **{verdict(goal, value)}**"


def verdicts(case, result):
    """Lines of all targets of a case."""
    if isinstance(case, Cold):
        out = []
        for label, (_, _, limit) in case.runtimes.items():
            measured = result["runtimes"].get(label)
            text = f"({case.key}) cold start p50, {label}: target <= {limit:g} ms"
            if result["invalid"] or measured is None:
                out.append(f"{text}: not measured")
                continue
            value = cold.p50(cold.flat(measured, cold.JUDGED))
            out.append(f"{text}: {value:.2f} ms: **{'pass' if value <= limit else 'MISS'}**")
        return out
    if isinstance(case, Idle):
        return [verdict_line(case, judged, "") for judged in idle.judge(case, result)]
    against = f", {case.subject} / {case.baseline}"
    return [verdict_line(case, judged, against) for judged in warm.judge(case, result)]


def _warm_table(result):
    rows = [
        "| contender | rate k/s | p50 us | p99 us | front us | worker us | front + worker us | support us | "
        "server cores busy | generator busy | instances | marked windows |",
        "|---|" + "---:|" * 11,
    ]
    for name, median in result["medians"].items():
        rounds = [one[name] for one in result["rounds"]]
        mean = {key: sum(one[key] for one in rounds) / len(rounds) for key in ("server_busy", "generator_busy")}
        counts = sorted({one["instances"] for one in rounds if one["instances"] is not None})
        served = ", ".join(map(str, counts)) or "-"
        rows.append(
            f"| {name} | {median['rate'] / 1e3:.1f} | {warm.us(median['p50_us'])} | {warm.us(median['p99_us'])} | "
            f"{median['front_us']:.2f} | {median['worker_us']:.2f} | {median['total_us']:.2f} | "
            f"{median['support_us']:.2f} | {mean['server_busy']:.2f} | {mean['generator_busy']:.2f} | {served} | "
            f"{_marked(rounds)} |"
        )
    return rows


def _marked(rounds):
    """How many of a contender's windows are marked, and with what."""
    marks = sorted({mark for one in rounds for mark in one["marks"]})
    return f"{sum(1 for one in rounds if one['marks'])} of {len(rounds)}: {', '.join(marks)}" if marks else "-"


OPEN_TIMES = ("p50_us", "p90_us", "p99_us", "p999_us", "lag_p999_us")


def _open_table(result):
    """An open loop: latencies from the moment when each request was due."""
    rows = [
        "| contender | rate k/s | p50 us | p90 us | p99 us | p99.9 us | send lag p99.9 us | front + worker us | "
        "server cores busy | generator busy | marked windows |",
        "|---|" + "---:|" * 10,
    ]
    for name, median in result["medians"].items():
        rounds = [one[name] for one in result["rounds"]]
        mean = {key: sum(one[key] for one in rounds) / len(rounds) for key in ("server_busy", "generator_busy")}
        times = " | ".join(warm.us(median[key]) for key in OPEN_TIMES)
        rows.append(
            f"| {name} | {median['rate'] / 1e3:.1f} | {times} | {median['total_us']:.2f} | "
            f"{mean['server_busy']:.2f} | {mean['generator_busy']:.2f} | {_marked(rounds)} |"
        )
    return [*rows, *(f"\nPlots of all rounds: {name}" for name in result.get("pages", {}))]


def _cold_table(result):
    rows = ["| runtime | calls | n | p50 ms | p90 | max | warm p50 ms |", "|---|---|" + "---:|" * 5]
    phases = []
    for label, measured in result["runtimes"].items():
        for series in cold.SERIES:
            calls = cold.flat(measured, series.key)
            rows.append(
                f"| {label} | {series.title} | {len(calls)} | {cold.p50(calls):.2f} | {cold.p90(calls):.2f} | "
                f"{max(calls):.2f} | {measured['warm_ms']:.2f} |"
            )
            phases.append((label, series.title, measured["series"][series.key]["phases_ms"]))
    names = list(dict.fromkeys(name for _, _, means in phases for name in means))
    rows += ["", "Phases as the engine tells them, mean in ms:", ""]
    rows += [f"| runtime | calls | {' | '.join(names)} |", "|---|---|" + "---:|" * len(names)]
    for label, title, means in phases:
        cells = (f"{means[name]:.2f}" if name in means else "-" for name in names)
        rows.append(f"| {label} | {title} | {' | '.join(cells)} |")
    return rows


def _idle_table(result):
    measured = result["measured"]
    rows = ["| what | PSS MB | CPU % of a core |", "|---|---:|---:|"]
    rows.append(f"| supervisor + funclet + engine | {measured['pss_mb']:.1f} | {measured['cpu_percent']:.3f} |")
    rows += [f"| - process {name} | {size:.1f} | |" for name, size in measured["by_process"].items()]
    rows.append(
        f"| pool, {measured['pool_processes']} processes | {measured['pool_pss_mb']:.1f} "
        f"| {measured['pool_cpu_percent']:.3f} |"
    )
    return rows


def section(case, result):
    """One case of the summary."""
    lines = [f"## ({case.key}) {case.title}", ""]
    if result["invalid"]:
        lines += [f"**Invalid**: {result['invalid']}", ""]
    if isinstance(case, Cold):
        lines += _cold_table(result)
    elif isinstance(case, Idle):
        lines += _idle_table(result) if result["measured"] else []
    elif result["medians"]:
        lines += _warm_table(result) if result["rate_asked"] is None else _open_table(result)
    lines += [f"\nNot measured: {name} ({reason})" for name, reason in result.get("skipped", {}).items()]
    return [*lines, ""]


def summary(done, environment, options):
    """The text of summary.md."""
    lines = [
        f"# Benchmark of {environment['commit'][:12]} on {environment['host']}, Linux {environment['kernel']}",
        "",
        f"{environment['cpu']}, {environment['cores']} cores; servers on core {environment['server_core']}, "
        f"{options.generator} on core {environment['load_core']}; "
        f"{options.rounds} rounds of {options.seconds} s per contender, interleaved; medians.",
        "What the numbers mean and what they do not: bench/README.md. Raw data: rounds.json.",
        "",
    ]
    if environment.get("calibration"):
        one = environment["calibration"]
        lines += [
            f"Against its null server the generator made {one['rate'] / 1e3:.1f} k/s "
            f"at {one['generator_us_per_request']:.2f} us each.",
            "",
        ]
    if environment["modified_files"]:
        lines += [f"The tree had {environment['modified_files']} modified files.", ""]
    if options.quick:
        lines += [
            "A quick run: it shows that everything answers. The numbers are no result, so there are no verdicts.",
            "",
        ]
    else:
        lines += ["## Targets", "", *(f"- {text}" for case, result in done for text in verdicts(case, result)), ""]
    return "\n".join([*lines, *(text for case, result in done for text in section(case, result))])


def write(path, done, environment, options):
    """Writes the three files, and the pages with plots."""
    for _, result in done:
        for name, text in result.get("pages", {}).items():
            (path / name).write_text(text)
    raw = [{key: value for key, value in result.items() if key != "pages"} for _, result in done]
    (path / "rounds.json").write_text(raw_data(raw))
    (path / "environment.json").write_text(json.dumps(environment, indent=1) + "\n")
    (path / "summary.md").write_text(summary(done, environment, options))


def raw_data(results):
    """JSON with a line for each window."""
    windows = []

    def placed(window):
        windows.append(window)
        return f"window {len(windows) - 1}"

    shown = [
        {**result, "rounds": [{name: placed(window) for name, window in one.items()} for one in result["rounds"]]}
        if "rounds" in result
        else result
        for result in results
    ]
    text = json.dumps(shown, indent=1) + "\n"
    return re.sub(r'"window (\d+)"', lambda found: json.dumps(windows[int(found[1])]), text)
