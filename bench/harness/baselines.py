"""The servers that the engine is compared with. Each is set up as its own documentation recommends for this job:
keep-alive on both sides, no access log, one worker, pinned like the engine.
"""

import shutil

from .contender import Contender
from .errors import Unavailable
from .http_client import Target
from .processes import Process, accepts, accepts_unix, free_port, until

HAPROXY_SERVERS = 16

# `user root`: the workers must be allowed to open the upstream's socket, else nginx answers 502, and fast.
NGINX = """\
user root;
worker_processes 1;
daemon off;
worker_rlimit_nofile {files};
pid {work}/{name}.pid;
error_log {work}/{name}.error.log;
events {{ worker_connections {connections}; }}
http {{
    access_log off;
    keepalive_requests 1000000000;
    keepalive_timeout 600s;
    default_type text/plain;
    {http}
}}
"""
NGINX_PROXY = """\
upstream function {{
        server unix:{socket};
        keepalive 256;
        keepalive_requests 1000000000;
        keepalive_timeout 600s;
    }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://function;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
        }}
    }}"""
NGINX_STATIC = """\
sendfile on;
    open_file_cache max=16;
    server {{
        listen 127.0.0.1:{port};
        location = /return {{ return 200 "Hello world!"; }}
        location / {{ root {root}; }}
    }}"""
HAPROXY = """\
global
    nbthread 1
    maxconn 4000
defaults
    mode http
    timeout client 60s
    timeout server 60s
    timeout connect 5s
    timeout queue 60s
    option http-keep-alive
    http-reuse always
frontend f
    bind 127.0.0.1:{port}
    default_backend b
backend b
    balance roundrobin
{servers}
"""


def _need(program):
    if shutil.which(program) is None:
        raise Unavailable(f"{program} is not installed")


class Baseline(Contender):
    """A baseline whose servers all run on one core, or where the kernel puts them (`core` None)."""

    def __init__(self, setup, name, core):
        super().__init__(setup, name)
        self.core = core
        self.port = free_port()

    def launch(self, role, name, argv, ready=None):
        process = Process(name, argv, self.setup.work, self.core)
        self.started.setdefault(role, []).append(process)
        until(process, "listening", ready or (lambda: accepts(self.port)))

    def upstream(self, name, serve):
        """A unix_upstream; returns its socket."""
        socket = self.setup.work / f"{name}.sock"
        argv = [self.setup.program("unix_upstream"), "--socket", socket, "--serve", serve]
        self.launch("worker", name, argv, lambda: accepts_unix(socket))
        return socket

    def nginx(self, http, connections=4096):
        config = self.setup.work / f"{self.name}.conf"
        settings = {"connections": connections, "files": connections + 64, "http": http}
        config.write_text(NGINX.format(work=self.setup.work, name=self.name, **settings))
        self.launch("front", self.name, ["nginx", "-c", config])

    def configuration(self, text):
        path = self.setup.work / f"{self.name}.cfg"
        path.write_text(text)
        return path


class NginxProxy(Baseline):
    """nginx in front of one keep-alive unix upstream: the twin of one concurrent instance."""

    def start(self):
        _need("nginx")
        # The front comes first in `started`, so that it is stopped first.
        self.started["front"] = []
        socket = self.upstream(f"{self.name}-upstream", "many")
        self.nginx(NGINX_PROXY.format(socket=socket, port=self.port))
        self.target = Target(self.port, "/f")


class Haproxy(Baseline):
    """haproxy in front of 16 unix servers of `maxconn 1`, with its queue: the twin of 16 exclusive instances."""

    def start(self):
        _need("haproxy")
        self.started["front"] = []
        sockets = [self.upstream(f"{self.name}-upstream-{i}", "one") for i in range(HAPROXY_SERVERS)]
        servers = "\n".join(f"    server s{i} unix@{socket} maxconn 1" for i, socket in enumerate(sockets))
        config = self.configuration(HAPROXY.format(port=self.port, servers=servers))
        # `-db`: in the foreground, one process.
        self.launch("front", self.name, ["haproxy", "-db", "-f", config])
        self.target = Target(self.port, "/f")


class NginxStatic(Baseline):
    """nginx answering by itself: by a `return` of its configuration, or from a small file."""

    def __init__(self, setup, name, core, path):
        super().__init__(setup, name, core)
        self.path = path

    def start(self):
        _need("nginx")
        root = self.setup.work / "static"
        root.mkdir(exist_ok=True)
        (root / "hello.txt").write_bytes(b"Hello world!")
        self.nginx(NGINX_STATIC.format(port=self.port, root=root))
        self.target = Target(self.port, self.path, method="GET", body=b"", headers={})


class Node(Baseline):
    """A bare Node `http` server."""

    def start(self):
        _need("node")
        script = self.setup.bench / "servers" / "hello.js"
        self.launch("front", self.name, [shutil.which("node"), script, str(self.port)])
        self.target = Target(self.port, "/f")


class Uvicorn(Baseline):
    """uvicorn with uvloop and httptools, one worker."""

    def start(self):
        python = self.setup.uvicorn_python()
        argv = [
            python,
            "-m",
            "uvicorn",
            "--app-dir",
            self.setup.bench / "servers",
            "--loop",
            "uvloop",
            "--http",
            "httptools",
            "--host",
            "127.0.0.1",
            "--port",
            self.port,
            "--no-access-log",
            "--log-level",
            "warning",
            "--lifespan",
            "off",
            "hello_asgi:app",
        ]
        self.launch("front", self.name, argv)
        self.target = Target(self.port, "/f")


class Hello(Baseline):
    """A hello server of ours: `glommio_hello`, or `ring_hello` on the engine's ring."""

    def __init__(self, setup, name, core, program):
        super().__init__(setup, name, core)
        self.program = program

    def start(self):
        program = self.setup.program(self.program)
        self.launch("front", self.name, [program, "--listen", f"127.0.0.1:{self.port}", "--core", self.core or 0])
        self.target = Target(self.port, "/", method="GET", body=b"", headers={})
