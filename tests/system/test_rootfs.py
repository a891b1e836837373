"""Root file systems from images: imported, chosen for a runtime, seen by its functions, as tight as the host's, removed."""

import json
import shutil
import tempfile
import unittest
from pathlib import Path

from support.deploy import EngineCase
from support.image import Layer, docker_save, python_layer
from support.node import Node, run_command
from system.test_isolation import EscapeTests

LOOK = """
import errno, os
def outcome(action):
    try:
        action()
        return "done"
    except OSError as error:
        return errno.errorcode[error.errno]
def handler(event, context):
    mounts = {line.split()[4]: line.split()[5].split(",") for line in open("/proc/self/mountinfo")}
    return {
        "name": open("/etc/image-name").read() if os.path.exists("/etc/image-name") else None,
        "secret": os.path.exists("/etc/secret"), "top": sorted(os.listdir("/")), "cache": os.listdir("/var/cache"),
        "root only": outcome(lambda: open("/only-for-root").close()), "mode": os.stat("/usr/bin/privileged").st_mode & 0o7777,
        "written": outcome(lambda: open("/x", "w").close()), "mounted": mounts["/"], "resolver": open("/etc/resolv.conf").read(),
        "hosts": open("/etc/hosts").read(), "devices": sorted(os.listdir("/dev")), "device": os.path.exists("/dev/sda"),
    }
"""


def layers():
    """Python, then what is changed of it, as an image's author would."""
    base, upper = Layer(), Layer()
    base.file("etc/secret", b"removed by the next layer")
    base.file("etc/image-name", b"base")
    base.file("etc/passwd", b"root:x:0:0:root:/root:/usr/sbin/nologin\n")
    base.file("var/cache/old", b"x")
    base.file("only-for-root", b"x", 0o600)
    base.file("usr/bin/privileged", b"#!/bin/sh\n", 0o6755)
    upper.file("etc/image-name", b"slim")
    upper.file("etc/.wh.secret", b"")
    upper.file("var/cache/.wh..wh..opq", b"")
    upper.file("var/cache/new", b"x")
    return [python_layer(), base.done(), upper.done()]


class RootfsTest(EscapeTests, EngineCase):
    """One engine with an imported tree for Python and the host's programs for all else."""

    POOL = {"python3": 1, "nodejs": 0, "ruby": 0, "provided": 0}
    ARGUMENTS = ("--rootfs=python3=slim",)

    @classmethod
    def before_start(cls, node):
        folder = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        cls.addClassCleanup(shutil.rmtree, folder, ignore_errors=True)
        cls.archive = docker_save(layers(), folder / "slim.tar")
        cls.imported = run_command("--json", "rootfs", "import", "slim", cls.archive, f"--data={node.data}")
        assert cls.imported.returncode == 0, cls.imported.stderr

    def rootfs(self, *arguments):
        return run_command("--json", "rootfs", *arguments, f"--data={self.node.data}")

    def test_a_function_runs_in_the_image(self):
        self.deploy("look", LOOK)
        seen = self.call("look")
        self.assertEqual((seen["name"], seen["secret"], seen["cache"]), ("slim", False, ["new"]))
        self.assertEqual((seen["root only"], seen["written"], seen["mode"]), ("EACCES", "EROFS", 0o755))
        self.assertLessEqual({"ro", "nosuid", "nodev"}, set(seen["mounted"]))
        self.assertEqual(seen["resolver"], Path("/etc/resolv.conf").read_text())
        self.assertIn("localhost", seen["hosts"])
        self.assertIn("urandom", seen["devices"])
        self.assertLessEqual({"usr", "proc", "dev", "tmp", "var"}, set(seen["top"]))

    def test_other_runtimes_have_the_hosts_programs(self):
        self.deploy("script", {"bootstrap": "#!/bin/sh\n[ -e /etc/image-name ] && echo in the image\necho on the host\nexit 3\n"}, runtime="provided",
                    handler="x")
        self.node.invoke("script")
        self.log_says("script", "on the host")

    def test_it_is_listed_and_cannot_be_removed_while_it_is_used(self):
        made = json.loads(self.imported.stdout)
        self.assertEqual((made["name"], made["about"]["layers"]), ("slim", 3))
        listed = json.loads(self.rootfs("list").stdout)
        self.assertEqual([one["name"] for one in listed], ["slim"])
        refused = self.rootfs("rm", "slim")
        self.assertEqual(refused.returncode, 1, refused.stdout)
        self.assertIn("in use", refused.stderr)
        again = self.rootfs("import", "slim", self.archive)
        self.assertIn("already", again.stderr)
        self.assertEqual(self.rootfs("rm", "absent").returncode, 4)

    def test_hostile_archives_are_refused_and_leave_nothing(self):
        evil = Layer()
        evil.file("../../evil", b"x")
        with tempfile.TemporaryDirectory(dir="/var/tmp") as folder:
            for content, word in ((docker_save([evil.done()], Path(folder, "evil.tar")).read_bytes(), "leads out"), (b"no archive", "damaged")):
                path = Path(folder, "image.tar")
                path.write_bytes(content)
                refused = self.rootfs("import", "evil", path)
                self.assertEqual(refused.returncode, 1, refused.stdout)
                self.assertIn(word, refused.stderr)
        self.assertEqual(sorted(path.name for path in (self.node.data / "rootfs").iterdir()), ["slim"])

    def test_a_directory_serves_as_well_and_a_tree_goes_when_nobody_uses_it(self):
        node = Node("--pool=python3=1,nodejs=0,ruby=0,provided=0", f"--rootfs=python3={self.node.data}/rootfs/slim/tree")
        self.addCleanup(shutil.rmtree, node.home, ignore_errors=True)
        made = run_command("rootfs", "import", "unused", self.archive, f"--data={node.data}")
        self.assertEqual(made.returncode, 0, made.stderr)
        with node:
            node.deploy("look", LOOK)
            self.assertEqual(self.good(node.invoke("look")).json()["name"], "slim")
            self.assertEqual(run_command("rootfs", "rm", "unused", f"--data={node.data}").returncode, 0)
            self.assertEqual(list((node.data / "rootfs").iterdir()), [])

    def test_a_start_with_a_tree_that_is_not_there_says_so(self):
        node = Node("--rootfs=absent")
        self.addCleanup(shutil.rmtree, node.home, ignore_errors=True)
        with self.assertRaisesRegex(AssertionError, "no root file system absent"):
            node.start()


if __name__ == "__main__":
    unittest.main()
