"""What the commands of the bench have in common: a pid namespace of their own, a core, a folder, and their exit codes."""

import argparse
import ctypes
import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from .errors import Setup

INSIDE = "--inside-namespace"


def add_arguments(parser):
    """Flags that all commands have."""
    parser.add_argument("--server-core", type=int, default=0, help="core of the servers (default: %(default)s)")
    parser.add_argument("--load-core", type=int, default=1, help="core of the load generator (default: %(default)s)")
    parser.add_argument(INSIDE, action="store_true", help=argparse.SUPPRESS)


def command_line():
    """The command as it was typed."""
    return sys.argv[:1] + [word for word in sys.argv[1:] if word != INSIDE]


def die_with_parent():
    """The namespace's first process ends with `unshare`, and everything in the namespace with it."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)


def run_inside(program):
    """Runs the program again in a pid namespace, so that nothing it starts outlives it, whatever happens."""
    argv = ["unshare", "--pid", "--fork", "--kill-child", "--mount-proc", sys.executable, program, *sys.argv[1:], INSIDE]
    # `unshare` holds signals back, and Ctrl-C reaches the process inside by itself: SIGTERM is passed on from here.
    with subprocess.Popen(argv, preexec_fn=die_with_parent) as outer:

        def pass_on(_number, _frame):
            try:
                inner = Path(f"/proc/{outer.pid}/task/{outer.pid}/children").read_text().split()
                for pid in inner:
                    fd = os.pidfd_open(int(pid))
                    signal.pidfd_send_signal(fd, signal.SIGTERM)
                    os.close(fd)
            except (FileNotFoundError, ProcessLookupError):
                pass  # it has just ended

        signal.signal(signal.SIGTERM, pass_on)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        return outer.wait()


def main(program, options, measure):
    """Calls `measure(options, work)` inside, on the load generator's core, with a folder of its own."""
    if os.geteuid() != 0:
        name = f"bench/{Path(program).name}"
        print(f"{name} must run as root: it makes namespaces, and the engine makes containers", file=sys.stderr)
        return 2
    if not options.inside_namespace:
        return run_inside(program)
    cores = os.sched_getaffinity(0)
    for name, core in (("--server-core", options.server_core), ("--load-core", options.load_core)):
        if core not in cores:
            print(
                f"{name} {core}: this process may run on cores {sorted(cores)} only; name one of them", file=sys.stderr
            )
            return 2
    # The runner's own requests come from the load generator's side.
    if not options.quick:
        os.sched_setaffinity(0, {options.load_core})
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    work = Path(tempfile.mkdtemp(prefix="faaster-bench-"))
    work.chmod(0o755)
    try:
        return measure(options, work)
    except Setup as reason:
        print(reason, file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: nothing is written", file=sys.stderr)
        return 130
    finally:
        shutil.rmtree(work, ignore_errors=True)
