"""The life of the process: hello, load, ready, then calls until the channel ends. docs/protocol.md section 4."""
import json
import os
import platform
import sys

from . import aio, context, execute, failure, load, logs, result
from .crew import Crew
from .frames import ERROR, HELLO, READY, Channel, Closed, Garbage, frame

EXIT_LOAD_FAILED = 1
EXIT_GARBAGE = 70  # EX_SOFTWARE of sysexits.h: the other side broke the protocol
# Made once: what a fork server has made, its children need not.
_ABOUT_US = {"protocol": 1, "runtime": "python" + platform.python_version(), "features": ["concurrent"]}
HELLO_FRAME = frame(HELLO, 0, meta=json.dumps(_ABOUT_US).encode())
READY_FRAME = frame(READY, 0, meta=b'{"features":["ping"]}')


def run(fd, task_dir, core_modules):
    """Never returns."""
    channel = Channel(fd, None)
    try:
        _run(channel, task_dir, core_modules)
    except BaseException as reason:
        _end(channel, reason)


def _run(channel, task_dir, core_modules):
    channel.out.append(HELLO_FRAME)
    channel.flush()

    about = result.decode_event(channel.receive_load())
    concurrency = about.get("concurrency") or 0
    finish_lines = lambda call: None
    server = None
    if concurrency:
        # Before the user's code is loaded: it may keep references to sys.stdout.
        finish_lines = logs.attribute(channel, lambda: server.flush_now() if server else None)

    handler = _load(channel, about, task_dir, core_modules)
    channel.make_call = context.function_context(about)
    post = execute.make_post(channel, finish_lines)
    channel.out.append(READY_FRAME)
    channel.flush()

    end = lambda reason: _end(channel, reason)
    if execute.is_async(handler):
        after = (lambda: None) if concurrency else logs.flush
        server = aio.Server(channel, end, after)
        server.run(execute.make_execute_async(handler, post, server.answered))
    elif concurrency:
        server = Crew(channel, execute.make_execute(handler, post), concurrency, end)
        server.run()
    else:
        _serve_exclusive(channel, execute.make_execute(handler, post))


def load_handler(about, task_dir, core_modules):
    """The callable that `about` (the meta of `load`) names, in an environment that is its function's."""
    load.apply_environment(about, task_dir)
    os.chdir(task_dir)
    entries = os.listdir(task_dir)
    load.set_search_path(task_dir, entries)
    load.make_room(task_dir, entries, core_modules)
    return load.find_handler(about.get("handler", ""), task_dir, entries)


def _load(channel, about, task_dir, core_modules):
    try:
        handler = load_handler(about, task_dir, core_modules)
    except SystemExit:
        raise
    except BaseException as error:
        logs.flush()
        channel.out.append(frame(ERROR, 0, failure.describe(error)))
        channel.flush()
        os._exit(EXIT_LOAD_FAILED)
    return handler


def _serve_exclusive(channel, run_call):
    receive, flush_channel, flush_logs = channel.receive, channel.flush, logs.flush
    while True:
        for call in receive():
            run_call(call)
            flush_logs()
        flush_channel()


def _end(channel, reason):
    """Ends the process for `reason`: the channel's end, sys.exit() of a handler, or a fault of this runtime."""
    code = 0
    if isinstance(reason, SystemExit):
        code = _exit_code(reason)
    elif isinstance(reason, Garbage):
        print(f"faaster runtime: protocol error: {reason}", file=sys.__stderr__)
        code = EXIT_GARBAGE
    elif not isinstance(reason, Closed):
        sys.__excepthook__(type(reason), reason, reason.__traceback__)
        code = EXIT_GARBAGE
    logs.flush()
    try:
        channel.flush()  # answers that were ready before
    except (Closed, OSError):
        pass
    # Threads may be inside handlers: waiting for them is what the engine's SIGKILL is for.
    os._exit(code)


def _exit_code(reason):
    if reason.code is None:
        return 0
    if isinstance(reason.code, int):
        return reason.code & 0xFF
    print(reason.code, file=sys.stderr)
    return 1
