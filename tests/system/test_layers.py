"""Layers: published once, seen at /opt by every function that names them, in its order, by every language."""

import json
import re
import subprocess
import unittest

from support.deploy import EngineCase, instances, publish, unpublish
from support.http_client import request
from support.wait import timeout, until

LOOK = """
import ctypes, errno, os, subprocess
def read(path):
    try:
        return open(path).read()
    except OSError as error:
        return errno.errorcode[error.errno]
def refusal(path):
    try:
        open(path, "w").close()
    except OSError as error:
        return errno.errorcode[error.errno]
def handler(event, context):
    seen = {"same": read("/opt/same"), "a": read("/opt/a"), "b": read("/opt/b")}
    seen["write"] = [refusal(path) for path in ("/opt/new", "/opt/same", "/opt/python/new")]
    try:
        import layered
        seen["import"] = layered.WHO
    except ImportError:
        seen["import"] = None
    if event.get("more"):
        seen["tool"] = subprocess.run(["layered-tool"], capture_output=True, text=True).stdout.strip()
        seen["library"] = ctypes.CDLL("liblayered.so")._name
    return seen
"""
NODE = """
exports.handler = async () => [require('layered').who, require('fs').readFileSync('/opt/same', 'utf8')];
"""
RUBY = """
require "layered"
def handler(event:, context:)
  [LAYERED, File.read("/opt/same")]
end
"""


def some_library():
    """The bytes of a shared library of this machine."""
    listed = subprocess.run(["ldd", "/usr/bin/python3"], capture_output=True, text=True, check=True).stdout
    path = re.search(r"(/\S*libm\.so\S*) \(", listed).group(1)
    with open(path, "rb") as file:
        return file.read()


class LayersTest(EngineCase):
    POOL = {"python3": 1, "nodejs": 0, "ruby": 0, "provided": 0}

    def publish(self, name, files):
        """Publishes a version; its `NAME:VERSION`."""
        layer = publish(self.node, name, files)
        self.addCleanup(unpublish, self.node, layer)
        return layer

    def test_layers_are_merged_in_the_function_s_order_and_read_only(self):
        first = self.publish("first", {"same": "first", "a": "a", "python/layered.py": "WHO = 'first'\n"})
        second = self.publish("second", {"same": "second", "b": "b", "python/layered.py": "WHO = 'second'\n"})
        for name, layers, expected in (
            ("forth", [first, second], ("second", "a", "b", "second")), ("back", [second, first], ("first", "a", "b", "first")),
            ("one", [first], ("first", "a", "ENOENT", "first")), ("none", [], ("ENOENT", "ENOENT", "ENOENT", None)),
        ):
            with self.subTest(name):
                self.deploy(name, LOOK, Timeout=timeout(20), Layers=layers)
                seen = self.call(name)
                self.assertEqual((seen["same"], seen["a"], seen["b"], seen["import"]), expected)
                self.assertEqual(set(seen["write"]) - {"ENOENT"}, {"EROFS"}, seen)

    def test_programs_and_libraries_of_a_layer_are_found(self):
        layer = self.publish("tools", {"bin/layered-tool": "#!/bin/sh\necho from the layer\n", "lib/liblayered.so": some_library()})
        # Zips of this test have no modes but for bootstrap: the shell is asked to run the file.
        self.deploy("tools", LOOK.replace('["layered-tool"]', '["sh", "-c", "sh $(IFS=:; for d in $PATH; do [ -f $d/layered-tool ] && echo $d/layered-tool; done)"]'),
                    Timeout=timeout(20), Layers=[layer])
        seen = self.call("tools", {"more": True})
        self.assertEqual((seen["tool"], seen["library"]), ("from the layer", "liblayered.so"))

    def test_every_language_finds_its_packages(self):
        layer = self.publish("packages", {
            "same": "shared", "nodejs/node_modules/layered/index.js": "exports.who = 'node';", "ruby/lib/layered.rb": "LAYERED = 'ruby'\n",
        })
        for runtime, code, who in (("nodejs", {"index.js": NODE}, "node"), ("ruby", {"index.rb": RUBY}, "ruby")):
            with self.subTest(runtime):
                self.deploy(f"in-{runtime}", code, runtime=runtime, Timeout=timeout(20), Layers=[layer])
                self.assertEqual(self.call(f"in-{runtime}"), [who, "shared"])

    def test_a_deleted_layer_stays_for_its_functions_and_is_gone_for_others(self):
        kept = [self.publish("kept", {"same": "kept"}), self.publish("more", {"a": "more"})]
        self.deploy("user", LOOK, Timeout=timeout(20), Layers=kept)
        self.assertEqual(self.call("user")["same"], "kept")
        for layer in kept:
            unpublish(self.node, layer)
        refused = self.create("late", Runtime="python3", Layers=kept)
        self.assertEqual(refused.status, 400, refused)
        self.assertIn("does not exist", refused.text)
        # Another instance finds it too.
        (one,) = instances(self.node, "user")
        request(self.node.controller, "POST", f"/v1/runtimes/{one['ID']}/invalidate")
        until(lambda: not instances(self.node, "user"), "the instance gone")
        seen = self.call("user")
        self.assertEqual((seen["same"], seen["a"]), ("kept", "more"))

    def test_the_command_line(self):
        folder = self.node.home / "layer"
        (folder / "python").mkdir(parents=True)
        (folder / "same").write_text("typed")
        (folder / "python/layered.py").write_text("WHO = 'typed'\n")
        published = self.node.cli("layer", "publish", "typed", folder, "--description", "by hand", "--json")
        self.assertEqual(published.returncode, 0, published.stderr)
        version = json.loads(published.stdout)["Version"]
        code = self.node.home / "code"
        code.mkdir()
        (code / "index.py").write_text(LOOK)
        type(self).deployed.add("typed")
        ended = self.node.cli("deploy", code, "--name", "typed", "--timeout", str(timeout(20)), "--layer", f"typed:{version}")
        self.assertEqual(ended.returncode, 0, ended.stderr)
        self.assertEqual(self.call("typed")["import"], "typed")
        self.assertRegex(self.node.cli("layer", "list").stdout, rf"(?m)^typed +{version} .*by hand")
        self.assertEqual(self.node.cli("layer", "rm", f"typed:{version}").returncode, 0)
        self.assertNotEqual(self.node.cli("layer", "rm", f"typed:{version}").returncode, 0)
        self.assertNotIn("typed", self.node.cli("layer", "list").stdout)


if __name__ == "__main__":
    unittest.main()
