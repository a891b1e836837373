"""Ways by /proc: what of the host's is covered there, what nobody has judged yet, and whatever could be opened for writing."""
import os

from attempts import attempt
from files import reading, writing

# Seen by every container, and judged harmless or not to be helped (docs/isolation.md): the kernel's kinds and versions, and load.
JUDGED = frozenset("""
    buddyinfo cgroups config.gz consoles cpuinfo crypto devices dma dynamic_debug execdomains fb filesystems iomem ioports key-users loadavg
    locks mdstat meminfo misc mounts net pressure schedstat self softirqs stat swaps sys sysvipc thread-self tty uptime version
    version_signature vmstat zoneinfo
""".split())
NULL = os.makedev(1, 3)
# Fewer would mean that the walk did not see what is there.
WALK_LEAST = 200

for name in (
    "acpi", "asound", "diskstats", "driver", "irq", "modules", "scsi", "timer_list", "timer_stats", "sched_debug", "latency_stats", "slabinfo",
    "pagetypeinfo", "vmallocinfo", "kpageflags", "mtrr", "sysrq-trigger", "vmcore", "kpagecount", "kpagecgroup",
):
    reading("read_proc_" + name.replace("-", "_"), f"/proc/{name}")

for name, path in (
    ("read_init_maps", "/proc/1/maps"), ("read_init_stack", "/proc/1/stack"), ("read_init_system_call", "/proc/1/syscall"),
    ("read_init_io", "/proc/1/io"), ("read_init_program", "/proc/1/exe"),
    ("read_own_kernel_stack", "/proc/self/stack"), ("read_bpf_jit_harden", "/proc/sys/net/core/bpf_jit_harden"),
    ("read_cad_pid", "/proc/sys/kernel/cad_pid"), ("read_stable_secret", "/proc/sys/net/ipv6/conf/lo/stable_secret"),
):
    reading(name, path)

for name, path in (
    ("write_last_pid", "/proc/sys/kernel/ns_last_pid"), ("write_binfmt", "/proc/sys/fs/binfmt_misc/register"),
    ("write_host_forwarding", "/proc/sys/net/ipv4/ip_forward"), ("write_kptr_restrict", "/proc/sys/kernel/kptr_restrict"),
    ("write_userns_bound", "/proc/sys/user/max_user_namespaces"), ("write_drop_caches", "/proc/sys/vm/drop_caches"),
    ("write_bus", "/proc/bus/pci/00/00.0"), ("write_scsi", "/proc/scsi/scsi"), ("write_acpi", "/proc/acpi/wakeup"),
    ("write_init_coredump_filter", "/proc/1/coredump_filter"), ("write_own_memory", "/proc/self/mem"),
    ("write_own_name", "/proc/self/comm"), ("write_own_security_label", "/proc/self/attr/current"),
):
    writing(name, path)


@attempt
def names_in_proc_that_nobody_judged():
    """What can be read there and is not empty, beyond the list."""
    found = []
    for name in sorted(os.listdir("/proc")):
        path = f"/proc/{name}"
        if name.isdigit() or name in JUDGED:
            continue
        try:
            if os.path.isdir(path):
                full = bool(os.listdir(path))
            else:
                with open(path, "rb") as file:
                    full = bool(file.read(16))
        except OSError:
            continue
        if full:
            found.append(name)
    return ",".join(found) or "absent"


@attempt
def anything_in_proc_for_writing():
    """Every file of /proc is opened for writing, processes' own as well; nothing is written."""
    opened, seen = [], 0
    for folder, below, names in os.walk("/proc"):
        # Links into the process itself: what it has open, and its threads, whose files are the same again.
        below[:] = [name for name in below if name not in ("fd", "map_files", "task")]
        for name in names:
            seen += 1
            path = f"{folder}/{name}"
            try:
                # /dev/null, by which files are covered, takes everything and tells nobody.
                if os.lstat(path).st_rdev != NULL:
                    os.close(os.open(path, os.O_WRONLY | os.O_NONBLOCK))
                    opened.append(path)
            except OSError:
                continue
    if seen < WALK_LEAST:
        return f"saw {seen} files only"
    return ",".join(opened[:10]) or "absent"
