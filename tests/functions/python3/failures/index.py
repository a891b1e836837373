"""Ways to fail, chosen by the event's "do"."""
import errno
import os
import signal
import sys
import threading
import time

TOKEN = os.urandom(8).hex()


def mark(event):
    """Tells the test that the call runs, and in which container."""
    if "name" in event:
        open(f"/tmp/gate-{event['name']}", "w").close()


def do_token(event):
    return TOKEN


def do_throw(event):
    raise ValueError("boom")


def do_sleep(event):
    mark(event)
    while True:
        time.sleep(1)


def do_spin(event):
    mark(event)
    while True:
        pass


def do_exit(event):
    os._exit(event["code"])


def do_sysexit(event):
    sys.exit(event["code"])


def do_kill(event):
    os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(60)


def do_memory(event):
    hold = []
    while True:
        hold.append(b"x" * (4 << 20))


def do_garbage(event):
    os.write(3, b"this is no frame " * 100)
    time.sleep(60)


def do_bomb(event):
    mark(event)
    while True:
        try:
            os.fork()
        except OSError:
            pass


def do_forks(event):
    """Makes children until the kernel refuses, and says how many there were and what it said."""
    children, refusal = [], ""
    while len(children) < 5000 and not refusal:
        try:
            child = os.fork()
        except OSError as error:
            refusal = errno.errorcode[error.errno]
            break
        if child == 0:
            signal.pause()
            os._exit(0)
        children.append(child)
    for child in children:
        os.kill(child, signal.SIGKILL)
    for child in children:
        os.waitpid(child, 0)
    return {"children": len(children), "refusal": refusal}


def do_fill(event):
    block, written, refusal = b"x" * (1 << 20), 0, ""
    with open("/tmp/fill", "wb", buffering=0) as file:
        while written < 4 << 30:
            try:
                written += file.write(block)
            except OSError as error:
                refusal = errno.errorcode[error.errno]
                break
    os.unlink("/tmp/fill")
    return {"megabytes": written >> 20, "refusal": refusal}


def do_files(event):
    """Uses up the inodes of /tmp."""
    os.mkdir("/tmp/many")
    for number in range(1_000_000):
        try:
            open(f"/tmp/many/{number}", "w").close()
        except OSError as error:
            return {"files": number, "refusal": errno.errorcode[error.errno]}


def do_stubborn(event):
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT):
        signal.signal(number, signal.SIG_IGN)
    if event.get("stay"):
        mark(event)
        while True:
            time.sleep(1)
    return TOKEN


def do_daemon(event):
    """Leaves a process behind that nobody waits for, in a session of its own."""
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            null = os.open("/dev/null", os.O_RDWR)
            for number in range(3):
                os.dup2(null, number)
            os.execv("/usr/bin/sleep", ["sleep", str(event["seconds"])])
        os._exit(0)
    os.wait()
    return TOKEN


def do_threads(event):
    """A thread that goes on after the answer."""
    threading.Thread(target=do_spin, args=({},), daemon=True).start()
    return TOKEN


def handler(event, context):
    return globals()["do_" + event["do"]](event)
