"""A process that has booted and primed once, and whose children become the runtimes of containers (docs/protocol.md
section 10).

Owns: the way of a child into its container. Must not know: functions; it runs none of their code and never reads from
their channels. One thread only: a fork copies no other. It is root of a user namespace that the containers' own are
below of, and nobody outside of that.
"""
import _random
import _signal
import functools
import os
import signal
import socket
import struct
import sys
import traceback

from . import at_fork, beside, confine

READY = b"ready"
TAKEN = b"taken"
# user, most open files (soft, hard), 1 if a call waits for the child; little-endian. Descriptors: init's pidfd and pid
# namespace, channel, log, adoption, cgroup.procs ...
ORDER = struct.Struct("<4I")
ORDER_FDS_MAX = 16
NUMBER = struct.Struct("<i")
CHANNEL_FD = 3
ADOPTION_FD = 4
PIDFD_FD = 5
INIT = 1
# RAND(7): its generators look whether the process has been forked. LibreSSL counts otherwise, and is below.
OPENSSL_FORK_SAFE = (1, 1, 1)
# A number: to look up its name is to hash it, on pages that siblings share.
OPEN_FILES_MAX = os.sysconf_names["SC_OPEN_MAX"]

# Once all is imported.
_reseeding = []


def serve(control_fd, filters_fd, live):
    """Never returns. Runs `live` in each child once it is in its container and confined, with the descriptor on which it
    tells its number, and whether a call waits for it; that one never returns either."""
    control = socket.socket(fileno=control_fd)
    filters = confine.read_filters(filters_fd)
    # The kernel reaps children at once: a dead one that came from outside keeps its container from ending.
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)
    # What these make once in a process, the children need not.
    _reseeding[:] = _find_generators()
    renew()
    at_fork.collected()
    order = descriptors = None

    def bear():
        if _grandchild(descriptors):
            control.detach()
            *about, hurry = ORDER.unpack(order)
            _come_in(about, descriptors, filters)
            live(ADOPTION_FD, hurry != 0)
            os._exit(0)

    fork = beside.make(bear) or (lambda: _fork(bear))
    control.send(READY)
    while True:
        order, descriptors, _, _ = socket.recv_fds(control, ORDER.size, ORDER_FDS_MAX)
        if not order:
            os._exit(0)
        _fork_into(descriptors[1], fork)
        for descriptor in descriptors:
            os.close(descriptor)
        control.send(TAKEN)


def _fork_into(namespace, fork):
    """The next child is born in another pid namespace. What fails is told; init then waits in vain and ends.

    The way back is closed, for this process has no right over the namespace that it came from. It keeps the container's
    for its next child until the next order: what is kept of a container that has ended is the bare namespace.
    """
    try:
        confine.children_into(namespace)
        fork()
    except OSError:
        _tell()


def _fork(function):
    """What beside.py is for, where it cannot be had: with a copy of the memory."""
    if os.fork() == 0:
        function()
        os._exit(0)


def _grandchild(descriptors):
    """In the child: whether this is the one that it forks in turn, in its groups. That one falls to the container's init,
    which alone is to reap it; the child is there for that only, and ends."""
    try:
        for procs in descriptors[5:]:
            os.write(procs, b"0")
        return os.fork() == 0
    except OSError:
        _tell()
        return False


def _come_in(order, descriptors, filters):
    """The grandchild becomes a process of the container as soon as that stands, or ends."""
    user, files_soft, files_hard = order
    pidfd, _, channel, log, adoption = descriptors[:5]
    try:
        os.dup2(log, 1)
        os.dup2(log, 2)
        os.setsid()
        _place(channel, adoption, pidfd)
        # Below signal.signal, whose enumerations are many pages.
        _signal.signal(_signal.SIGCHLD, _signal.SIG_DFL)
        confine.limit(files_soft, files_hard)
        if not os.read(ADOPTION_FD, 1):
            # There is no init any more.
            os._exit(0)
        confine.enter(PIDFD_FD)
        _own_input()
        confine.drop_to(user)
        confine.install(filters)
        at_fork.put_in_force()
        renew()
    except BaseException:
        _tell()
        os._exit(1)


def _place(channel, adoption, pidfd):
    """Puts these where they are to be, and closes all else."""
    # All out of the way of all first.
    staged = [os.dup(descriptor) for descriptor in (channel, adoption, pidfd)]
    for descriptor, target in zip(staged, (CHANNEL_FD, ADOPTION_FD, PIDFD_FD)):
        os.dup2(descriptor, target)
    os.closerange(PIDFD_FD + 1, os.sysconf(OPEN_FILES_MAX))


def _own_input():
    # The server's input is one open file for all of its children: its flags would be a way from one function to another.
    # Opened where the pidfd was, which has done its work.
    os.close(PIDFD_FD)
    null = os.open("/dev/null", os.O_RDWR)
    os.dup2(null, 0)
    os.close(null)


def _tell():
    traceback.print_exc()
    sys.stderr.flush()


def renew():
    """What siblings must not share: the state of every random number generator that is loaded. (secrets, uuid4 and
    SystemRandom ask the kernel each time; OpenSSL from 1.1.1 on reseeds by itself where it finds that it was forked.)"""
    for reseed in _reseeding or _find_generators():
        reseed()


def _find_generators():
    """What renews them, looked up where nothing is shared yet: a child would write to some twenty pages for it."""
    found, loaded = [], sys.modules.get
    if loaded("random"):
        # Its seed() also forgets what gauss() keeps for its next call. Once is enough: nobody draws in between.
        loaded("random").seed()
        found.append(functools.partial(_random.Random.seed, loaded("random").seed.__self__))
    if loaded("numpy") and hasattr(loaded("numpy"), "random"):
        found.append(loaded("numpy").random.seed)
    if loaded("ssl") and loaded("ssl").OPENSSL_VERSION_INFO < OPENSSL_FORK_SAFE:
        found.append(lambda: loaded("ssl").RAND_add(os.urandom(32), 32.0))
    return found


def tell_number(fd):
    """Tells init which process to wait for, once it is init's."""
    while os.getppid() != INIT:
        # The one in between ends with its next instruction.
        os.sched_yield()
    os.write(fd, NUMBER.pack(os.getpid()))
    os.close(fd)
