"""Fixed pieces of work, timed: on the host and in the virtual machine, they say how much slower the one is.

Prints the seconds of each piece, the best of several tries. The pieces are what the tests wait for: programs that
start, interpreted code, and messages from process to process.
"""

import os
import subprocess
import time

TRIES = 3


def start_programs():
    for _ in range(5):
        subprocess.run(["/usr/bin/python3", "-I", "-c", "import json, socket"], check=True)


def compute():
    total = 0
    for number in range(400_000):
        total = (total * 31 + number) & 0xFFFF_FFFF
    return total


def exchange_messages():
    ours, theirs = os.pipe(), os.pipe()
    child = os.fork()
    if child == 0:
        for _ in range(5000):
            os.read(ours[0], 1)
            os.write(theirs[1], b"x")
        os._exit(0)
    for _ in range(5000):
        os.write(ours[1], b"x")
        os.read(theirs[0], 1)
    os.waitpid(child, 0)


def seconds(piece):
    begin = time.monotonic()
    piece()
    return time.monotonic() - begin


if __name__ == "__main__":
    for piece in (start_programs, compute, exchange_messages):
        print(f"{min(seconds(piece) for _ in range(TRIES)):.4f}")
