"""The function's own modules may have names of the standard library's that priming has imported."""
import csv
import queue


def handler(event, context):
    return [csv.OWN, queue.OWN]
