"""What a run needs from the machine and the tree: programs, packages, a place to work; and the record of it all."""

import contextlib
import hashlib
import json
import os
import platform
import shutil
import subprocess
from pathlib import Path

from .errors import Setup, Unavailable

REPOSITORY = Path(__file__).resolve().parents[2]
# Pinned, so that a baseline does not change between runs without a commit.
PYTHON_PACKAGES = ("uvicorn==0.54.0", "uvloop==0.23.0", "httptools==0.9.0")
# The interpreter that the engine's Python runtime uses as well.
SYSTEM_PYTHON = "/usr/bin/python3"
# Program to Debian package.
PACKAGES = {"nginx": "nginx", "haproxy": "haproxy", "wrk": "wrk", "taskset": "util-linux", "unshare": "util-linux"}
# Python module to Debian package: what the system's interpreter needs to make uvicorn's environment.
MODULES = {"ensurepip": "python3-venv"}
SERVICES = ("nginx", "haproxy")
POLICY = "/usr/sbin/policy-rc.d"
VERSIONS = {
    "nginx": ["nginx", "-v"],
    "haproxy": ["haproxy", "-v"],
    "wrk": ["wrk", "-v"],
    "node": ["node", "--version"],
    "python": [SYSTEM_PYTHON, "--version"],
    "rustc": ["rustc", "--version"],
}


def _has_module(name):
    """Whether the system's interpreter, which need not be this one, finds a module."""
    look = f"import importlib.util, sys; sys.exit(importlib.util.find_spec({name!r}) is None)"
    return subprocess.run([SYSTEM_PYTHON, "-c", look], capture_output=True).returncode == 0


def missing_packages(wanted=None):
    """Debian packages of which a program or a module is missing."""
    programs = {package for program, package in (wanted or PACKAGES).items() if shutil.which(program) is None}
    return sorted(programs | {package for module, package in MODULES.items() if not _has_module(module)})


def install_packages(wanted=None):
    """Installs what is missing; says what. `wanted` is program to package."""
    missing = missing_packages(wanted)
    if not missing:
        return
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        raise Setup(f"these packages are needed: {' '.join(missing)}; install them, or run as root on Debian")
    print(f"installing {' '.join(missing)} from the distribution", flush=True)
    fresh = [name for name in SERVICES if name in missing]
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    with no_services_started():
        for argv in (
            ["apt-get", "update", "-q"],
            ["apt-get", "install", "-q", "-y", "--no-install-recommends", *missing],
        ):
            done = subprocess.run(argv, env=environment, capture_output=True, text=True)
            if done.returncode != 0:
                raise Setup(f"`{' '.join(argv)}` failed: {done.stderr.strip()[-500:]}")
    # Nor at the next start of the machine. Only what was not there before is touched.
    if Path("/run/systemd/system").exists():
        for name in fresh:
            subprocess.run(["systemctl", "disable", "--now", name], capture_output=True)


@contextlib.contextmanager
def no_services_started(policy=POLICY):
    """Debian's packages start their services, and a benchmark wants its own: invoke-rc.d asks this file first, and 101
    forbids. Where the machine has a policy already, that one holds."""
    try:
        with open(policy, "x") as file:
            file.write("#!/bin/sh\nexit 101\n")
    except FileExistsError:
        yield
        return
    try:
        os.chmod(policy, 0o755)
        yield
    finally:
        os.unlink(policy)


