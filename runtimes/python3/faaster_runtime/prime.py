"""What a process does before anybody needs it: imports what functions often import and runs the loader's own path once.

Leaves nothing behind that a function could see except modules of the standard library (which load.make_room removes
where a function has its own of that name).
"""
import gc
import importlib
import os
import sys

PRIME_MODULES = "prime/modules.txt"
PRIME_TASK = "prime/task"


def run(runtime_dir):
    """Imports the listed modules, then loads and calls the dummy handler. What fails here is left to fail when it is used."""
    with open(os.path.join(runtime_dir, PRIME_MODULES), encoding="utf-8") as listed:
        for line in listed:
            name = line.partition("#")[0].strip()
            if name:
                try:
                    importlib.import_module(name)
                except ImportError:
                    pass
    _dry_run(os.path.join(runtime_dir, PRIME_TASK))
    gc.collect()
    gc.freeze()  # the collector need not look at all this again, nor dirty pages that are shared


def _dry_run(task_dir):
    from . import context, execute, load
    from .frames import Channel, INVOKE, frame

    search, modules = list(sys.path), set(sys.modules)
    ours, theirs = os.pipe()
    try:
        sys.path.insert(0, task_dir)
        handler = load.find_handler("prime_index.handler", task_dir)
        channel = Channel(ours, context.function_context({}))
        run_call = execute.make_execute(handler, execute.make_post(channel, lambda call: None))
        os.write(theirs, frame(INVOKE, 1, b'{"name":"prime"}', b'{"requestId":"prime"}') * 2)
        for call in channel.receive():
            run_call(call)
    finally:
        os.close(ours)
        os.close(theirs)
        sys.path[:] = search
        for name in set(sys.modules) - modules:
            if name.startswith("prime_"):
                del sys.modules[name]
        for path in [path for path in sys.path_importer_cache if path.startswith(task_dir)]:
            del sys.path_importer_cache[path]
