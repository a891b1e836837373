"""The python3 runtime's entry: boots, primes itself, says hello, loads one function and serves it. With the argument
`fork-server` it boots and primes once, and its children do the rest.

The life of a runtime is docs/protocol.md, section 4. Everything else is in the package faaster_runtime:
its name cannot be taken by a user's module, and only this file is known to argv.
"""
import os
import sys

# What the interpreter itself needs; a user's module may take the name of any other (see load.make_room).
CORE_MODULES = frozenset(sys.modules)

RUNTIME_DIR = os.environ.pop("FAASTER_RUNTIME_DIR", "/var/runtime")
TASK_DIR = os.environ.pop("FAASTER_TASK_DIR", "/var/task")
CHANNEL_FD = 3
# Of a fork server.
CONTROL_FD = 5
FILTERS_FD = 6


def main():
    is_fork_server = sys.argv[1:] == ["fork-server"]
    if is_fork_server:
        from faaster_runtime import at_fork

        at_fork.collect()
    from faaster_runtime import prime

    prime.run(RUNTIME_DIR)
    from faaster_runtime import load, logs, serve

    load.expect(TASK_DIR)
    logs.prepare()
    if is_fork_server:
        from faaster_runtime import fork_server

    # The runtime's own folder must not be searched for the user's imports.
    sys.path[:] = [entry for entry in sys.path if os.path.abspath(entry or ".") != os.path.abspath(RUNTIME_DIR)]
    prime.settle()
    if is_fork_server:
        # For its children, which look as if they had been executed.
        prime.warm_up(RUNTIME_DIR)
        del sys.argv[1:]

        def live(number, hurry):
            if not hurry:
                # Once more, for the memory that it touches is not shared any longer, and is better touched before a claim.
                prime.again(RUNTIME_DIR)
            fork_server.tell_number(number)
            serve.run(CHANNEL_FD, TASK_DIR, CORE_MODULES)

        fork_server.serve(CONTROL_FD, FILTERS_FD, live)
    serve.run(CHANNEL_FD, TASK_DIR, CORE_MODULES)


if __name__ == "__main__":
    main()
