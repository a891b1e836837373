"""Prints from threads that the handler starts belong to its invocation."""
import threading
from concurrent.futures import ThreadPoolExecutor

pool = ThreadPoolExecutor(2)


def handler(event, context):
    tag = event["tag"]
    thread = threading.Thread(target=lambda: print("thread", tag))
    thread.start()
    thread.join()
    pool.submit(print, "pool", tag).result()
    return tag
