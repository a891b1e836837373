"""Bursts of 500 first calls beside a warm function that is called 400 times a second, with engines that are saved in
folders, in turns: `beside.py ROUNDS NAME=FOLDER ...`. Each engine gets three bursts per round, the last two on a node that
is full of idle instances of the ones before."""
import concurrent.futures
import multiprocessing
import os
import pathlib
import shutil
import socket
import sys
import tempfile
import time

sys.dont_write_bytecode = True
sys.path.insert(0, str(pathlib.Path(__file__).parents[2]))
from harness import bursts, cases, setup
from harness.engine import PYTHON_PLAIN, Engine, Function
from harness.http_client import _is_whole, _more, at_once, check

CALLS, RATE, SECONDS = 500, 400, 2.5


def paced(target):
    """Milliseconds from the moment at which each call was due."""
    took, begun, ask = [], time.monotonic(), target.head_and_body()
    with socket.create_connection(("127.0.0.1", target.port), timeout=30) as connection:
        for number in range(int(RATE * SECONDS)):
            due = begun + number / RATE
            time.sleep(max(0.0, due - time.monotonic()))
            connection.sendall(ask)
            answer = b""
            while not _is_whole(answer):
                answer += _more(connection)
            took.append((time.monotonic() - due) * 1e3)
    return sorted(took)


def shown(took):
    return "p50 %.2f p90 %.2f p99 %.2f max %.1f" % (took[len(took) // 2], took[len(took) * 9 // 10], took[len(took) * 99 // 100], took[-1])


def measure(name, folder, times):
    work = pathlib.Path(tempfile.mkdtemp(prefix="faaster-probe-"))
    work.chmod(0o755)
    tools = setup.Tools(work, 0, 1)
    tools.engine_program = lambda: os.path.join(folder, "faaster")
    engine = Engine(tools, "engine")
    try:
        engine.start()
        function = Function(tools, cases.PYTHON_RUNTIME, PYTHON_PLAIN)
        engine.deploy("warm", function)
        warm = engine.function_target("warm")
        check("warm", warm)
        for burst in range(times):
            for call in range(CALLS):
                engine.deploy(f"b{burst}-{call}", function)
            engine.settle()
            time.sleep(0.5)
            targets = [engine.function_target(f"b{burst}-{call}") for call in range(CALLS)]
            calm = paced(warm)
            with concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("fork")) as beside:
                meanwhile = beside.submit(paced, warm)
                calls = at_once(f"b{burst}", targets)
                busy = meanwhile.result()
            first, after = bursts._rates(calls)
            print(f"{name}: burst {burst}: all in {max(calls):.0f} ms, {first:.0f} and {after:.0f} per s; warm before: {shown(calm)}; meanwhile: {shown(busy)}", flush=True)
    finally:
        engine.stop()
        shutil.rmtree(work, ignore_errors=True)


for turn in range(int(sys.argv[1])):
    for entry in sys.argv[2:]:
        measure(*entry.split("=", 1), 3)
