"""A module that seeds the generator as it is loaded: what its handler draws follows from that."""
import random

random.seed(7)


def handler(event, context):
    return random.randrange(1 << 30)
