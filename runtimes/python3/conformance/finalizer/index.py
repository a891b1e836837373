"""Leaves garbage behind whose __del__ prints: the collector runs it in the midst of the runtime's own code."""
import gc

gc.set_threshold(5, 2, 2)


class Loud:
    def __init__(self):
        self.me = self

    def __del__(self):
        print("collected")


def handler(event, context):
    Loud()
    return [[n] for n in range(20)]
