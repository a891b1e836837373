"""System calls that lead out of a container. Those that only test whether they are there have arguments that no kernel accepts."""
import ctypes
import mmap
import os
import platform

from attempts import attempt, call, in_child, libc

CLONE_NEWTIME, CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x80, 0x20000, 0x10000000, 0x40000000, 0x20000000
SIGCHLD = 17
NONSENSE = -1


def simple(name, number, *arguments):
    """An attempt that is one call."""
    def function():
        call(number, *arguments)
    function.__name__ = name
    attempt(function)


for name, number, *arguments in (
    ("mount_tmpfs", "mount", b"none", b"/tmp", b"tmpfs", 0, 0),
    ("mount_proc", "mount", b"none", b"/tmp", b"proc", 0, 0),
    ("mount_cgroup", "mount", b"none", b"/tmp", b"cgroup2", 0, 0),
    ("mount_bind", "mount", b"/usr", b"/tmp", 0, 4096, 0),
    ("mount_private", "mount", b"none", b"/", 0, 0x40000 | 0x4000, 0),
    ("umount_task", "umount2", b"/var/task", 2),
    ("umount_proc_mask", "umount2", b"/proc/interrupts", 2),
    ("pivot_root", "pivot_root", b"/tmp", b"/tmp"),
    ("chroot", "chroot", b"/tmp"),
    ("open_tree", "open_tree", -100, b"/", 1),
    ("move_mount", "move_mount", NONSENSE, b"", -100, b"/tmp", 4),
    ("fsopen", "fsopen", b"tmpfs", 0),
    ("fsconfig", "fsconfig", NONSENSE, 6),
    ("fsmount", "fsmount", NONSENSE),
    ("fspick", "fspick", -100, b"/", 0),
    ("mount_setattr", "mount_setattr", -100, b"/", 0),
    ("open_by_handle_at", "open_by_handle_at", -100, b"\x08\0\0\0\x01\0\0\0\0\0\0\0\0\0\0\0", 0),
    ("name_to_handle_at", "name_to_handle_at", -100, b"/", 0, 0, 0),
    ("unshare_user", "unshare", CLONE_NEWUSER),
    ("unshare_mount", "unshare", CLONE_NEWNS),
    ("unshare_net", "unshare", CLONE_NEWNET),
    ("unshare_time", "unshare", CLONE_NEWTIME),
    ("clone_user", "clone", CLONE_NEWUSER | SIGCHLD, 0, 0, 0, 0),
    ("clone_pid", "clone", CLONE_NEWPID | SIGCHLD, 0, 0, 0, 0),
    ("clone3", "clone3", 0, 0),
    ("setns_by_number", "setns", NONSENSE, 0),
    ("ptrace_seize_init", "ptrace", 0x4206, 1, 0, 0),
    ("ptrace_attach_init", "ptrace", 16, 1, 0, 0),
    ("ptrace_traceme", "ptrace", 0, 0, 0, 0),
    ("process_vm_readv_init", "process_vm_readv", 1, 0, 0, 0, 0, 0),
    ("process_vm_writev_init", "process_vm_writev", 1, 0, 0, 0, 0, 0),
    ("process_madvise", "process_madvise", NONSENSE, 0, 0, 0, 0),
    ("kcmp_init", "kcmp", 1, 1, 0, 0, 0),
    ("migrate_pages_init", "migrate_pages", 1, 0, 0, 0),
    ("move_pages_init", "move_pages", 1, 0, 0, 0, 0, 0),
    ("bpf", "bpf", 0, 0, 0),
    ("perf_event_open", "perf_event_open", 0, 0, -1, -1, 0),
    ("userfaultfd", "userfaultfd", 0),
    ("io_uring_setup", "io_uring_setup", 8, 0),
    ("add_key", "add_key", b"user", b"faaster", b"x", 1, -4),
    ("request_key", "request_key", b"user", b"faaster", 0, -4),
    ("keyctl", "keyctl", 0, -3, 0, 0, 0),
    ("init_module", "init_module", 0, 0, 0),
    ("finit_module", "finit_module", NONSENSE, b"", 0),
    ("delete_module", "delete_module", b"no-such-module", 0),
    ("kexec_load", "kexec_load", 0, 0, 0, 0),
    ("kexec_file_load", "kexec_file_load", NONSENSE, NONSENSE, 0, 0, 0),
    ("settimeofday", "settimeofday", 0, 0),
    ("clock_settime", "clock_settime", 0, 0),
    ("clock_adjtime", "clock_adjtime", 0, 0),
    ("adjtimex", "adjtimex", 0),
    ("sethostname", "sethostname", b"escaped", 7),
    ("setdomainname", "setdomainname", b"escaped", 7),
    ("reboot", "reboot", 0, 0, 0, 0),
    ("swapon", "swapon", b"/tmp/no-such-file", 0),
    ("swapoff", "swapoff", b"/tmp/no-such-file"),
    ("quotactl", "quotactl", 0, 0, 0, 0),
    ("acct", "acct", b"/tmp/no-such-file"),
    ("syslog_read", "syslog", 3, 0, 0),
    ("syslog_console", "syslog", 8, 0, 1),
    ("vhangup", "vhangup"),
    ("personality_no_randomize", "personality", 0x0040000),
    ("fanotify_init", "fanotify_init", 0, 0),
    ("seccomp_of_its_own", "seccomp", 2, 0, 0),
    ("capset", "capset", b"\x22\x05\x08\x20\0\0\0\0", b"\xff" * 24),
    ("mbind", "mbind", 0, 0, 0, 0, 0, 0),
    ("memfd_secret", "memfd_secret", 0),
    ("ioprio_real_time", "ioprio_set", 1, 0, 1 << 13),
):
    simple(name, number, *arguments)


@attempt
def setns_own_namespace():
    """Even a namespace that it is in already: the call itself is not there."""
    with open("/proc/self/ns/mnt", "rb") as namespace:
        call("setns", namespace.fileno(), 0)


@attempt
def chroot_escape():
    """The classic: a second root below the own, with a directory held open outside of it."""
    held = os.open("/", os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.makedirs("/tmp/jail", exist_ok=True)
        call("chroot", b"/tmp/jail")
        os.fchdir(held)
    finally:
        os.close(held)


def machine_code(code):
    """Runs bytes as a function, in a process of its own."""
    def run():
        memory = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
        memory.write(code)
        address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
        result = ctypes.CFUNCTYPE(ctypes.c_long)(address)()
        if result < 0:
            raise OSError(-result, "machine code")
    return in_child(run)


if platform.machine() == "x86_64":
    simple("iopl", "iopl", 3)
    simple("ioperm", "ioperm", 0x80, 1, 1)
    simple("modify_ldt", "modify_ldt", 1, 0, 0)

    @attempt
    def call_by_i386_convention():
        """getpid by int 0x80, past a filter that only knows 64-bit numbers."""
        return machine_code(b"\xb8\x14\x00\x00\x00\xcd\x80\x48\x98\xc3")

    @attempt
    def call_by_x32_convention():
        """unshare(CLONE_NEWUSER) with the bit of the x32 convention."""
        result = libc.syscall(ctypes.c_long(272 | 0x40000000), ctypes.c_long(CLONE_NEWUSER))
        if result < 0:
            raise OSError(ctypes.get_errno(), "x32")
