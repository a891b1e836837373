"""What modules want done around a fork (os.register_at_fork), held back while a fork server makes its children.

Owns: what is held back. Must not know: who forks.
Every page that such a hook writes to is one more that a child does not share, and a child is two forks away: the hooks of
the modules below made up a third of what it had copied when it began.
"""
import os
import sys

# What these do is known: they take or make anew locks that another thread may hold, forget other threads, and seed
# `random`, which fork_server.renew does as well. A fork server has one thread, which holds no lock when it forks.
HELD_BACK = frozenset(("concurrent.futures.thread", "logging", "random", "threading"))

_register = os.register_at_fork
_before, _after_in_parent, _after_in_child = [], [], []
_in_force = False


def collect():
    """From now on; before anything is imported that registers hooks."""
    _register(
        before=lambda: _run(reversed(_before)),
        after_in_parent=lambda: _run(_after_in_parent),
        after_in_child=lambda: _run(_after_in_child),
    )
    os.register_at_fork = _collected


def _collected(*, before=None, after_in_parent=None, after_in_child=None):
    if sys._getframe(1).f_globals.get("__name__") not in HELD_BACK:
        wanted = {"before": before, "after_in_parent": after_in_parent, "after_in_child": after_in_child}
        return _register(**{kind: hook for kind, hook in wanted.items() if hook is not None})
    for hook, hooks in ((before, _before), (after_in_parent, _after_in_parent), (after_in_child, _after_in_child)):
        if hook is not None:
            hooks.append(hook)


def _run(hooks):
    if _in_force:
        for hook in hooks:
            hook()


def collected():
    """All is imported: the next to register is a function."""
    os.register_at_fork = _register


def put_in_force():
    """In the child: a function's own forks run them all."""
    global _in_force
    _in_force = True
