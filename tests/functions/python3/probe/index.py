"""What a process sees of the machine, and what it may do there."""
import ctypes
import errno
import os
import socket
import time

TOKEN = os.urandom(8).hex()
libc = ctypes.CDLL(None, use_errno=True)
# x86_64 and aarch64 differ; the test runs on either.
NUMBERS = {
    "x86_64": {"mount": 165, "unshare": 272, "bpf": 321, "io_uring_setup": 425, "ptrace": 101, "setns": 308, "reboot": 169,
               "init_module": 175, "kexec_load": 246, "add_key": 248, "perf_event_open": 298, "userfaultfd": 323,
               "clone3": 435, "pivot_root": 155, "chroot": 161, "swapon": 167, "open_by_handle_at": 304},
    "aarch64": {"mount": 40, "unshare": 97, "bpf": 280, "io_uring_setup": 425, "ptrace": 117, "setns": 268, "reboot": 142,
                "init_module": 105, "kexec_load": 104, "add_key": 217, "perf_event_open": 241, "userfaultfd": 282,
                "clone3": 435, "pivot_root": 41, "chroot": 51, "swapon": 224, "open_by_handle_at": 265},
}


def outcome(action):
    """Name of the error that an action ends with, or "done"."""
    try:
        action()
        return "done"
    except TimeoutError:
        return "ETIMEDOUT"
    except OSError as error:
        return errno.errorcode[error.errno]


def status(pid="self"):
    with open(f"/proc/{pid}/status") as file:
        return dict(line.rstrip("\n").split(":\t", 1) for line in file if ":\t" in line)


def syscalls():
    """errno of system calls that would lead out of a container; null arguments, as a filter answers before they matter."""
    found = {}
    for name, number in NUMBERS[os.uname().machine].items():
        ctypes.set_errno(0)
        arguments = [ctypes.c_long(0)] * 6
        if name == "unshare":
            arguments[0] = ctypes.c_long(0x10000000)  # CLONE_NEWUSER
        if name == "ptrace":
            arguments[0] = ctypes.c_long(16)  # PTRACE_ATTACH
            arguments[1] = ctypes.c_long(1)
        result = libc.syscall(ctypes.c_long(number), *arguments)
        found[name] = "done" if result >= 0 else errno.errorcode[ctypes.get_errno()]
    return found


def write(path):
    """Opens for appending and writes nothing: if it were possible, no harm would be done to the machine."""
    return outcome(lambda: open(path, "a").close())


def writes():
    places = ["/x", "/usr/x", "/usr/bin/python3", "/var/task/x", "/var/task/index.py", "/var/runtime/x", "/etc/x", "/etc/passwd",
              "/lib/x", "/dev/x", "/proc/sysrq-trigger", "/proc/sys/kernel/hostname", "/proc/self/oom_score_adj_x"]
    return {place: write(place) for place in places}


def remount():
    """Root in a container could remount what is merely read-only; here nobody is root."""
    found = {}
    for place in ("/", "/usr", "/var/task", "/tmp"):
        ctypes.set_errno(0)
        result = libc.mount(b"none", place.encode(), None, ctypes.c_ulong(32 | 4096), None)  # MS_REMOUNT | MS_BIND
        found[place] = "done" if result == 0 else errno.errorcode[ctypes.get_errno()]
    return found


def connect(address, seconds=2.0):
    def action():
        with socket.create_connection(tuple(address), seconds):
            pass
    return outcome(action)


def network(event):
    interfaces = [name for _, name in socket.if_nameindex()]

    def loopback():
        with socket.create_server(("127.0.0.1", 0)) as server, socket.create_connection(server.getsockname(), 2):
            pass

    families = {}
    for name, family, kind in (("packet", socket.AF_PACKET, socket.SOCK_RAW), ("raw", socket.AF_INET, socket.SOCK_RAW),
                               ("vsock", 40, socket.SOCK_STREAM), ("alg", 38, socket.SOCK_SEQPACKET)):
        families[name] = outcome(lambda: socket.socket(family, kind).close())
    return {
        "interfaces": interfaces,
        "loopback": outcome(loopback),
        "reached": {f"{host}:{port}": connect((host, port)) for host, port in event.get("addresses", [])},
        "families": families,
    }


def descriptors():
    found = {}
    for number in os.listdir("/proc/self/fd"):
        try:
            found[number] = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            pass  # the one that listed them
    return found


def processes():
    return {pid: status(pid)["Name"] for pid in os.listdir("/proc") if pid.isdigit()}


def init():
    """Ways into process 1: it is the engine's own and has no filter, so its memory must not be ours to write."""
    def memory():
        os.close(os.open("/proc/1/mem", os.O_RDWR))

    def environment():
        with open("/proc/1/environ", "rb") as file:
            file.read()

    def descriptors():
        os.listdir("/proc/1/fd")

    def root():
        os.listdir("/proc/1/root/")

    def process_vm():
        if libc.process_vm_readv(1, None, 0, None, 0, 0) != 0:
            raise OSError(ctypes.get_errno(), "process_vm_readv")

    return {"memory": outcome(memory), "descriptors": outcome(descriptors), "root": outcome(root), "environment": outcome(environment),
            "process_vm_readv": outcome(process_vm)}


def filled():
    """Folders that belong to the host and have something in them here."""
    places = ("/root", "/home", "/boot", "/mnt", "/media", "/srv", "/work", "/run", "/opt/bin", "/opt/lib", "/var/lib", "/var/log", "/etc/ssh", "/sys")
    return [place for place in places if os.path.isdir(place) and os.access(place, os.R_OK) and os.listdir(place)]


def signals(event):
    """What happens to a signal for a process of the host, by its number there."""
    return {str(pid): outcome(lambda: os.kill(pid, 0)) for pid in event.get("pids", [])}


def identity():
    changes = {"setuid": outcome(lambda: os.setuid(0)), "setgid": outcome(lambda: os.setgid(0)),
               "setgroups": outcome(lambda: os.setgroups([0])), "chroot": outcome(lambda: os.chroot("/tmp")),
               "device": outcome(lambda: os.mknod("/tmp/device", 0o020600, os.makedev(1, 1))), "nice": outcome(lambda: os.nice(-5)), "hostname": outcome(lambda: socket.sethostname("x"))}
    return {"uid": os.getuid(), "gid": os.getgid(), "groups": os.getgroups(), "changes": changes}


def handler(event, context):
    if "keep" in event:  # stays in the container until it is removed
        path = f"/tmp/gate-{event['keep']}"
        open(path, "w").close()
        while os.path.exists(path):
            time.sleep(0.01)
        return "kept"
    return {
        "token": TOKEN,
        "status": status(),
        "syscalls": syscalls(),
        "writes": writes(),
        "remount": remount(),
        "network": network(event),
        "descriptors": descriptors(),
        "processes": processes(),
        "signals": signals(event),
        "identity": identity(),
        "hostname": socket.gethostname(),
        "namespaces": {name: os.readlink(f"/proc/self/ns/{name}") for name in ("user", "pid", "mnt", "ipc", "uts", "net", "cgroup")},
        "dev": sorted(os.listdir("/dev")),
        "root": sorted(os.listdir("/")),
        "filled": filled(),
        "opt": sorted(os.listdir("/opt")),
        "init": init(),
        "tmp": sorted(os.listdir("/tmp")),
        "tmp_bytes": os.statvfs("/tmp").f_blocks * os.statvfs("/tmp").f_frsize,
        "cgroup": open("/proc/self/cgroup").read(),
        "mounts": open("/proc/self/mountinfo").read(),
        "environment": dict(os.environ),
    }
