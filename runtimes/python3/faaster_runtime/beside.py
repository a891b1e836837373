"""A process that shares the memory of this one and stands still for as long as that runs: clone(2) with CLONE_VM and
CLONE_VFORK, as vfork(3) does it, but on a stack of its own.

Owns: that process. Must not know: what it does. It is for a way that costs no copy of the memory where a process is needed
for its place alone: a fork that comes from it is a grandchild by one copy, not by two.

What it runs is Python, and the interpreter's state is one for both: the caller finds it as the other has left it, which
must therefore have come to its end. Whether it has is looked at before all else.
"""
import ctypes
import mmap
import os
import resource
import signal

# include/uapi/linux/sched.h
CLONE_VM = 0x00000100
CLONE_VFORK = 0x00004000
# Of the main thread's stack: what is left to the caller above, and what there must be in all for that to be little.
OFFSET = 512 << 10
STACK_BYTES_MIN = 8 << 20
# The caller is not to be relied upon any more: EX_SOFTWARE of sysexits.h.
EXIT_TORN = 70

_callback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p)


class Beside:
    """Runs a function without arguments in such a process, again and again.

    The stack is the lower part of this thread's own: a process that is forked there goes on there for good, and is to
    have as much room as a main thread has. `make` says whether that part can be had.
    """

    def __init__(self, clone, stack, function):
        self._clone, self._stack, self._function = clone, stack, function
        self._entry = _callback(self._run)
        self._is_whole = False

    def _run(self, _):
        self._function()
        self._is_whole = True
        return 0

    def __call__(self):
        """The number of the process, which has ended.

        Raises:
            OSError: clone(2)'s.
        """
        self._is_whole = False
        number = self._clone(self._entry, self._stack, CLONE_VM | CLONE_VFORK | signal.SIGCHLD, None)
        if number < 0:
            raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
        if not self._is_whole:
            # Killed on its way: what it had begun, this process would go on with.
            os._exit(EXIT_TORN)
        return number


def make(function):
    """A Beside, or None where the C library does not say where the stack is, or the stack is small or in use."""
    try:
        # Holding the interpreter's lock: the other process takes it for its own.
        libc = ctypes.PyDLL(None, use_errno=True)
        clone, top = libc.clone, ctypes.c_void_p.in_dll(libc, "__libc_stack_end").value
    except (AttributeError, OSError, ValueError):
        return None
    clone.argtypes = (_callback, ctypes.c_void_p, ctypes.c_int, ctypes.c_void_p)
    limit = resource.getrlimit(resource.RLIMIT_STACK)[0]
    stack = (top - OFFSET) & -mmap.PAGESIZE
    if limit != resource.RLIM_INFINITY and limit < STACK_BYTES_MIN or _is_mapped(libc, stack):
        return None
    return Beside(clone, stack, function)


def _is_mapped(libc, address):
    """Whether the stack has already grown as far as there. mincore(2) fails with ENOMEM where nothing is mapped."""
    libc.mincore.argtypes = (ctypes.c_void_p, ctypes.c_size_t, ctypes.c_char_p)
    return libc.mincore(address - mmap.PAGESIZE, mmap.PAGESIZE, ctypes.create_string_buffer(1)) == 0
