"""A Docker engine of a test's own, in the network namespace that the thread is in, with an image of faaster in it.

Nothing of the host's Docker, if it has one, is used: own daemon, own folders, own socket, own parent of cgroups.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path

from support import machine
from support.node import ROOT, program
from support.wait import PATIENCE_S, until

FOLDER = Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")).resolve() / "docker"
PROFILE = ROOT / "docs" / "docker-seccomp.json"
IMAGE = "faaster-test"
# What the manual says that an engine needs.
FLAGS = (
    "--cap-add=SYS_ADMIN", "--cap-add=NET_ADMIN", f"--security-opt=seccomp={PROFILE}", "--security-opt=apparmor=unconfined",
    "--sysctl=net.ipv4.ip_forward=1",
)


class NoDocker(Exception):
    """There is no Docker engine to be had here, and why."""


def environment():
    """With the unpacked programs first, and their libraries."""
    root = FOLDER / "root"
    libraries = [str(root / place / "x86_64-linux-gnu") for place in ("usr/lib", "lib")]
    paths = [str(root / place) for place in ("usr/sbin", "usr/bin", "sbin")]
    inherited = os.environ.get("PATH", "/usr/bin:/bin").split(":")
    return {
        **os.environ, "PATH": ":".join([*paths, *inherited, "/usr/sbin", "/sbin"]), "LD_LIBRARY_PATH": ":".join(libraries),
    }


class Docker:
    """The daemon. Closing it removes everything of it."""

    def __init__(self):
        if shutil.which("dockerd", path=environment()["PATH"]) is None or not (FOLDER / "packages/fetched").exists():
            raise NoDocker("tests/docker/prepare, which tests/run calls, has not fetched it")
        self.folder = Path(tempfile.mkdtemp(prefix="faaster-dockerd-", dir="/var/tmp"))
        self.groups = f"dockerd-{self.folder.name}"
        self.socket = f"unix://{self.folder}/sock"
        try:
            self.start()
        except BaseException:
            self.close()
            raise

    def start(self):
        # Or it would read the host's.
        (self.folder / "settings.json").write_text("{}")
        with open(self.folder / "log", "wb") as log:
            # In a mount namespace and a pid namespace of its own, whose end nothing survives.
            self.daemon = subprocess.Popen(
                ["unshare", "--mount", "--pid", "--fork", "--kill-child", "--mount-proc", "dockerd", "--storage-driver=overlay2",
                 f"--data-root={self.folder}/data", f"--exec-root={self.folder}/exec", f"--host={self.socket}",
                 f"--pidfile={self.folder}/pid", f"--cgroup-parent=/{self.groups}", f"--config-file={self.folder}/settings.json"],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment(),
            )
        until(lambda: self.daemon.poll() is not None or self.run("version", check=False).returncode == 0, "a Docker engine")
        if self.daemon.poll() is not None:
            said = (self.folder / "log").read_text(errors="replace").strip().splitlines()
            raise NoDocker(f"the daemon does not run: {said[-1] if said else 'it says nothing'}")

    def close(self):
        """Ends the daemon and all containers, and removes what they had."""
        daemon = getattr(self, "daemon", None)
        if daemon is not None and daemon.poll() is None:
            # The daemon is process 1 of its namespace; it ends its containers first.
            for pid in machine.descendants(daemon.pid) - {daemon.pid}:
                if machine.command_of(pid) == "dockerd":
                    os.kill(pid, signal.SIGTERM)
            try:
                daemon.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                daemon.kill()
                daemon.wait()
        until(lambda: not self.left_cgroups(remove=True), "the cgroups gone")
        shutil.rmtree(self.folder)

    def left_cgroups(self, remove=False):
        """Directories of cgroups that carry our name, after a try to remove them."""
        tops = [top for top in (machine.CGROUPS, *machine.CGROUPS.iterdir()) if (top / self.groups).is_dir()]
        below = [Path(folder) for top in tops for folder, _, _ in os.walk(top / self.groups, topdown=False)]
        for folder in below if remove else ():
            with contextlib.suppress(OSError):
                folder.rmdir()
        return [folder for folder in below if folder.exists()]

    # --- use ----------------------------------------------------------------------------------------------

    def run(self, *words, check=True, **options):
        """A command of Docker's client."""
        ended = subprocess.run(
            ["docker", f"--host={self.socket}", *map(str, words)], capture_output=True, text=True, env=environment(),
            timeout=2 * PATIENCE_S, check=False, **options,
        )
        assert not check or ended.returncode == 0, f"docker {words}: {ended.stderr}"
        return ended

    def make_image(self):
        """As a user makes one."""
        archive = self.folder / "image.tar"
        made = subprocess.run(
            [ROOT / "tests/docker/image", archive, "python3"], capture_output=True, text=True,
            env={**os.environ, "FAASTER_BIN": program(), "FAASTER_PACKAGES": str(FOLDER / "packages")}, timeout=10 * PATIENCE_S,
        )
        assert made.returncode == 0, made.stderr
        self.run("import", "--change", 'ENTRYPOINT ["/usr/bin/faaster"]', archive, IMAGE)
        archive.unlink()

    def faaster(self, *words, flags=FLAGS, check=True):
        """A command of faaster in a container of its own."""
        return self.run("run", "--rm", *flags, IMAGE, *words, check=check)


class Contained:
    """An engine in a container: what a test of a node needs of it. Use as a context manager."""

    def __init__(self, docker, *arguments, flags=FLAGS):
        self.docker = docker
        self.name = f"engine-{os.urandom(4).hex()}"
        docker.run(
            "run", "--detach", f"--name={self.name}", *flags, IMAGE, "serve", "--listen=0.0.0.0:8001",
            "--registry-listen=0.0.0.0:8002", *arguments,
        )

    def __enter__(self):
        self.wait()
        return self

    def __exit__(self, *about):
        self.docker.run("rm", "--force", "--volumes", self.name, check=False)

    def wait(self, starts=1):
        """Waits until it has said so many times that it serves."""
        def serves():
            assert self.state("Running") == "true", self.said()
            return self.said().count("faaster is serving") >= starts

        until(serves, "the engine in the container")
        address = self.docker.run("inspect", "--format", "{{.NetworkSettings.IPAddress}}", self.name).stdout.strip()
        self.controller, self.registry = f"{address}:8001", f"{address}:8002"

    def said(self):
        ended = self.docker.run("logs", self.name, check=False)
        return ended.stdout + ended.stderr

    def state(self, field):
        return self.docker.run("inspect", "--format", f"{{{{.State.{field}}}}}", self.name).stdout.strip()
