"""What can be left behind on a machine: processes, cgroups, mounts, ports."""

import os
import socket
from pathlib import Path

PROC = Path("/proc")
CGROUPS = Path("/sys/fs/cgroup")


def stat_of(pid):
    """(name, state, parent) of a process, or None when it is gone."""
    try:
        text = (PROC / str(pid) / "stat").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return None
    name, rest = text[text.index("(") + 1:].rsplit(")", 1)
    fields = rest.split()
    return name, fields[0], int(fields[1])


def command_of(pid):
    """First argument of a process's command line; empty when the process is gone or has none."""
    try:
        line = (PROC / str(pid) / "cmdline").read_bytes()
    except (FileNotFoundError, ProcessLookupError):
        return ""
    return line.split(b"\0")[0].decode(errors="replace")


def processes():
    """All processes of this pid namespace: pid -> (name, state, parent)."""
    found = {}
    for entry in PROC.iterdir():
        if entry.name.isdigit():
            stat = stat_of(entry.name)
            if stat:
                found[int(entry.name)] = stat
    return found


def descendants(pid):
    """Pids of all processes below one, itself included."""
    table = processes()
    family, grown = {pid}, True
    while grown:
        more = {child for child, (_, _, parent) in table.items() if parent in family} - family
        grown = bool(more)
        family |= more
    return family & set(table)


def alive(pid):
    """Whether the process is there and no zombie."""
    stat = stat_of(pid)
    return stat is not None and stat[1] not in "ZX"


def cgroups_of(instance):
    """Directories of the cgroups that belong to an instance of the engine."""
    found = []
    for folder, names, _ in os.walk(CGROUPS):
        for name in list(names):
            if name.startswith(f"faaster-{instance}"):
                found.append(os.path.join(folder, name))
                names.remove(name)
    return found


def is_cgroup_v2():
    """Whether memory is a controller of v2 here."""
    file = CGROUPS / "cgroup.controllers"
    return file.exists() and "memory" in file.read_text().split()


def cgroup_of(pid, controller="memory"):
    """Directory of the cgroup of a process that has the say over a resource."""
    places = [line.split(":", 2) for line in (PROC / str(pid) / "cgroup").read_text().splitlines()]
    for _, controllers, path in places:
        if controller in controllers.split(","):
            return CGROUPS / controllers / path.lstrip("/")
    return next(CGROUPS / path.lstrip("/") for _, controllers, path in places if not controllers)


def number_in(file):
    """The number in a cgroup file; None where the kernel has no such file or it says that there is no limit."""
    try:
        text = file.read_text().strip()
    except FileNotFoundError:
        return None
    return None if text == "max" else int(text)


def limits_of(pid):
    """Limits of a process's cgroup: bytes of memory and of swap, processes, weight of cpu (in the version's own unit)."""
    memory, pids, cpu = (cgroup_of(pid, name) for name in ("memory", "pids", "cpu"))
    if is_cgroup_v2():
        return {
            "memory": number_in(memory / "memory.max"), "swap": number_in(memory / "memory.swap.max"),
            "pids": number_in(pids / "pids.max"), "cpu": number_in(cpu / "cpu.weight"),
        }
    bytes_max, both_max = (number_in(memory / f"memory.{kind}limit_in_bytes") for kind in ("", "memsw."))
    return {
        "memory": bytes_max, "swap": None if both_max is None else both_max - bytes_max,
        "pids": number_in(pids / "pids.max"), "cpu": number_in(cpu / "cpu.shares"),
    }


def uses_of(pid):
    """What a process's cgroup uses now: bytes of memory, and processes and threads."""
    memory = cgroup_of(pid) / ("memory.current" if is_cgroup_v2() else "memory.usage_in_bytes")
    return {"memory": number_in(memory), "processes": number_in(cgroup_of(pid, "pids") / "pids.current")}


def peak_of(pid):
    """The most memory that a process's cgroup ever held, bytes."""
    return number_in(cgroup_of(pid) / ("memory.peak" if is_cgroup_v2() else "memory.max_usage_in_bytes"))


def cpu_us_of(pid):
    """Processor time that a process's cgroup has used, microseconds."""
    core = core_of(pid)
    if core is not None:
        lines = (core / "cpu.stat").read_text().splitlines()
        return int(dict(line.split() for line in lines)["usage_usec"])
    return number_in(cgroup_of(pid, "cpuacct") / "cpuacct.usage") // 1000


def core_of(pid):
    """Directory of the cgroup of a process in the v2 hierarchy; None where that is not mounted."""
    mounts = [line.split() for line in (PROC / "mounts").read_text().splitlines()]
    lines = (PROC / str(pid) / "cgroup").read_text().splitlines()
    path = next((line[3:] for line in lines if line.startswith("0::")), "/")
    return next((Path(mount[1]) / path.lstrip("/") for mount in mounts if mount[2] == "cgroup2"), None)


def abandoned_cgroups():
    """Directories of the cgroups of any engine in which, and below which, there is no process at all."""
    found = []
    for top in cgroups_of(""):
        try:
            lists = [Path(folder, "cgroup.procs").read_text() for folder, _, _ in os.walk(top)]
        except OSError:
            continue  # it is being removed right now
        if lists and not any(text.strip() for text in lists):
            found.append(top)
    return found


def mounts():
    """All mount points that this process sees, as many times as something is mounted there."""
    return [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def mounts_below(path):
    """Mount points at or below a path, as this process sees them."""
    path = str(path)
    return [point for point in mounts() if point == path or point.startswith(path + "/")]


def port_is_free(port):
    """Whether somebody else could listen there now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
