"""What the generator can do here at most: a closed loop against loadgen's null server, on the cores of the run.

Open loops are judged by it (gate 4): the generator must be able to send three times as fast.
"""

import json

from .http_client import Target
from .load import Load
from .processes import Process, accepts, free_port, until

CONNECTIONS = 64
SECONDS = 3


def run(tools, log):
    """Measures; returns the figures for the record, and the file with loadgen's result."""
    port, path = free_port(), tools.work / "calibration.json"
    argv = [tools.loadgen_program(), "null-server", "--listen", f"127.0.0.1:{port}"]
    server = Process("null-server", argv, tools.work, tools.server_core)
    try:
        until(server, "listening", lambda: accepts(port))
        target = Target(port, "/", method="GET", body=b"", headers={})
        load = Load("loadgen", tools.loadgen_program(), CONNECTIONS, SECONDS, tools.load_core, record=path)
        figures = load.run("null-server", target, tools.work)
    finally:
        server.stop()
    result = json.loads(path.read_text())
    out = {"rate": figures["rate"], "generator_us_per_request": result["generator"]["cpu_us_per_request"]}
    log(f"null server: {out['rate'] / 1e3:.1f} k/s, {out['generator_us_per_request']:.2f} us of the generator each")
    return out, path
