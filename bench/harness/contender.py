"""What the measuring parts know of a contender, whoever it is."""

from . import cpu


class Contender:
    """A server under load. Made cheap; `start` starts its processes, `stop` ends them."""

    def __init__(self, setup, name):
        self.setup = setup
        self.name = name
        self.target = None
        # Role to processes started; `front` takes the requests, `worker` runs what stands for the function.
        self.started = {}

    def start(self):
        """Starts it and returns when it accepts connections. Raises Unavailable where the machine lacks it."""
        raise NotImplementedError

    def stop(self):
        """Ends all its processes, those in front first."""
        for processes in self.started.values():
            for process in reversed(processes):
                process.stop()

    def roles(self):
        """Role to pids, with all that the started processes have forked."""
        by_parent = cpu.children()
        return {
            role: [pid for process in processes for pid in cpu.tree(process.pid, by_parent)]
            for role, processes in self.started.items()
        }

    def instances(self):
        """How many function instances serve, where that is its own choice."""
        return None

    def command_lines(self):
        """For the record."""
        return [process.command_line() for processes in self.started.values() for process in processes]
