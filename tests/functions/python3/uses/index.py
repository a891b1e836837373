"""Uses what it is told to, and says what it was given."""
import os

TOKEN = os.urandom(8).hex()
HELD = []


def handler(event, context):
    if "hold_mb" in event:
        HELD[:] = [b"x" * (1 << 20) for _ in range(event["hold_mb"])]
    if "spin_ms" in event:
        while os.times().user * 1000 < event["spin_ms"]:
            pass
    space = os.statvfs("/tmp")
    return {
        "token": TOKEN, "memory_mb": int(context.memory_limit_in_mb), "tmp_mb": space.f_blocks * space.f_frsize >> 20,
        "tmp_files": space.f_files, "held_mb": len(HELD),
    }
