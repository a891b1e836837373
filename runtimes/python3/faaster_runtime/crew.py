"""Threads for the plain `def` handlers of a concurrent instance: leader and followers.

One thread, the leader, reads the channel and runs what it has read itself, one call after the other, and answers all of
it in one write: with fast handlers there is no other thread at work and no hand-over, for one call in flight or for 64.
That is only right while handlers are fast, so there are two ways out of it:

- The watchdog. While calls run it looks every TICK; if the leader is inside the same call as a tick before, leadership goes to
  another thread, which goes on with the waiting calls and the reading. The old leader finishes its call as a plain worker.
- The score. Each time a leader was found blocked, and each batch that spent its time waiting and not computing, raises it.
  Above SPREAD the leader only reads, and every call gets a thread of its own; calls that return at once lower it again.

So 64 calls that sleep 100 ms are asleep together after two ticks, and a handler that waits 0.3 ms for a database is
spread over threads from its second batch on. A handler that computes is left alone for BUSY_TICKS: threads cannot
make it faster, they only let others in between.

    thread:  parked -> serving (waiting calls, one at a time) -> parked
             parked or serving -> leading -> serving           (demoted by the watchdog, or the function ends)

Leadership changes and the decision to read are under one lock; everything else relies on the atomicity of
list and deque operations.
"""
import threading
import time
from collections import deque

TICK_S = 0.001
# A leader that computes rather than waits is replaced after so many ticks.
BUSY_TICKS = 10
# A call that waits at least this long is worth a thread's hand-over (about 20-40 us).
WAIT_NS = 50_000
SPREAD = 16
SCORE_MAX = 64
SCORE_BLOCKED = 16
SCORE_WAITED = 32


class Thread:
    """One thread of the crew: what it runs, and the gate where it is parked."""

    __slots__ = ("gate", "call", "ident")

    def __init__(self):
        self.gate = threading.Lock()
        self.gate.acquire()
        self.call = None
        self.ident = None


