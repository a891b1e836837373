"""Tries to get out of its container, or into another, and says how each attempt ended. Nothing that it does would do harm if it worked."""
import calls
import covered
import files
import network
import ours
import processes
from attempts import ATTEMPTS, outcome

MODULES = (calls, covered, files, network, ours, processes)


def handler(event, context):
    network.EVENT.update(event)
    return {name: outcome(function) for name, function in ATTEMPTS.items()}
