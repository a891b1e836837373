"""Ways by what is the engine's own in a container: the channel, what a fork server could leave, the package, the layers, the runtime."""
import fcntl
import os
import select
import signal
import socket
import stat
import struct
import time

from attempts import attempt, call

CHANNEL = 3
# Where a fork server has its control socket and filters, and its children the way to tell their number (docs/protocol.md section 10).
NUMBER, CONTROL, FILTERS = 4, 5, 6
DESCRIPTORS_LOOKED_AT = 256
ORDER = struct.Struct("<4I")
LOG = 10
# A `log` frame without text about no call, which the protocol allows.
NOTHING_TO_LOG = struct.pack("<4sHHQQII32x", b"FAS\x01", LOG, 0, 0, 0, 0, 0)
F_SETSIG = 10
RENAME_EXCHANGE, AT_FDCWD = 2, -100
PLACES = {"opt": ("/opt", "same"), "opt_python": ("/opt/python", "layered.py"), "task": ("/var/task", "index.py"), "runtime": ("/var/runtime", "bootstrap.py")}


def kept_open(descriptor):
    """Whether the other end of a pipe is still somebody's some time after this process has closed it."""
    poller = select.poll()
    poller.register(descriptor, select.POLLIN)
    return not poller.poll(5000)


@attempt
def descriptors_for_the_engine():
    """Sends the end of a pipe with a good frame: whoever kept it would have a descriptor of a function's choice."""
    reader, writer = os.pipe()
    try:
        with socket.socket(fileno=os.dup(CHANNEL)) as channel:
            socket.send_fds(channel, [NOTHING_TO_LOG], [writer] * 8)
        os.close(writer)
        return "done: the engine keeps it" if kept_open(reader) else "absent"
    finally:
        os.close(reader)


@attempt
def descriptors_from_the_engine():
    """What comes on the channel besides bytes."""
    with socket.socket(fileno=os.dup(CHANNEL)) as channel:
        data, ancillary, _, _ = channel.recvmsg(1, socket.CMSG_SPACE(1024), socket.MSG_DONTWAIT | socket.MSG_PEEK)
    return f"done: {data} {ancillary}"


@attempt
def channel_opened_again():
    os.close(os.open(f"/proc/self/fd/{CHANNEL}", os.O_RDWR))


@attempt
def channel_with_a_name():
    """A name would let others connect to it."""
    with socket.socket(fileno=os.dup(CHANNEL)) as channel:
        channel.listen()


@attempt
def order_to_the_fork_server():
    """By the number that its control socket had there."""
    with socket.socket(fileno=os.dup(CONTROL)) as control:
        control.send(ORDER.pack(0, 1024, 1024, 0))


@attempt
def number_for_init():
    """Whoever tells process 1 a number says which process it waits for."""
    os.write(NUMBER, struct.pack("<i", os.getpid()))


@attempt
def filters_of_the_fork_server():
    os.fstat(FILTERS)


@attempt
def sockets_and_pipes_besides_the_own():
    """By number, whatever /proc says."""
    found = []
    for number in range(DESCRIPTORS_LOOKED_AT):
        try:
            mode = os.fstat(number).st_mode
        except OSError:
            continue
        if (stat.S_ISSOCK(mode) and number != CHANNEL) or (stat.S_ISFIFO(mode) and number not in (1, 2)):
            found.append(str(number))
    return ",".join(found) or "absent"


@attempt
def abstract_names_in_sight():
    """Sockets that this network namespace knows by name."""
    with open("/proc/net/unix") as sockets:
        names = [line.split()[7] for line in list(sockets)[1:] if len(line.split()) > 7]
    return ",".join(names) or "absent"


@attempt
def signal_to_init_by_descriptor():
    """A descriptor whose owner is process 1, and whose signal is SIGKILL."""
    here, there = socket.socketpair()
    with here, there:
        fcntl.fcntl(here, fcntl.F_SETOWN, 1)
        fcntl.fcntl(here, F_SETSIG, signal.SIGKILL)
        fcntl.fcntl(here, fcntl.F_SETFL, fcntl.fcntl(here, fcntl.F_GETFL) | os.O_ASYNC)
        there.send(b"x")
    # This very process would not outlast process 1.
    deadline = time.monotonic() + 0.2
    while time.monotonic() < deadline:
        os.kill(os.getpid(), 0)
    return "absent"


def spare(folder=False):
    """Something of its own in /tmp to put into another place."""
    path = f"/tmp/spare-{os.urandom(4).hex()}"
    os.mkdir(path) if folder else open(path, "w").close()
    return path


# Each by the folder and by a file in it.
CHANGES = {
    "make": lambda folder, file: os.close(os.open(f"{folder}/made", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)),
    "make_folder": lambda folder, file: os.mkdir(f"{folder}/made"),
    "make_link": lambda folder, file: os.symlink("/etc", f"{folder}/made"),
    "make_pipe": lambda folder, file: os.mkfifo(f"{folder}/made"),
    "hard_link": lambda folder, file: os.link(file, f"{folder}/made"),
    "rename": lambda folder, file: os.rename(file, f"{folder}/made"),
    "replace": lambda folder, file: os.rename(spare(), file),
    "exchange": lambda folder, file: call("renameat2", AT_FDCWD, spare().encode(), AT_FDCWD, file.encode(), RENAME_EXCHANGE),
    "take_out": lambda folder, file: os.rename(file, "/tmp/taken"),
    "remove": lambda folder, file: os.unlink(file),
    "append": lambda folder, file: os.close(os.open(file, os.O_WRONLY | os.O_APPEND)),
    "cut": lambda folder, file: os.truncate(file, 0),
    "chmod": lambda folder, file: os.chmod(file, 0o777),
    "chmod_folder": lambda folder, file: os.chmod(folder, 0o777),
    "chown": lambda folder, file: os.chown(file, os.getuid(), os.getgid()),
    "touch": lambda folder, file: os.utime(file),
    "label": lambda folder, file: os.setxattr(file, "user.label", b"x"),
    "move_folder": lambda folder, file: os.rename(folder, f"{folder}-moved"),
    "replace_folder": lambda folder, file: os.rename(spare(True), folder),
    "write_by_proc": lambda folder, file: by_proc(file),
}


def by_proc(file):
    """What is open for reading, opened again for writing."""
    held = os.open(file, os.O_RDONLY)
    try:
        os.close(os.open(f"/proc/self/fd/{held}", os.O_WRONLY))
    finally:
        os.close(held)


def changing(name, change, folder, file):
    def function():
        change(folder, f"{folder}/{file}")
    function.__name__ = name
    attempt(function)


for place, (folder, file) in PLACES.items():
    for what, change in CHANGES.items():
        changing(f"{what}_in_{place}_tree", change, folder, file)


@attempt
def remount_opt():
    call("mount", b"none", b"/opt", 0, 32 | 4096, 0)


@attempt
def umount_opt():
    call("umount2", b"/opt", 2)


@attempt
def works_layer():
    """The layer is there, or changes of it would be refused for the wrong reason."""
    with open("/opt/same") as same, open("/opt/python/layered.py") as layered:
        return "done" if (same.read(), layered.read()) == ("mine", "WHO = 'mine'\n") else "it is another"
