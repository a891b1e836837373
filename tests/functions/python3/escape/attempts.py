"""What the attempts share: the list of them, and system calls by their numbers."""
import ctypes
import errno
import os

libc = ctypes.CDLL(None, use_errno=True)
ATTEMPTS = {}
# Where the two architectures differ: x86_64, aarch64. From 424 on numbers are the same everywhere.
NUMBERS = {
    "mount": (165, 40), "umount2": (166, 39), "pivot_root": (155, 41), "chroot": (161, 51), "unshare": (272, 97), "setns": (308, 268),
    "open_by_handle_at": (304, 265), "name_to_handle_at": (303, 264), "clone": (56, 220), "ptrace": (101, 117),
    "process_vm_readv": (310, 270), "process_vm_writev": (311, 271), "kcmp": (312, 272), "bpf": (321, 280), "perf_event_open": (298, 241),
    "userfaultfd": (323, 282), "add_key": (248, 217), "request_key": (249, 218), "keyctl": (250, 219), "init_module": (175, 105),
    "finit_module": (313, 273), "delete_module": (176, 106), "kexec_load": (246, 104), "kexec_file_load": (320, 294),
    "settimeofday": (164, 170), "clock_settime": (227, 112), "clock_adjtime": (305, 266), "adjtimex": (159, 171), "sethostname": (170, 161),
    "setdomainname": (171, 162), "renameat2": (316, 276), "reboot": (169, 142), "swapon": (167, 224), "swapoff": (168, 225), "quotactl": (179, 60), "acct": (163, 89),
    "syslog": (103, 116), "vhangup": (153, 58), "personality": (135, 92), "fanotify_init": (300, 262), "seccomp": (317, 277),
    "capset": (126, 91), "migrate_pages": (256, 238), "move_pages": (279, 239), "mbind": (237, 235), "ioprio_set": (251, 30),
    "sched_setattr": (314, 274), "prlimit64": (302, 261), "iopl": (172, -1), "ioperm": (173, -1), "modify_ldt": (154, -1),
    "pidfd_send_signal": (424, 424), "io_uring_setup": (425, 425), "open_tree": (428, 428), "move_mount": (429, 429), "fsopen": (430, 430),
    "fsconfig": (431, 431), "fsmount": (432, 432), "fspick": (433, 433), "pidfd_open": (434, 434), "clone3": (435, 435),
    "pidfd_getfd": (438, 438), "process_madvise": (440, 440), "mount_setattr": (442, 442), "memfd_secret": (447, 447),
}


def attempt(function):
    """Registers a way out by the function's name. It raises OSError where it is refused; what it returns otherwise is told."""
    ATTEMPTS[function.__name__] = function
    return function


def call(name, *arguments):
    """A system call; numbers, bytes and ctypes objects as arguments."""
    number = NUMBERS[name][0 if os.uname().machine == "x86_64" else 1]
    words = [ctypes.c_long(one) if isinstance(one, int) else one for one in arguments]
    ctypes.set_errno(0)
    result = libc.syscall(ctypes.c_long(number), *words, *[ctypes.c_long(0)] * (6 - len(words)))
    if result < 0:
        raise OSError(ctypes.get_errno(), name)
    return result


def outcome(function):
    """Name of the error that it ends with, "done", or what it says itself."""
    try:
        return function() or "done"
    except OSError as error:
        return errno.errorcode.get(error.errno, str(error))


def in_child(function):
    """Runs it in a process of its own: "done", the name of its error, or "signal N"."""
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        os.write(writer, outcome(function).encode())
        os._exit(0)
    os.close(writer)
    with os.fdopen(reader) as answer:
        said = answer.read()
    _, status = os.waitpid(child, 0)
    return f"signal {os.WTERMSIG(status)}" if os.WIFSIGNALED(status) else said