class Crew:
    """All threads of one concurrent instance. `size` is the number of calls that may be in flight."""

    def __init__(self, channel, execute, size, end):
        self.channel = channel
        self.execute = execute
        self.end = end  # end(exception): ends the process; does not return
        self.threads_max = size + 1  # one more than can be inside calls, so that somebody can always read
        self.lock = threading.Lock()
        self.waiting = deque()
        self.everyone = []
        self.parked = []
        self.leader = None
        self.reading = False
        self.turn = 0  # batches read: with len(waiting), the leader's progress
        self.score = 0
        self.bell = threading.Lock()  # released to wake the watchdog
        self.bell.acquire()
        self.watching = False
        channel.on_cancel = self.cancel

    def run(self):
        """Serves on the calling thread until the channel ends."""
        threading.Thread(target=self._guard, args=(self._watch,), name="faaster-watchdog", daemon=True).start()
        me = self.leader = Thread()
        self.everyone.append(me)
        self._guard(self._serve, me)

    def flush_now(self):
        """For log lines: the leader's go out with its batch (or when it is found blocked), others' at once."""
        leader = self.leader
        if leader is None or leader.ident != threading.get_ident():
            self.channel.flush()

    def cancel(self, invocation):
        """Marks the call, wherever it is: a thread cannot be stopped, but its answer is replaced by a short one."""
        for call in [*self.waiting, *(thread.call for thread in self.everyone)]:
            if call is not None and call._id == invocation:
                call._cancelled = True

    def _guard(self, work, *args):
        try:
            work(*args)
        except BaseException as reason:
            self.end(reason)

    def _serve(self, me):
        me.ident = threading.get_ident()
        while True:
            if self.leader is me:
                self._lead(me)
            try:
                me.call = self.waiting.popleft()
            except IndexError:
                if self._park(me):
                    me.gate.acquire()
                continue
            began = time.monotonic_ns()
            self.execute(me.call)
            me.call = None
            self.channel.flush()
            if time.monotonic_ns() - began < WAIT_NS:
                self.score = max(0, self.score - 1)
            else:
                self.score = min(SCORE_MAX, self.score + 1)

    def _park(self, me):
        """Whether there is nothing to do; a crew without a leader gets this one."""
        with self.lock:
            if self.leader is None:
                self.leader = me
            if self.leader is me or self.waiting:
                return False
            self.parked.append(me)
            return True

    def _lead(self, me):
        waiting, channel = self.waiting, self.channel
        while True:
            if self.score > SPREAD:
                if waiting:
                    self._spread(len(waiting))
            elif len(waiting) > 1:
                self._run_batch(me)
            elif waiting:
                self._run_waiting(me)
            channel.flush()
            with self.lock:
                if self.leader is not me:
                    return
                if waiting and self.score <= SPREAD:
                    continue
                self.reading = True
            waiting.extend(channel.receive())
            self.reading = False
            self.turn += 1
            if waiting and not self.watching:
                self._ring()

    def _run_waiting(self, me):
        waiting, execute = self.waiting, self.execute
        while waiting and self.leader is me:
            try:
                me.call = call = waiting.popleft()
            except IndexError:  # a thread that was woken for it has been faster
                break
            execute(call)
        me.call = None

    def _run_batch(self, me):
        count = len(self.waiting)
        wall, cpu = time.monotonic_ns(), time.thread_time_ns()
        self._run_waiting(me)
        waited = (time.monotonic_ns() - wall) - (time.thread_time_ns() - cpu)
        if waited > WAIT_NS * count:
            self.score = min(SCORE_MAX, self.score + SCORE_WAITED)
        elif self.score:
            self.score = max(0, self.score - count)

    def _spread(self, count):
        """Wakes up to `count` threads for the waiting calls."""
        with self.lock:
            for _ in range(count):
                thread = self._spare()
                if thread is None:
                    return
                self._wake(thread)

    def _spare(self):
        """Under the lock: a thread with nothing to do, perhaps a new one; None if all that may be are busy."""
        if self.parked:
            return self.parked.pop()
        if len(self.everyone) >= self.threads_max:
            return None
        thread = Thread()
        self.everyone.append(thread)
        return thread

    def _wake(self, thread):
        if thread.ident is None:
            threading.Thread(target=self._guard, args=(self._serve, thread), name="faaster-call", daemon=True).start()
        else:
            thread.gate.release()

    def _ring(self):
        self.watching = True
        try:
            self.bell.release()
        except RuntimeError:
            pass  # rung already: the watchdog changed its mind about resting (see _rest)

    def _rest(self):
        """The watchdog waits for the bell, unless the leader has begun to run calls in this very moment."""
        self.watching = False
        if self.reading:  # read after the write above; the leader does it the other way round, so one sees the other
            self.bell.acquire()
        self.watching = True

    def _watch(self):
        self.bell.acquire()
        seen, since, cpu_ns = None, 0, 0
        while True:
            time.sleep(TICK_S)
            if self.reading and seen == (self.turn, len(self.waiting), self.leader):
                self._rest()  # nothing has happened in a whole tick
                continue
            with self.lock:
                leader = self.leader
                now = (self.turn, len(self.waiting), leader)
                if self.reading or leader is None or now != seen:
                    seen, since, cpu_ns = now, 0, _cpu_ns(leader)
                    continue
                since += 1
                used_ns, cpu_ns = _cpu_ns(leader) - cpu_ns, _cpu_ns(leader)
                blocked = used_ns < TICK_S * 1e9 / 2
                if not blocked and since < BUSY_TICKS:
                    continue
                self._replace_leader(blocked)
                seen = None
            self.channel.flush()  # what the old leader has answered before it got stuck

    def _replace_leader(self, blocked):
        if blocked:
            self.score = min(SCORE_MAX, self.score + SCORE_BLOCKED)
        thread = self._spare()
        if thread is not None:
            self.leader = thread
            self._wake(thread)


def _cpu_ns(thread):
    """CPU time of a thread of the crew, in nanoseconds."""
    if thread is None or thread.ident is None:
        return 0
    return time.clock_gettime_ns(time.pthread_getcpuclockid(thread.ident))
