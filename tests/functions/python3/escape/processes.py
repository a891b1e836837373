"""Ways by processes: others' of the host, process 1, the engine at the other end of the channel, limits and ranks."""
import ctypes
import fcntl
import os
import resource
import signal
import socket
import struct

from attempts import attempt, call, in_child, libc

CHANNEL = 3
SO_PEERPIDFD = 77
# _IO(0xff, 3): include/uapi/linux/pidfd.h
PIDFD_GET_MNT_NAMESPACE, PIDFD_GET_NET_NAMESPACE, PIDFD_GET_USER_NAMESPACE = 0xff03, 0xff04, 0xff09


@attempt
def kill_everybody():
    """Signal 0, to all that it may signal: nobody but itself and process 1 is there."""
    os.kill(-1, 0)


@attempt
def kill_init():
    os.kill(1, signal.SIGKILL)


@attempt
def kill_parents_of_all():
    """Its parent is process 1; nobody is above it."""
    return "absent" if os.getppid() == 1 else f"done: {os.getppid()}"


@attempt
def foreign_processes():
    seen = [pid for pid in os.listdir("/proc") if pid.isdigit() and pid not in ("1", str(os.getpid()))]
    return ",".join(seen) or "absent"


@attempt
def init_by_pidfd():
    pidfd = os.pidfd_open(1)
    try:
        signal.pidfd_send_signal(pidfd, signal.SIGKILL)
    finally:
        os.close(pidfd)


@attempt
def init_descriptor_by_pidfd():
    pidfd = os.pidfd_open(1)
    try:
        os.close(call("pidfd_getfd", pidfd, 0, 0))
    finally:
        os.close(pidfd)


def peer():
    with socket.socket(fileno=os.dup(CHANNEL)) as channel:
        return struct.unpack("3i", channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, 12))


@attempt
def number_of_the_channels_peer():
    """A process of the host has no number here, and no user."""
    pid, uid, _ = peer()
    return "absent" if pid == 0 and uid not in (0, os.getuid()) else f"done: {pid} {uid}"


def with_peer_pidfd(action):
    """The kernel gives who asks a descriptor of the process that made the socket pair; what can be done with it is the question."""
    pidfd, length = ctypes.c_int(-1), ctypes.c_uint(4)
    if libc.getsockopt(CHANNEL, socket.SOL_SOCKET, SO_PEERPIDFD, ctypes.byref(pidfd), ctypes.byref(length)) < 0:
        raise OSError(ctypes.get_errno(), "getsockopt")
    try:
        action(pidfd.value)
    finally:
        os.close(pidfd.value)


@attempt
def signal_to_the_channels_peer():
    with_peer_pidfd(lambda pidfd: signal.pidfd_send_signal(pidfd, 0))


@attempt
def descriptor_of_the_channels_peer():
    with_peer_pidfd(lambda pidfd: call("pidfd_getfd", pidfd, 0, 0))


@attempt
def mount_namespace_of_the_channels_peer():
    with_peer_pidfd(lambda pidfd: fcntl.ioctl(pidfd, PIDFD_GET_MNT_NAMESPACE, 0))


@attempt
def net_namespace_of_the_channels_peer():
    with_peer_pidfd(lambda pidfd: fcntl.ioctl(pidfd, PIDFD_GET_NET_NAMESPACE, 0))


@attempt
def user_namespace_of_the_channels_peer():
    with_peer_pidfd(lambda pidfd: fcntl.ioctl(pidfd, PIDFD_GET_USER_NAMESPACE, 0))


@attempt
def leftover_descriptors():
    """All that is open, besides the directory that is being read: null, pipes, one socket; nothing with a path of the host."""
    found = []
    for number in os.listdir("/proc/self/fd"):
        try:
            target = os.readlink(f"/proc/self/fd/{number}")
        except FileNotFoundError:
            continue
        if target != "/dev/null" and not target.startswith(("pipe:", "anon_inode:")) and (number != str(CHANNEL) or not target.startswith("socket:")):
            found.append(f"{number} {target}")
    return ",".join(found) or "absent"


@attempt
def parents_of_open_directories():
    """From a directory of the host that was left open, `..` would lead out."""
    for number in os.listdir("/proc/self/fd"):
        path = f"/proc/self/fd/{number}"
        if os.path.isdir(path) and not os.readlink(path).startswith("/proc"):
            return "done: " + os.readlink(path)
    return "absent"


@attempt
def become_root():
    os.setresuid(0, 0, 0)


@attempt
def become_the_group_of_root():
    os.setresgid(0, 0, 0)


@attempt
def join_groups():
    os.setgroups([0])


@attempt
def become_somebody_else():
    os.setuid(1001)


def raise_limit(which, to):
    """Above the hard limit; Python has a word of its own for the kernel's refusal."""
    try:
        resource.setrlimit(which, (to, to))
    except ValueError as error:
        raise PermissionError(1, str(error)) from error


@attempt
def raise_open_files():
    raise_limit(resource.RLIMIT_NOFILE, resource.getrlimit(resource.RLIMIT_NOFILE)[1] + 1)


@attempt
def raise_core_size():
    raise_limit(resource.RLIMIT_CORE, 4096)


@attempt
def raise_real_time_limit():
    raise_limit(resource.RLIMIT_RTPRIO, 1)


@attempt
def dump_core():
    """A crash that would leave a core file, or feed one to a program of the host's."""
    child = os.fork()
    if child == 0:
        os.chdir("/tmp")
        os.kill(os.getpid(), signal.SIGABRT)
        os._exit(0)
    _, status = os.waitpid(child, 0)
    return "done" if os.WCOREDUMP(status) or os.path.exists("/tmp/core") else "absent"


@attempt
def raise_limits_of_init():
    resource.prlimit(1, resource.RLIMIT_NOFILE, (4096, 4096))


@attempt
def raise_rank():
    os.nice(-5)


@attempt
def real_time():
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


@attempt
def deadline_scheduling():
    call("sched_setattr", 0, struct.pack("IIQiIQQQ", 48, 6, 0, 0, 0, 1000000, 2000000, 2000000), 0)


@attempt
def affinity_of_init():
    os.sched_setaffinity(1, {0})


@attempt
def lock_much_memory():
    """More than the limit of locked memory, which nobody may raise here."""
    _, hard = resource.getrlimit(resource.RLIMIT_MEMLOCK)
    if hard == resource.RLIM_INFINITY:
        return "absent"  # the container's memory limit counts it
    raise_limit(resource.RLIMIT_MEMLOCK, hard + 4096)


@attempt
def works_threads_and_children():
    return in_child(lambda: None)
