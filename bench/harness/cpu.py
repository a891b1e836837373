"""CPU time of processes and of the machine, read from /proc.

Totals come from /proc/<pid>/task/*/schedstat, in nanoseconds; the split in user and system from /proc/<pid>/stat,
which counts in ticks of 10 ms. io_uring's kernel threads of a process are among its tasks, so they count.
"""

import os
from dataclasses import dataclass

TICK_NS = 1_000_000_000 // os.sysconf("SC_CLK_TCK")


@dataclass(frozen=True)
class Usage:
    """CPU time of one process so far."""

    start_ticks: int
    user_ns: int
    system_ns: int
    task_ns: dict


@dataclass
class Spent:
    """CPU time within a window."""

    total_ns: int = 0
    user_ns: int = 0
    system_ns: int = 0
    processes: int = 0
    # Processes that ended within the window: what they used at its end is lost.
    lost: int = 0

    def per(self, requests):
        """Microseconds per request. User and system are the total, divided as the ticks divide."""
        ticks = self.user_ns + self.system_ns
        total = self.total_ns / requests / 1000
        user = total * self.user_ns / ticks if ticks else 0.0
        return {
            "total_us": total,
            "user_us": user,
            "system_us": total - user if ticks else 0.0,
            "processes": self.processes,
            "lost": self.lost,
        }


def stat_fields(text):
    """Fields of /proc/<pid>/stat after the command name, which may hold any character. Index 0 is the state."""
    return text[text.rindex(")") + 2 :].split()


def usage(pid):
    """CPU time of a process, `None` if it is gone."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            fields = stat_fields(file.read())
        tasks = {}
        for tid in os.listdir(f"/proc/{pid}/task"):
            try:
                with open(f"/proc/{pid}/task/{tid}/schedstat") as file:
                    tasks[int(tid)] = int(file.read().split()[0])
            except (FileNotFoundError, ProcessLookupError):
                pass  # the thread ended between listing and reading
    except (FileNotFoundError, ProcessLookupError):
        return None
    return Usage(int(fields[19]), int(fields[11]) * TICK_NS, int(fields[12]) * TICK_NS, tasks)


def snapshot(pids):
    """Usage of each process that is there."""
    return {pid: found for pid in pids if (found := usage(pid)) is not None}


def spent(before, after):
    """What happened between two snapshots; a process that is only in the second one counts in full."""
    out = Spent(processes=len(after))
    for pid, new in after.items():
        old = before.get(pid)
        if old is None or old.start_ticks != new.start_ticks:
            old = Usage(new.start_ticks, 0, 0, {})
        user, system = new.user_ns - old.user_ns, new.system_ns - old.system_ns
        if old.task_ns.keys() <= new.task_ns.keys():
            out.total_ns += sum(ns - old.task_ns.get(tid, 0) for tid, ns in new.task_ns.items())
        else:
            out.total_ns += user + system  # a thread ended and took its nanoseconds along; the ticks still have them
        out.user_ns += user
        out.system_ns += system
    out.lost = sum(1 for pid, old in before.items() if pid not in after or after[pid].start_ticks != old.start_ticks)
    return out


def children():
    """Parent to children, of all processes."""
    out = {}
    for name in os.listdir("/proc"):
        if name.isdigit():
            try:
                with open(f"/proc/{name}/stat") as file:
                    out.setdefault(int(stat_fields(file.read())[1]), []).append(int(name))
            except (FileNotFoundError, ProcessLookupError):
                pass
    return out


def tree(root, by_parent=None):
    """The process and all that descend from it."""
    by_parent = children() if by_parent is None else by_parent
    out, todo = [], [root]
    while todo:
        pid = todo.pop()
        out.append(pid)
        todo += by_parent.get(pid, [])
    return out


@dataclass(frozen=True)
class Machine:
    """Time of all cores so far."""

    busy_ns: int
    steal_ns: int

    @staticmethod
    def read():
        with open("/proc/stat") as file:
            user, nice, system, _idle, _iowait, irq, softirq, steal = map(int, file.readline().split()[1:9])
        return Machine((user + nice + system + irq + softirq) * TICK_NS, steal * TICK_NS)


def pss_bytes(pid):
    """Proportional set size of a process."""
    with open(f"/proc/{pid}/smaps_rollup") as file:
        for line in file:
            if line.startswith("Pss:"):
                return int(line.split()[1]) * 1024
    return 0
