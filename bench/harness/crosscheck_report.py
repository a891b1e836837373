"""What a cross-check leaves: raw data, the environment, pages with plots, and a summary with verdicts."""

import json
import statistics

from .report import raw_data
from .warm import us

# Shares by which rates and percentiles of two generators may differ and still agree.
AGREE = 0.05
COMPARED = ("rate", "p50_us", "p90_us", "p99_us")
LAG_US_MAX = 100.0
MEMORY_MIB_MAX = 64.0


def ratios(section, generator, measure, other="loadgen"):
    """Ratio of the medians, and the range of the rounds' own; `None` where one of the two told nothing."""
    ours, theirs = (section["medians"].get(name, {}).get(measure) for name in (generator, other))
    if section["invalid"] or ours is None or not theirs:
        return None
    each = [one[generator][measure] / one[other][measure] for one in section["rounds"]]
    return ours / theirs, min(each), max(each)


def speed_verdicts(sections):
    """Lines of the targets: rate and CPU against wrk, send lag, memory."""
    out = []
    for key in (key for key in ("peak", "null") if key in sections):
        for measure, limit, at_least in (("rate", 1.0, True), ("cpu_us", 1.0, False)):
            found = ratios(sections[key], "loadgen", measure, "wrk")
            target = "target" if key == "peak" else "for the record, as against a target"
            text = f"({key}) {measure}, loadgen / wrk: {target} {'>=' if at_least else '<='} {limit:g}x"
            out.append(f"{text}: {_judged(found, limit, at_least)}")
    if "lag" in sections:
        lags = _lags(sections["lag"], "loadgen")
        verdict = "pass" if statistics.median(lags) <= LAG_US_MAX else "MISS"
        out.append(f"(lag) send lag p99.9 at 20,000/s: target <= {LAG_US_MAX:g} us: {_spread(lags)}: **{verdict}**")
        if earlier := _lags(sections["lag"], "loadgen-before"):
            out.append(f"(lag) the same of the build before, in turns with it: {_spread(earlier)}")
        floors = sorted(one["late_p999_us"] for one in sections["lag"].get("floors", ()))
        told = ", ".join(f"{late:.1f}" for late in floors)
        out.append(f"(lag) a program that only reads the clock on that core, between the rounds: p99.9 {told} us late")
    for key in ("many", "many-open"):
        for one in sections[key]["rounds"] if key in sections else ():
            peak = one["loadgen"]["generator"]["generator"]["memory_peak_kib"] / 1024
            verdict = "pass" if peak < MEMORY_MIB_MAX else "MISS"
            text = f"({key}) memory at {sections[key]['connections']:,} connections: target < {MEMORY_MIB_MAX:g} MiB"
            out.append(f"{text}: {peak:.1f} MiB: **{verdict}**")
    return out


def _lags(section, name):
    return sorted(one[name]["lag_p999_us"] for one in section["rounds"] if name in one)


def _spread(lags):
    return f"median {statistics.median(lags):.1f} us ({', '.join(f'{lag:.1f}' for lag in lags)})"


def _judged(found, limit, at_least):
    if found is None:
        return "not measured"
    ratio, least, most = found
    holds = ratio >= limit if at_least else ratio <= limit
    return f"{ratio:.3f}x (rounds {least:.3f} to {most:.3f}): **{'pass' if holds else 'MISS'}**"


def agreement(section):
    """Rows of a table: each other generator's figures over loadgen's."""
    rows = []
    for name in section["medians"]:
        if name.startswith("loadgen"):
            continue
        cells = []
        for measure in COMPARED:
            found = ratios(section, name, measure)
            # Farther away than 5 % is in bold.
            far = found is not None and abs(found[0] - 1) > AGREE
            cells.append("-" if found is None else f"**{found[0]:.3f}**" if far else f"{found[0]:.3f}")
        rows.append(f"| {section['key']} | {name} | {' | '.join(cells)} |")
    return rows


