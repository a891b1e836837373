"""The python3 runtime's own import of a handler's file: as importlib's, where it is used, and only where that finds the file."""
import json
import pathlib
import py_compile
import subprocess
import sys
import tempfile
import textwrap
import unittest

RUNTIME = pathlib.Path(__file__).parent.parent / "python3"
# Prints what a handler's module is, or what its import comes to, and what is left of it, by either way.
PROGRAM = """
import importlib, json, os, sys
sys.path.insert(0, sys.argv[1])
from faaster_runtime import load
name, task, way = sys.argv[2:]
sys.path.insert(0, task)
sys.dont_write_bytecode = True
entries = os.listdir(task)
load.make_room(task, entries, frozenset())
plain = load._is_plain(name, entries)
try:
    module = load._import("spec", name, task, entries) if way == "ours" else importlib.import_module(name)
    spec = getattr(module, "__spec__", None)
    found = {
        "kind": type(module).__name__,
        "members": sorted(key for key in vars(module)),
        "file": getattr(module, "__file__", None),
        "cached": getattr(module, "__cached__", None),
        "package": getattr(module, "__package__", None),
        "spec": spec and [spec.name, spec.origin, spec.has_location, spec.cached, spec.parent],
        "loader": type(getattr(module, "__loader__", None)).__name__,
        "is_known": sys.modules.get(name) is module,
        "source": module.__loader__.get_source(name) if getattr(module, "SOURCE", False) else None,
    }
except BaseException as failed:
    root = failed.__cause__ or failed
    found = {"failed": type(root).__name__, "text": str(root), "is_known": name in sys.modules}
print(json.dumps([plain, found]))
"""
CASES = {
    "a file": ("index", {"index.py": "SOURCE = True\ndef handler(event, context): return 1\n"}, True),
    "a file that takes its own place": (
        "index",
        {"index.py": "import sys, types\nsys.modules[__name__] = types.SimpleNamespace(handler=print)\n"},
        True,
    ),
    "a file that imports itself": ("index", {"index.py": "import index\nassert index.__name__ == 'index'\n"}, True),
    "a file that fails": ("index", {"index.py": "import json\nraise RuntimeError('no')\n"}, True),
    "a file that ends the process": ("index", {"index.py": "raise SystemExit(3)\n"}, True),
    "a file that is not Python": ("index", {"index.py": "def (:\n"}, True),
    "a file without what it needs": ("index", {"index.py": "import nowhere\n"}, True),
    "a file beside its bytecode's folder": ("index", {"index.py": "A = 1\n", "__pycache__/other.pyc": "x"}, True),
    "a file beside its own bytecode": ("index", {"index.py": "A = 1\n", "__pycache__/other.pyc": "x"}, True),
    "a file that says how it is encoded": ("index", {"index.py": "# coding: latin-1\nSOURCE = True\nA = 1\n"}, True),
    "a file with a mark of byte order": ("index", {"index.py": "\ufeffA = 1\n"}, True),
    "a file with other ends of lines": ("index", {"index.py": "A = 1\r\nB = '''x\r\n'''\r\n"}, True),
    "a large file": ("index", {"index.py": "A = 1\n" + "# a line\n" * 20_000}, True),
    "an empty file": ("index", {"index.py": ""}, True),
    "a package before a file": ("index", {"index.py": "A = 1\n", "index/__init__.py": "B = 2\n"}, False),
    "a folder that is no package": ("index", {"index.py": "A = 1\n", "index/data.txt": "x"}, False),
    "a module in a package": ("pkg.index", {"pkg/__init__.py": "", "pkg/index.py": "A = 1\n"}, False),
    "a name of the interpreter's": ("time", {"time.py": "A = 1\n"}, False),
    "a name of a frozen module": ("zipimport", {"zipimport.py": "A = 1\n"}, False),
    "a name of the library's": ("statistics", {"statistics.py": "A = 1\n"}, True),
    "a file for another version": ("index", {"index.py": "A = 1\n", "index.cpython-20-x.so": "x"}, False),
}


class Import(unittest.TestCase):
    def test_it_is_as_importlibs(self):
        for case, (name, files, is_plain) in CASES.items():
            with self.subTest(case), tempfile.TemporaryDirectory() as task:
                for path, content in files.items():
                    file = pathlib.Path(task, path)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    file.write_text(textwrap.dedent(content))
                if case == "a file beside its own bytecode":
                    py_compile.compile(str(pathlib.Path(task, "index.py")), doraise=True)
                (plain, ours), (_, theirs) = (self.output_of(name, task, way) for way in ("ours", "theirs"))
                self.assertEqual(ours, theirs)
                self.assertEqual(plain, is_plain)

    def test_a_folder_with_a_files_name_is_no_module(self):
        with tempfile.TemporaryDirectory() as task:
            pathlib.Path(task, "index.py").mkdir()
            _, found = self.output_of("index", task, "ours")
        self.assertEqual(found["failed"], "LoadError")
        self.assertIn("there is no module 'index'", found["text"])
        self.assertFalse(found["is_known"])

    def output_of(self, name, task, way):
        done = subprocess.run(
            [sys.executable, "-I", "-S", "-c", PROGRAM, str(RUNTIME), name, task, way],
            capture_output=True, text=True, check=True, timeout=60,
        )
        return json.loads(done.stdout)


if __name__ == "__main__":
    unittest.main()
