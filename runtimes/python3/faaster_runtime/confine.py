"""What turns a fork server's child into a process of one container: the steps that faaster-init takes where it starts the
runtime itself (runtimes/init/src/runtime.rs), in the same order and with the same values.

Owns: the system calls that Python has no name for. Must not know: who forks, frames. Whatever fails raises OSError, and
the process must then end: it is half way.
"""
import ctypes
import os
import resource
import struct

# include/uapi/linux/sched.h
CLONE_NEWNS = 0x00020000
CLONE_NEWCGROUP = 0x02000000
CLONE_NEWUTS = 0x04000000
CLONE_NEWIPC = 0x08000000
CLONE_NEWUSER = 0x10000000
CLONE_NEWPID = 0x20000000
CLONE_NEWNET = 0x40000000
# All but pid, which a process cannot change for itself.
CONTAINER = CLONE_NEWUSER | CLONE_NEWNS | CLONE_NEWNET | CLONE_NEWIPC | CLONE_NEWUTS | CLONE_NEWCGROUP
# include/uapi/linux/prctl.h
PR_SET_DUMPABLE = 4
PR_SET_SECCOMP = 22
PR_CAPBSET_DROP = 24
PR_SET_NO_NEW_PRIVS = 38
PR_CAP_AMBIENT = 47
PR_CAP_AMBIENT_CLEAR_ALL = 4
SECCOMP_MODE_FILTER = 2
# include/uapi/linux/capability.h: version 3 has two words of each set.
CAPABILITY_VERSION = 0x20080522
CAPABILITIES_MAX = 64
EINVAL = 22

# As in init: 1 byte of core dumps and not 0, because a core_pattern that is a pipe ignores 0 (core(5)).
REFUSED = ((resource.RLIMIT_CORE, 1), (resource.RLIMIT_RTPRIO, 0), (resource.RLIMIT_NICE, 0))

_libc = ctypes.CDLL(None, use_errno=True)
# prctl(2) reads five words whatever it is asked for.
_libc.prctl.argtypes = (ctypes.c_int, *[ctypes.c_ulong] * 4)
# Looked up and packed here, once: a child would write to some forty pages for it that it shares with its siblings.
_capset = _libc.capset
_NO_CAPABILITIES = struct.pack("Ii", CAPABILITY_VERSION, 0), struct.pack("6I", 0, 0, 0, 0, 0, 0)


class Program(ctypes.Structure):
    """struct sock_fprog of include/uapi/linux/filter.h."""

    _fields_ = [("count", ctypes.c_ushort), ("instructions", ctypes.c_void_p)]


def children_into(namespace):
    """Children of this process are born in that pid namespace from now on."""
    _checked(_libc.setns, namespace, CLONE_NEWPID)


def enter(pidfd):
    """This process is in all other namespaces of the one that the pidfd is of."""
    _checked(_libc.setns, pidfd, CONTAINER)


def limit(files_soft, files_hard):
    """Limits that leave nothing, whatever the engine was started with."""
    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    hard = files_hard if hard == resource.RLIM_INFINITY else min(hard, files_hard)
    resource.setrlimit(resource.RLIMIT_NOFILE, (min(files_soft, hard), hard))
    for which, most in REFUSED:
        resource.setrlimit(which, (most, most))


def drop_to(user):
    """No groups, no capability in any set, no_new_privs; and files in /proc that are the user's own."""
    for capability in range(CAPABILITIES_MAX):
        if _libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) != 0:
            if ctypes.get_errno() != EINVAL:
                raise OSError(ctypes.get_errno(), "cannot drop a capability from the bounding set")
            break
    os.setgroups([])
    os.setresgid(user, user, user)
    os.setresuid(user, user, user)
    _checked(_libc.prctl, PR_CAP_AMBIENT, PR_CAP_AMBIENT_CLEAR_ALL, 0, 0, 0)
    # A change from a user of the outside keeps all capabilities of the inside.
    _checked(_capset, *_NO_CAPABILITIES)
    _checked(_libc.prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
    _checked(_libc.prctl, PR_SET_DUMPABLE, 1, 0, 0, 0)


def read_filters(fd):
    """The system call filters in the form of engine/sys/src/seccomp.rs: a count, then each as its count of instructions
    and these. The file's position is everybody's."""
    data = os.pread(fd, os.fstat(fd).st_size, 0)
    programs, at = [], 1
    for _ in range(data[0]):
        (count,) = struct.unpack_from("H", data, at)
        code = ctypes.create_string_buffer(data[at + 2 : at + 2 + 8 * count], 8 * count)
        program = Program(count, ctypes.addressof(code))
        programs.append((ctypes.addressof(program), program, code))
        at += 2 + 8 * count
    if not programs or at != len(data):
        raise ValueError("these are no system call filters")
    return programs


def install(programs):
    """For good; the last of them leaves no room for another."""
    for address, *_ in programs:
        _checked(_libc.prctl, PR_SET_SECCOMP, SECCOMP_MODE_FILTER, address, 0, 0)


def _checked(call, *arguments):
    if call(*arguments) != 0:
        raise OSError(ctypes.get_errno(), f"{call.__name__}: {os.strerror(ctypes.get_errno())}")