def wrk_agreement(section):
    """The same for wrk over what loadgen would tell by wrk's method."""
    told = [ratios(section, "wrk", measure, "loadgen, as wrk would tell it") for measure in COMPARED]
    if None in told:
        return []
    cells = " | ".join(f"{one[0]:.3f}" if abs(one[0] - 1) <= AGREE else f"**{one[0]:.3f}**" for one in told)
    return [f"| {section['key']} | wrk, over loadgen's times with wrk's correction | {cells} |"]


def table(section):
    """What each generator told, and what it needed."""
    rows = [
        "| generator | requests/s (least to most) | mean us | p50 us | p90 us | p99 us | p99.9 us | under way | "
        "generator CPU us | generator busy | server busy |",
        "|---|" + "---:|" * 10,
    ]
    for name, median in section["medians"].items():
        rounds = [one[name] for one in section["rounds"]]
        rates = [one["rate"] for one in rounds]
        under_way = statistics.median(one["under_way"] for one in rounds)
        times = " | ".join(us(median[key]) for key in ("mean_us", "p50_us", "p90_us", "p99_us", "p999_us"))
        rows.append(
            f"| {name} | {median['rate']:,.0f} ({min(rates):,.0f} to {max(rates):,.0f}) | {times} | {under_way:.1f} | "
            f"{median['cpu_us']:.2f} | {median['generator_busy']:.2f} | {median['server_busy']:.2f} |"
        )
    return rows


def summary(sections, environment, options):
    """The text of summary.md."""
    lines = [
        f"# Generators against each other: {environment['commit'][:12]} on Linux {environment['kernel']}",
        "",
        f"{environment['cpu']}, {environment['cores']} cores; server on core {environment['server_core']}, generators "
        f"on core {environment['load_core']}, one thread each; up to {options.rounds} rounds of {options.seconds} s, "
        "interleaved; medians. Why generators differ: docs/measuring.md. Raw data: rounds.json.",
        "",
        ", ".join(f"{name}: {version}" for name, version in environment["generators"].items()),
        "",
    ]
    if environment["modified_files"]:
        lines += [f"The tree had {environment['modified_files']} modified files.", ""]
    if not options.quick:
        by_key = {section["key"]: section for section in sections if not section["invalid"]}
        lines += ["## Targets", "", *(f"- {text}" for text in speed_verdicts(by_key)), ""]
    lines += [
        "## Others over loadgen",
        "",
        "| section | generator | rate | p50 | p90 | p99 |",
        "|---|---|---:|---:|---:|---:|",
        *(row for section in sections for row in agreement(section) + wrk_agreement(section)),
        "",
        "Farther than 5 % away in bold.",
        "",
    ]
    for section in sections:
        lines += [f"## ({section['key']}) {section['title']}", ""]
        lines += [f"**Invalid**: {section['invalid']}", ""] if section["invalid"] else []
        lines += table(section) if section["medians"] else []
        gates = broken_gates(section)
        lines += [f"\nGates that loadgen found broken (rounds): {gates}"] if gates else []
        lines += [f"\nNot there: {name} ({reason})" for name, reason in section["skipped"].items()]
        lines += [f"\nPlots of loadgen's first round: {name}" for name in section["pages"]]
        lines.append("")
    return "\n".join(lines)


def broken_gates(section):
    """Gates by how many rounds broke them."""
    counts = {}
    for one in section["rounds"]:
        for gate in one.get("loadgen", {}).get("broken_gates", ()):
            counts[gate] = counts.get(gate, 0) + 1
    return ", ".join(f"{gate} {count}" for gate, count in counts.items())


def write(path, sections, environment, options):
    """Writes the files."""
    for section in sections:
        for name, text in section["pages"].items():
            (path / name).write_text(text)
    raw = [{key: value for key, value in section.items() if key != "pages"} for section in sections]
    (path / "rounds.json").write_text(raw_data(raw))
    (path / "environment.json").write_text(json.dumps(environment, indent=1) + "\n")
    (path / "summary.md").write_text(summary(sections, environment, options))
