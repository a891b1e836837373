"""A process that has booted and primed once, and whose children become the runtimes of containers (docs/protocol.md
section 10).

Owns: the way of a child into its container. Must not know: functions; it runs none of their code and never reads from
their channels. One thread only: a fork copies no other. It is root of a user namespace that the containers' own are
below of, and nobody outside of that.
"""
import _signal
import os
import signal
import socket
import struct
import sys
import traceback

from . import at_fork, confine

READY = b"ready"
TAKEN = b"taken"
# user, most open files (soft, hard), 1 if a call waits for the child; little-endian. Descriptors: init's pidfd, channel, log, number, cgroup.procs ...
ORDER = struct.Struct("<4I")
ORDER_FDS_MAX = 16
CHANNEL_FD = 3
NUMBER_FD = 4
INIT = 1
# RAND(7): its generators look whether the process has been forked. LibreSSL counts otherwise, and is below.
OPENSSL_FORK_SAFE = (1, 1, 1)


def serve(control_fd, filters_fd):
    """Comes back in a child that is in its container and confined, with the descriptor on which it tells its number,
    and whether a call waits for it."""
    control = socket.socket(fileno=control_fd)
    filters = confine.read_filters(filters_fd)
    # The kernel reaps children at once: a dead one that came from outside keeps its container from ending.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What these make once in a process, the children need not.
    renew()
    at_fork.collected()
    control.send(READY)
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, ORDER.size, ORDER_FDS_MAX)
        if not order:
            os._exit(0)
        if _fork_into(descriptors[0]) == 0:
            control.detach()
            *about, hurry = ORDER.unpack(order)
            _come_in(about, descriptors, filters)
            return NUMBER_FD, hurry != 0
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(TAKEN)


def _fork_into(pidfd):
    """fork(2), the child being born in another pid namespace. What fails is told; init then waits in vain and ends.

    The way back is closed, for this process has no right over the namespace that it came from. It keeps the container's
    for its next child until the next order: what is kept of a container that has ended is the bare namespace.
    """
    try:
        confine.children_into(pidfd)
        return os.fork()
    except OSError:
        traceback.print_exc()
        sys.stderr.flush()
        return -1


def _come_in(order, descriptors, filters):
    """The child becomes a process of the container, or ends."""
    user, files_soft, files_hard = order
    pidfd, channel, log, number, *cgroups = descriptors
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        for procs in cgroups:
            os.write(procs, b"0")
        confine.enter(pidfd)
        if os.fork() != 0:
            # The other falls to the container's init, which alone is to reap it.
            os._exit(0)
        os.setsid()
        _place(channel, number)
        # Below signal.signal, whose enumerations are many pages.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        confine.limit(files_soft, files_hard)
        confine.drop_to(user)
        confine.install(filters)
        at_fork.put_in_force()
        renew()
    except BaseException:
        traceback.print_exc()
        sys.stderr.flush()
        os._exit(1)


def _place(channel, number):
    # The server's input is one open file for all of its children: its flags would be a way from one function to another.
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)
    # Both out of the way of both first.
    staged = [os.dup(descriptor) for descriptor in (channel, number)]
    for descriptor, target in zip(staged, (CHANNEL_FD, NUMBER_FD)):
        os.dup2(descriptor, target)
    os.closerange(NUMBER_FD + 1, os.sysconf("SC_OPEN_MAX"))


def renew():
    """What siblings must not share: the state of every random number generator that is loaded. (secrets, uuid4 and
    SystemRandom ask the kernel each time; OpenSSL from 1.1.1 on reseeds by itself where it finds that it was forked.)"""
    loaded = sys.modules.get
    if loaded("random"):
        loaded("random").seed()
    if loaded("numpy") and hasattr(loaded("numpy"), "random"):
        loaded("numpy").random.seed()
    if loaded("ssl") and loaded("ssl").OPENSSL_VERSION_INFO < OPENSSL_FORK_SAFE:
        loaded("ssl").RAND_add(os.urandom(32), 32.0)


def tell_number(fd):
    """Tells init which process to wait for, once it is init's."""
    while os.getppid() != INIT:
        # The one in between ends with its next instruction.
        os.sched_yield()
    os.write(fd, struct.pack("<i", os.getpid()))
    os.close(fd)
