"""Ways by files: the kernel's settings, devices, other roots, other packages, what is read-only, what is privileged."""
import os
import re
import stat
import subprocess

from attempts import attempt, call, in_child, libc

PRIVILEGED_DIRECTORIES = ("/usr/bin", "/bin", "/usr/sbin", "/usr/lib", "/usr/libexec")


def reading(name, path):
    """An attempt to read a file or a directory; "empty" where it can be read and holds nothing."""
    def function():
        if os.path.isdir(path):
            return "done" if os.listdir(path) else "empty"
        with open(path, "rb") as file:
            return "done" if file.read(4096) else "empty"
    function.__name__ = name
    attempt(function)


def writing(name, path):
    """An attempt to open for writing; nothing is written."""
    def function():
        os.close(os.open(path, os.O_WRONLY))
    function.__name__ = name
    attempt(function)


def making(name, path):
    def function():
        os.close(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        os.unlink(path)
    function.__name__ = name
    attempt(function)


for name, path in (
    ("read_kcore", "/proc/kcore"), ("read_kmsg", "/proc/kmsg"), ("read_kallsyms", "/proc/kallsyms"), ("read_interrupts", "/proc/interrupts"),
    ("read_kernel_command_line", "/proc/cmdline"), ("read_partitions", "/proc/partitions"), ("read_proc_bus", "/proc/bus"),
    ("read_proc_fs", "/proc/fs"), ("read_proc_keys", "/proc/keys"), ("read_init_environment", "/proc/1/environ"),
    ("read_init_memory", "/proc/1/mem"), ("read_init_root", "/proc/1/root/"), ("read_init_cwd", "/proc/1/cwd/"),
    ("read_init_descriptors", "/proc/1/fd"), ("read_sys", "/sys"), ("read_cgroups", "/sys/fs/cgroup"), ("read_host_root_home", "/root"),
    ("read_shadow", "/etc/shadow"), ("read_funclets_code", "/code"), ("read_funclets_runtimes", "/runtimes"), ("read_funclets_new", "/new"),
    ("read_run", "/run"), ("read_dev_mem", "/dev/mem"), ("read_dev_kmsg", "/dev/kmsg"), ("read_dev_fuse", "/dev/fuse"),
    ("read_dev_kvm", "/dev/kvm"), ("read_debugfs", "/sys/kernel/debug"),
):
    reading(name, path)

for name, path in (
    ("write_sysrq", "/proc/sysrq-trigger"), ("write_core_pattern", "/proc/sys/kernel/core_pattern"),
    ("write_hostname", "/proc/sys/kernel/hostname"), ("write_modprobe", "/proc/sys/kernel/modprobe"),
    ("write_overcommit", "/proc/sys/vm/overcommit_memory"), ("write_own_oom_score", "/proc/self/oom_score_adj"),
    ("write_own_uid_map", "/proc/self/uid_map"), ("write_init_memory", "/proc/1/mem"), ("write_init_oom_score", "/proc/1/oom_score_adj"),
    ("write_irq_affinity", "/proc/irq/default_smp_affinity"), ("write_task", "/var/task/index.py"), ("write_passwd", "/etc/passwd"),
    ("write_resolv_conf", "/etc/resolv.conf"), ("write_interpreter", os.path.realpath("/usr/bin/python3")),
    ("write_runtime", "/var/runtime/bootstrap.py"),
):
    writing(name, path)

for name, path in (("make_in_task", "/var/task/new"), ("make_in_runtime", "/var/runtime/new"), ("make_in_root", "/new"), ("make_in_usr", "/usr/new"),
                   ("make_in_dev", "/dev/new"), ("make_in_etc", "/etc/new"), ("make_in_opt", "/opt/new"), ("make_in_run", "/run/new")):
    making(name, path)


def remount(name, path):
    def function():
        call("mount", b"none", path.encode(), 0, 32 | 4096, 0)
    function.__name__ = name
    attempt(function)


for name, path in (("remount_root", "/"), ("remount_usr", "/usr"), ("remount_task", "/var/task"), ("remount_proc", "/proc"), ("remount_dev", "/dev")):
    remount(name, path)


@attempt
def mknod_memory():
    os.mknod("/tmp/mem", 0o600 | stat.S_IFCHR, os.makedev(1, 1))


@attempt
def mknod_null():
    os.mknod("/tmp/null", 0o600 | stat.S_IFCHR, os.makedev(1, 3))


@attempt
def mknod_disk():
    os.mknod("/tmp/disk", 0o600 | stat.S_IFBLK, os.makedev(8, 0))


@attempt
def hard_link_to_a_file_of_the_host():
    os.link("/usr/bin/env", "/tmp/env")


@attempt
def hard_link_to_the_package():
    os.link("/var/task/index.py", "/tmp/index.py")


@attempt
def symlink_to_a_secret():
    """Whoever follows it ends in the container's own root."""
    link = "/tmp/shadow"
    if not os.path.islink(link):
        os.symlink("/etc/shadow", link)
    open(link, "rb").close()


@attempt
def symlink_through_the_parents():
    link = "/tmp/up"
    if not os.path.islink(link):
        os.symlink("../" * 40 + "etc/shadow", link)
    open(link, "rb").close()


@attempt
def other_packages_beside_the_own():
    beside = os.listdir("/var/task/..")
    return "done" if any(re.fullmatch("[0-9a-f]{64}", name) for name in beside) else "absent"


@attempt
def devices_that_are_not_listed():
    known = {"null", "zero", "full", "random", "urandom", "tty", "pts", "ptmx", "shm"}
    found = [name for name in os.listdir("/dev")
             if name not in known and stat.S_ISCHR(os.lstat(f"/dev/{name}").st_mode) | stat.S_ISBLK(os.lstat(f"/dev/{name}").st_mode)]
    return "done" if found else "absent"


@attempt
def cgroup_file_system_somewhere():
    with open("/proc/self/mountinfo") as mounts:
        return "done" if any(line.split(" - ")[1].startswith("cgroup") for line in mounts) else "absent"


@attempt
def name_of_the_own_cgroup():
    with open("/proc/self/cgroup") as groups:
        return "done" if any(line.strip().rsplit(":", 1)[1] != "/" for line in groups) else "absent"


@attempt
def writable_mounts_besides_tmp():
    found = []
    with open("/proc/self/mountinfo") as mounts:
        for line in mounts:
            place, options = line.split()[4:6]
            if "rw" in options.split(",") and place != "/tmp":
                found.append(place)
    return ",".join(found) or "absent"


@attempt
def mounts_with_privileged_files():
    """Mounts on which a setuid bit would count."""
    with open("/proc/self/mountinfo") as mounts:
        found = [line.split()[4] for line in mounts if "nosuid" not in line.split()[5].split(",")]
    return ",".join(found) or "absent"


def privileged_program():
    for folder in PRIVILEGED_DIRECTORIES:
        for name in sorted(os.listdir(folder)) if os.path.isdir(folder) else ():
            status = os.lstat(f"{folder}/{name}")
            if stat.S_ISREG(status.st_mode) and status.st_mode & stat.S_ISUID and status.st_mode & 0o001:
                return f"{folder}/{name}"


@attempt
def setuid_program():
    """The loader says as whom a setuid program runs; with privilege it would not say anything."""
    program = privileged_program()
    if not program:
        return "absent"
    ended = subprocess.run([program, "--version"], env={"LD_SHOW_AUXV": "1"}, stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=10)
    said = dict(re.findall(r"(AT_\w+):\s+(\w+)", ended.stdout))
    return "unprivileged" if (said.get("AT_EUID"), said.get("AT_SECURE")) == (str(os.getuid()), "0") else f"done: {program} {said}"


@attempt
def setuid_file_of_its_own():
    """Owned by itself: it gives what it has already."""
    os.makedirs("/tmp/own", exist_ok=True)
    with open("/bin/sh", "rb") as shell, open("/tmp/own/sh", "wb") as copy:
        copy.write(shell.read())
    os.chmod("/tmp/own/sh", 0o6755)
    said = subprocess.run(["/tmp/own/sh", "-c", "grep CapEff /proc/self/status"], capture_output=True, text=True, timeout=10).stdout
    return "unprivileged" if int(said.split()[1], 16) == 0 else said


@attempt
def give_a_file_to_root():
    open("/tmp/gift", "w").close()
    os.chown("/tmp/gift", 0, 0)


@attempt
def inotify_on_a_folder_of_the_host():
    watcher = libc.inotify_init1(0)
    try:
        if libc.inotify_add_watch(watcher, b"/work", 2) < 0:
            raise FileNotFoundError(2, "inotify")
    finally:
        os.close(watcher)


# --- what must still work, so that a probe that fails at everything is not taken for a tight container ---------------


@attempt
def works_write_tmp():
    open("/tmp/written", "w").close()


@attempt
def works_fifo():
    os.mkfifo("/tmp/fifo")
    os.unlink("/tmp/fifo")


@attempt
def works_program_in_memory():
    def run():
        file = os.memfd_create("program", 0)
        with open("/bin/true", "rb") as program:
            os.write(file, program.read())
        os.execve(file, ["true"], {})
    return in_child(run) or "done"
