import os
import time


def handler(event, context):
    hours = time.localtime(0).tm_hour
    return {"hour": hours, "greeting": os.environ["GREETING"]}