class Tools:
    """Programs and folders of one run."""

    def __init__(self, work, server_core, load_core, target=None):
        self.work = work
        self.repository = REPOSITORY
        self.bench = REPOSITORY / "bench"
        self.target = Path(target or os.environ.get("CARGO_TARGET_DIR") or REPOSITORY / "target").resolve()
        self.server_core, self.load_core = server_core, load_core
        self._bootstrap = None

    def program(self, name):
        """A program of this package, built for release."""
        path = self.target / "release" / name
        if not path.exists():
            raise Unavailable(f"{path} is missing; `bench/run` without --no-build makes it")
        return path

    def engine_program(self):
        """The engine, built for release."""
        path = self.target / "release" / "faaster"
        if not path.exists():
            raise Setup(
                f"{path} is missing: run `cargo build --release`, or pass --baselines to run without the engine"
            )
        return path

    def init_program(self):
        """Process 1 of containers, as tests/support/setup.sh builds it with the engine."""
        path = self.target / "release" / "faaster-init"
        if not path.exists():
            raise Setup(f"{path} is missing: build the engine as ./quickstart does")
        return path

    def loadgen_program(self):
        """The load generator, built for release."""
        path = self.target / "release" / "loadgen"
        if not path.exists():
            raise Setup(f"{path} is missing: `bench/run` without --no-build makes it")
        return path

    def build_loadgen(self):
        """Builds the load generator."""
        self._cargo(["cargo", "build", "--locked", "--release", "-p", "faaster-loadgen"])

    def build(self, glommio):
        """Builds the load generator and the baselines; glommio only where it is asked for."""
        self.build_loadgen()
        argv = ["cargo", "build", "--release", "-p", "faaster-bench", "--bins"]
        argv += ["--features", "glommio"] if glommio else []
        print(f"building: {' '.join(argv)}", flush=True)
        self._cargo(argv)

    def _cargo(self, argv, directory=REPOSITORY, environment=None):
        done = subprocess.run(
            argv, cwd=directory, env={**os.environ, **(environment or {})}, capture_output=True, text=True
        )
        if done.returncode != 0:
            raise Setup(f"`{' '.join(argv)}` failed: {done.stderr.strip()[-2000:]}")
        return done.stdout

    def provided_bootstrap(self):
        """The static `bootstrap` of runtimes/provided/examples/rust, built once."""
        if self._bootstrap is None:
            folder = REPOSITORY / "runtimes" / "provided" / "examples" / "rust"
            if not (folder / "Cargo.toml").exists():
                raise Setup(f"{folder} is missing: the null worker of the `provided` cases is built from it")
            self._bootstrap = self._build_static(folder).read_bytes()
        return self._bootstrap

    def _build_static(self, folder):
        # An explicit --target keeps the static flag away from build scripts and macros.
        triple = self._static_target(folder)
        output = self._cargo(
            [
                "cargo",
                "build",
                "--release",
                "--target",
                triple,
                "--target-dir",
                str(self.target / "bench-provided"),
                "--message-format",
                "json",
            ],
            folder,
            {"RUSTFLAGS": "-C target-feature=+crt-static"},
        )
        made = [json.loads(line) for line in output.splitlines()]
        programs = [entry["executable"] for entry in made if entry.get("executable")]
        if len(programs) != 1:
            raise Setup(f"{folder} must build exactly one program, it built {programs}")
        return Path(programs[0])

    def _static_target(self, folder):
        """musl's where Rust has it, as for faaster-init: glibc's start asks the processor what it can do, 0.3 ms of a first
        call in a virtual machine."""
        musl = f"{platform.machine()}-unknown-linux-musl"
        libraries = self._cargo(["rustc", "--print", "target-libdir", "--target", musl], folder, {}).strip()
        if (Path(libraries) / "self-contained").is_dir():
            return musl
        return f"{platform.machine()}-unknown-linux-gnu"

    def uvicorn_python(self):
        """Python of a virtual environment with uvicorn in it; made where it is missing."""
        folder = self.bench / ".venv"
        python = folder / "bin" / "python"
        stamp = folder / "packages"
        wanted = " ".join(PYTHON_PACKAGES)
        if not (stamp.exists() and stamp.read_text() == wanted):
            print(f"installing {wanted} into {folder}", flush=True)
            make = [SYSTEM_PYTHON, "-m", "venv", "--clear", str(folder)]
            for argv in (make, [str(python), "-m", "pip", "install", "-q", *PYTHON_PACKAGES]):
                done = subprocess.run(argv, capture_output=True, text=True)
                if done.returncode != 0:
                    said = (done.stderr + done.stdout).strip()[-300:]
                    raise Unavailable(f"`{' '.join(argv)}` failed (is python3-venv installed?): {said}")
            stamp.write_text(wanted)
        return python


def _lines(argv):
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=30)
    except (OSError, subprocess.TimeoutExpired) as error:
        return [f"unknown ({error})"]
    return (done.stdout + done.stderr).strip().splitlines()


def first_line(argv):
    """What a program says of itself first."""
    return (_lines(argv) or [""])[0]


def _read(path):
    try:
        return Path(path).read_text().strip()
    except OSError:
        return None


def _sha256(program):
    return hashlib.sha256(program.read_bytes()).hexdigest() if program.exists() else None


def environment(tools, arguments):
    """The machine, the versions and the commit, for environment.json."""
    cpuinfo = (_read("/proc/cpuinfo") or "").splitlines()
    models = [line.split(":", 1)[1].strip() for line in cpuinfo if line.startswith("model name")]
    git = ["git", "-C", str(REPOSITORY)]
    engine = tools.target / "release" / "faaster"
    vulnerabilities = Path("/sys/devices/system/cpu/vulnerabilities")
    return {
        "host": platform.node(),
        "kernel": platform.release(),
        "kernel_build": platform.version(),
        "cpu": models[0] if models else platform.machine(),
        "cores": os.cpu_count(),
        "memory": (_read("/proc/meminfo") or "").splitlines()[:1],
        "governor": _read("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor"),
        "clocksource": _read("/sys/devices/system/clocksource/clocksource0/current_clocksource"),
        "mitigations": {entry.name: _read(entry) for entry in sorted(vulnerabilities.glob("*"))},
        "load_average": os.getloadavg(),
        "command": arguments,
        "server_core": tools.server_core,
        "load_core": tools.load_core,
        "commit": first_line([*git, "rev-parse", "HEAD"]),
        "modified_files": len(_lines([*git, "status", "--porcelain"])),
        "engine_sha256": _sha256(engine),
        "engine_version": first_line([str(engine), "--version"]) if engine.exists() else None,
        "loadgen_sha256": _sha256(tools.target / "release" / "loadgen"),
        "versions": {name: first_line(argv) for name, argv in VERSIONS.items()},
        "python_packages": PYTHON_PACKAGES,
    }
