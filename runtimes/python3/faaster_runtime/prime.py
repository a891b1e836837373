"""What a process does before anybody needs it: imports what functions often import, and rehearses a cold start.

Leaves nothing behind that a function could see except modules of the standard library (which load.make_room removes
where a function has its own of that name).
"""
import _socket
import gc
import importlib
import json
import os
import sys

# Names of modules, separated by spaces: `imports` of runtime.toml.
IMPORTS = "FAASTER_IMPORTS"
PRIME_TASK = "prime/task"
PRIME_MODULE = "prime_index"
# CPython counts the first runs of a function within its code (up to 3.12), and adapts what is often run; after so many, little is left to adapt.
WARM_UP_RUNS = 16
# The meta of a `load` frame (docs/protocol.md section 4).
ABOUT = {
    "functionName": "prime",
    "functionVersion": "1",
    "brn": "brn:prime",
    "handler": PRIME_MODULE + ".handler",
    "memoryMB": 128,
    "timeoutMs": 1000,
    "concurrency": 0,
    "userId": "prime",
    "env": {"PRIME": "1"},
}

_found = None
_load = b""


def run(runtime_dir):
    """Imports the listed modules, then goes through a cold start with the dummy handler. What fails here is left to fail when it is used."""
    for name in os.environ.pop(IMPORTS, "").split():
        try:
            importlib.import_module(name)
        except ImportError:
            pass
    _rehearse(os.path.join(runtime_dir, PRIME_TASK))


def settle():
    """All is imported."""
    _find()
    gc.collect()
    gc.freeze()  # the collector need not look at all this again, nor dirty pages that are shared


def warm_up(runtime_dir):
    """In a process that others are forked from: code counts its first runs within itself, on pages that are shared then."""
    for _ in range(WARM_UP_RUNS):
        again(runtime_dir)


def again(runtime_dir):
    """The same cold start once more, in a process that shares its memory with the one that primed it."""
    _rehearse(os.path.join(runtime_dir, PRIME_TASK))


def _rehearse(task_dir):
    # Nothing here goes through sys.modules: to look at an object is to write its count of references, and the pages of
    # all these names are better left to be shared with siblings. For the same reason it is noted once what to go back to.
    search, added, folder = _found or _find()
    # Two bare descriptors: the objects that `socket` has for them are on pages that no first call needs.
    pair = _socket.socketpair()
    ours, theirs = pair[0].detach(), pair[1].detach()
    try:
        _first_calls(ours, theirs, task_dir)
    finally:
        os.close(ours)
        os.close(theirs)
        os.chdir(folder)
        sys.path[:] = search
        for name in added:
            os.environ.pop(name, None)
        sys.modules.pop(PRIME_MODULE, None)
        sys.path_importer_cache.pop(task_dir, None)


def _find():
    """What a rehearsal changes and puts back: search path, names of the environment, working directory; and `load`."""
    global _found, _load
    from .frames import LOAD, frame
    from .load import OWN_VARIABLES

    added = [name for name in (*OWN_VARIABLES, *ABOUT["env"]) if name not in os.environ]
    _found = list(sys.path), added, os.getcwd()
    _load = frame(LOAD, 0, meta=json.dumps(ABOUT).encode())
    return _found


def _first_calls(ours, theirs, task_dir):
    """As serve.py does it, from `load` to the second answer."""
    from . import context, execute, logs, result, serve
    from .frames import INVOKE, Channel, frame

    channel = Channel(ours, None)
    os.write(theirs, _load)
    about = result.decode_event(channel.receive_load())
    handler = serve.load_handler(about, task_dir, frozenset())
    channel.make_call = context.function_context(about)
    run_call = execute.make_execute(handler, execute.make_post(channel, lambda call: None))
    channel.out.append(serve.READY_FRAME)
    channel.flush()
    execute.is_async(handler)
    for _ in range(2):
        os.write(theirs, frame(INVOKE, 1, b'{"name":"prime"}', b'{"requestId":"prime"}'))
        for call in channel.receive():
            run_call(call)
            logs.flush()
        channel.flush()
