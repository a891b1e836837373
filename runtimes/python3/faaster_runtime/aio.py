"""One event loop for an `async def` handler, exclusive or concurrent.

The first step of each task is run at once, from the callback that has read the channel: a handler that never waits costs no turn of
the loop, and all such answers of one read go out in one write. Python 3.12 has this as eager tasks; for 3.11 the
task's own request to be called soon is caught and carried out (asyncio.current_task() is right all the same).
"""
import asyncio
import sys

from . import logs


class Server:
    """`end(exception)` ends the process; `after` is called before answers are written."""

    def __init__(self, channel, end, after=lambda: None):
        self.channel = channel
        self.execute = None  # the coroutine function of execute.make_execute_async, given to `run`
        self.end = end
        self.after = after
        self.loop = asyncio.SelectorEventLoop()
        self.tasks = {}  # invocation id -> (call, task), for those that did not end in their first step
        self.flushing = False
        channel.on_cancel = self._cancel

    def run(self, execute):
        """Serves on the calling thread until the channel ends."""
        self.execute = execute
        asyncio.set_event_loop(self.loop)
        self.loop.add_reader(self.channel.fd, self._readable)
        try:
            self.loop.run_forever()
        except BaseException as reason:  # SystemExit of a task, for one
            self.end(reason)

    def flush_now(self):
        """For log lines and late answers: written once per turn of the loop. Other threads write at once."""
        if self.flushing:
            return
        try:
            running = asyncio.get_running_loop() is self.loop
        except RuntimeError:
            running = False
        if running:
            self.flushing = True
            self.loop.call_soon(self._flush)
        else:
            self.channel.flush()

    def _readable(self):
        try:
            self.flushing = True  # this callback writes at its end
            for call in self.channel.receive():
                self._start(call)
            self._flush()
        except BaseException as reason:
            self.end(reason)

    def _flush(self):
        self.flushing = False
        self.after()
        try:
            self.channel.flush()
        except BaseException as reason:
            self.end(reason)

    def _start(self, call):
        logs.CURRENT.set(call)
        task = self._begin(self.execute(call))
        if not task.done():
            self.tasks[call._id] = call, task

    def answered(self, call):
        """From the call's task, when its answer has been posted."""
        self.tasks.pop(call._id, None)
        self.flush_now()

    def _cancel(self, invocation):
        if invocation in self.tasks:
            call, task = self.tasks[invocation]
            call._cancelled = True
            task.cancel()

    if sys.version_info >= (3, 12):

        def _begin(self, coroutine):
            return asyncio.Task(coroutine, loop=self.loop, eager_start=True)

    else:

        def _begin(self, coroutine):
            steps = []
            self.loop.call_soon = lambda step, *args, context: steps.append((context, step, args))
            try:
                task = asyncio.Task(coroutine, loop=self.loop)
            finally:
                del self.loop.call_soon
            for context, step, args in steps:
                context.run(step, *args)
            return task
