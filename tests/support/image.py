"""Images made on the spot from programs of this machine: what `docker save` writes, without Docker and without a registry."""

import hashlib
import io
import json
import os
import platform
import re
import subprocess
import tarfile
from pathlib import Path

ARCHITECTURE = {"x86_64": "amd64", "aarch64": "arm64"}[platform.machine()]
# Of Python's library: what no test's function imports.
LEFT_OUT = {"test", "idlelib", "ensurepip", "tkinter", "lib2to3", "distutils", "turtledemo", "pydoc_data", "__pycache__", "dist-packages"}


class Layer:
    """A layer's archive under construction."""

    def __init__(self):
        self.bytes = io.BytesIO()
        self.archive = tarfile.open(fileobj=self.bytes, mode="w")
        self.names = set()

    def file(self, name, content, mode=0o644, mtime=0):
        info = tarfile.TarInfo(name)
        info.size, info.mode, info.mtime, info.uid = len(content), mode, mtime, 4321
        self.names.add(name)
        self.archive.addfile(info, io.BytesIO(content))

    def link(self, name, target):
        info = tarfile.TarInfo(name)
        info.type, info.linkname = tarfile.SYMTYPE, target
        self.names.add(name)
        self.archive.addfile(info)

    def copy(self, path):
        """A file of this machine at the place where it really is."""
        real = Path(path).resolve()
        name = str(real).lstrip("/")
        if name not in self.names:
            self.file(name, real.read_bytes(), real.stat().st_mode & 0o777, int(real.stat().st_mtime))
        return name

    def program(self, path):
        """A program, under its own name and all that it is reached by, with the libraries that it is linked to."""
        name = self.copy(path)
        wanted = str(path).lstrip("/")
        if wanted != name:
            self.link(wanted, "/" + name)
        linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
        for library in re.findall(r"(/\S+) \(0x", linked):
            self.copy(library)
            self.alias(library)

    def alias(self, library):
        """A library's own name, where it is a link to another or stands in a folder that is one."""
        place = Path(library).parent.resolve() / Path(library).name
        if place.is_symlink() and str(place).lstrip("/") not in self.names:
            self.link(str(place).lstrip("/"), "/" + str(place.resolve()).lstrip("/"))

    def done(self):
        self.archive.close()
        return self.bytes.getvalue()


def merged_links(layer):
    """The links of a merged /usr, as this machine has them."""
    for name in ("bin", "sbin", "lib", "lib64", "lib32", "libx32"):
        if Path("/", name).is_symlink():
            layer.link(name, os.readlink(f"/{name}"))


def python_layer():
    """Python with its library, a shell and a few tools."""
    layer = Layer()
    merged_links(layer)
    for program in ("/usr/bin/python3", "/usr/bin/true", "/usr/bin/grep", "/usr/bin/env", "/usr/bin/sh"):
        layer.program(program)
    said = subprocess.run(["/usr/bin/python3", "-c", "import sysconfig; print(sysconfig.get_path('stdlib'))"], capture_output=True, text=True, check=True)
    library = Path(said.stdout.strip())
    for folder, folders, files in os.walk(library):
        folders[:] = [name for name in folders if name not in LEFT_OUT and not name.startswith("config-")]
        for name in files:
            path = Path(folder, name)
            if path.is_file():
                layer.copy(path)
                if path.suffix == ".so":
                    linked = subprocess.run(["ldd", path], capture_output=True, text=True, check=False).stdout
                    for needed in re.findall(r"(/\S+) \(0x", linked):
                        layer.copy(needed)
                        layer.alias(needed)
    return layer.done()


def docker_save(layers, path):
    """Writes an image of these layers, lowest first."""
    config = json.dumps({
        "os": "linux", "architecture": ARCHITECTURE,
        "rootfs": {"type": "layers", "diff_ids": ["sha256:" + hashlib.sha256(layer).hexdigest() for layer in layers]},
    }).encode()
    name = hashlib.sha256(config).hexdigest() + ".json"
    names = [f"{number}/layer.tar" for number in range(len(layers))]
    parts = [*zip(names, layers), (name, config), ("manifest.json", json.dumps([{"Config": name, "RepoTags": None, "Layers": names}]).encode())]
    with tarfile.open(path, "w") as archive:
        for part, content in parts:
            info = tarfile.TarInfo(part)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path
