"""Zips of every bad kind: each is refused with a sentence, nothing of it stays on the disk, and the engine goes on."""

import io
import os
import random
import shutil
import struct
import subprocess
import tempfile
import unittest
import warnings
import zipfile
from pathlib import Path

from support.deploy import EngineCase
from support.node import Node
from support.wait import patience, until

HELLO = b"def handler(event, context):\n    return 'hello'\n"
FILE, LINK, DIRECTORY, FIFO, DEVICE = 0o100644, 0o120777, 0o040755, 0o010644, 0o020644


def packed(*entries, method=zipfile.ZIP_DEFLATED):
    """A zip of (name, content[, mode[, system]]), names and modes exactly as given."""
    out = io.BytesIO()
    with warnings.catch_warnings(), zipfile.ZipFile(out, "w", method) as archive:
        warnings.simplefilter("ignore")  # that a name stands twice is what is wanted
        for name, content, *rest in entries:
            info = zipfile.ZipInfo("placeholder")
            info.filename = info.orig_filename = name
            info.compress_type = method
            info.external_attr = (rest[0] if rest else FILE) << 16
            info.create_system = rest[1] if len(rest) > 1 else 3
            archive.writestr(info, content)
    return out.getvalue()


def noise(count, seed=1):
    """Bytes that do not shrink, the same for each seed."""
    return random.Random(seed).randbytes(count)


def lying_about_sizes(archive):
    """The same zip, with sizes in its directory and headers that say almost nothing is in it."""
    out = bytearray(archive)
    for mark, offset in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        at = out.find(mark)
        while at >= 0:
            struct.pack_into("<I", out, at + offset, 10)
            at = out.find(mark, at + 4)
    return bytes(out)


def paths(folder):
    """Everything below a folder; what goes meanwhile (code that nobody uses) may be in it or not."""
    return {os.path.join(place, name) for place, folders, files in os.walk(folder) for name in folders + files}


class ZipTest(EngineCase):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.deploy("stays", {"index.py": HELLO})

    def refused(self, code, *words, status=(400,)):
        before = paths(self.node.data)
        answer = self.create("refused", code, Runtime="python3")
        self.assertIn(answer.status, status, answer)
        self.assertTrue(any(word in answer.text for word in words), answer.text)
        self.assertLess(len(answer.text), 1000)
        self.assertNotIn("\n", answer.text.strip())
        self.assertEqual(paths(self.node.data) - before, set())
        self.assertEqual(self.good(self.node.invoke("stays")).text, "hello")
        self.assertEqual(self.node.invoke("refused").status, 404)

    def accepted(self, code, event=b"{}"):
        answer = self.create("accepted", code, Runtime="python3", Timeout=30)
        self.assertEqual((answer.status, answer.body), (200, b""), answer)
        return self.good(self.node.invoke("accepted", event))

    def test_what_is_no_zip(self):
        whole = packed(("index.py", HELLO), ("other.py", noise(3000)))
        self.refused(b"hello", "not a zip")
        self.refused(b"PK\x03\x04" + noise(2000), "not a zip")
        for cut in (1, 21, len(whole) // 2):
            self.refused(whole[:-cut], "not a zip", "damaged")

    def test_a_damaged_zip(self):
        whole = bytearray(packed(("index.py", HELLO * 100)))
        at = whole.find(b"index.py") + len("index.py") + 10
        whole[at] ^= 0xFF
        self.refused(bytes(whole), "damaged")

    def test_a_bomb(self):
        zeros = bytes(64 << 20)
        self.refused(packed(*[(f"{number}.bin", zeros) for number in range(4)]), "262144000")

    def test_a_bomb_that_lies_about_its_size(self):
        zeros = bytes(64 << 20)
        lying = lying_about_sizes(packed(*[(f"{number}.bin", zeros) for number in range(4)]))
        self.refused(lying, "damaged", "262144000")

    def test_more_bytes_than_a_zip_may_have(self):
        self.refused(noise((50 << 20) + 1), "52428800", status=(400, 413))

    def test_paths_that_lead_out(self):
        for name in ("../x", "a/../../x", "a/..", "..", "..\\x", "a\\..\\..\\x"):
            with self.subTest(name):
                self.refused(packed(("index.py", HELLO), (name, b"x")), "leads out", "backslash")

    def test_absolute_paths(self):
        for name in ("/etc/x", "/", "//x"):
            with self.subTest(name):
                self.refused(packed(("index.py", HELLO), (name, b"x")), "absolute")
        self.refused(packed(("index.py", HELLO), ("C:\\x", b"x", 0, 0)), "absolute")

    def test_links_that_lead_out(self):
        for target in ("/etc/passwd", "../../etc/passwd", "..", "a/../../x", "/", "missing", ""):
            with self.subTest(target):
                self.refused(packed(("index.py", HELLO), ("link", target, LINK)), "symbolic link")

    def test_files_through_links(self):
        self.refused(packed(("index.py", HELLO), ("link", ".", LINK), ("link/x", b"x")), "below something", "symbolic link")
        self.refused(packed(("index.py", HELLO), ("link", "/tmp", LINK), ("link/x", b"x")), "below something", "symbolic link")
        self.refused(packed(("index.py", HELLO), ("a", b"x"), ("a/b", b"x")), "below something")

    def test_links_in_circles(self):
        self.refused(packed(("index.py", HELLO), ("a", "b", LINK), ("b", "a", LINK)), "too many links")

    def test_what_is_no_file(self):
        for mode in (FIFO, DEVICE, 0o060644, 0o140644):
            with self.subTest(oct(mode)):
                self.refused(packed(("index.py", HELLO), ("odd", b"", mode)), "neither a file")

    def test_names_that_are_none(self):
        self.refused(packed(("index.py", HELLO), ("x" * 300, b"x")), "longer than 255")
        self.refused(packed(("index.py", HELLO), ("/".join(["x" * 100] * 11), b"x")), "longer than 1024")

    def test_names_that_stand_twice(self):
        self.refused(packed(("index.py", HELLO), ("index.py", b"x")), "twice")
        self.refused(packed(("index.py", HELLO), ("./index.py", b"x")), "twice")

    def test_no_file(self):
        self.refused(packed(), "no file")
        self.refused(packed(("folder/", b"", DIRECTORY)), "no file")

    def test_a_password(self):
        locked = bytearray(packed(("index.py", HELLO)))
        for mark, offset in ((b"PK\x01\x02", 8), (b"PK\x03\x04", 6)):
            at = locked.find(mark)
            struct.pack_into("<H", locked, at + offset, 1)
        self.refused(bytes(locked), "encrypted")

    def test_another_compression(self):
        self.refused(packed(("index.py", HELLO), method=zipfile.ZIP_BZIP2), "compression method 12")
        self.refused(packed(("index.py", HELLO), method=zipfile.ZIP_LZMA), "compression method 14")

    def test_more_files_than_a_zip_may_have(self):
        self.refused(packed(*[(f"{number}", b"") for number in range(20_001)], method=zipfile.ZIP_STORED), "20000")

    def test_modes_of_nothing(self):
        answer = self.accepted(packed(("index.py", b"import sub.other\nhandler = sub.other.handler\n", 0),
                                      ("sub/", b"", 0), ("sub/__init__.py", b"", 0), ("sub/other.py", HELLO, 0)))
        self.assertEqual(answer.text, "hello")

    def test_modes_that_are_too_much(self):
        look = b"import os\ndef handler(event, context):\n    return oct(os.stat('tool').st_mode)\n"
        answer = self.accepted(packed(("index.py", look), ("tool", b"#!/bin/sh\n", 0o106777)))
        self.assertEqual(answer.text, "0o100755")

    def test_ten_thousand_files(self):
        count = b"import os\ndef handler(event, context):\n    return sum(len(files) for _, _, files in os.walk('.'))\n"
        entries = [(f"data/{number % 100}/{number}.txt", b"%d" % number) for number in range(9_999)]
        self.assertEqual(self.accepted(packed(("index.py", count), *entries)).text, "10000")

    def test_names_from_windows_and_links_inside(self):
        read = b"def handler(event, context):\n    return open('a/b.txt').read() + open('link').read() + open('dir/b.txt').read()\n"
        answer = self.accepted(packed(("index.py", read), ("a\\b.txt", b"b", 0, 0), ("link", "a/b.txt", LINK), ("dir", "a", LINK)))
        self.assertEqual(answer.text, "bbb")

    def test_stored_and_unicode_names(self):
        read = "def handler(event, context):\n    return open('ünï/ćode.txt').read()\n".encode()
        answer = self.accepted(packed(("index.py", read), ("ünï/ćode.txt", "☃".encode()), method=zipfile.ZIP_STORED))
        self.assertEqual(answer.text, "☃")

    def test_a_refused_redeploy_changes_nothing(self):
        self.deploy("kept", {"index.py": HELLO})
        self.assertEqual(self.good(self.node.invoke("kept")).text, "hello")
        before = self.node.cli("functions", "--json").stdout
        self.assertEqual(self.create("kept", b"no zip", Runtime="python3").status, 400)
        self.assertEqual(self.node.cli("functions", "--json").stdout, before)
        self.assertEqual(self.good(self.node.invoke("kept")).text, "hello")

    def test_code_that_nobody_uses_is_removed(self):
        unique = HELLO + b"# " + os.urandom(8).hex().encode() + b"\n"
        before = paths(self.node.data)
        self.deploy("passing", {"index.py": unique})
        self.assertNotEqual(paths(self.node.data), before)
        self.assertEqual(self.node.cli("rm", "passing").returncode, 0)
        until(lambda: len(paths(self.node.data)) <= len(before), "its code gone", patience_s=patience(100), interval_s=0.2)


class FullDiskTest(unittest.TestCase):
    """A data directory on a file system of 48 MiB."""

    def setUp(self):
        self.place = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, self.place, ignore_errors=True)
        subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m,mode=755", "faaster-test", self.place], check=True)
        self.addCleanup(subprocess.run, ["umount", self.place], check=True)

    def free(self):
        status = os.statvfs(self.place)
        return status.f_bavail * status.f_frsize

    def test_a_disk_that_is_full_while_a_zip_is_unpacked(self):
        home = self.place / "home"
        home.mkdir()
        with Node("--pool=python3=1,nodejs=0,ruby=0,provided=0", home=home) as node:
            node.deploy("stays", {"index.py": HELLO})
            self.assertEqual(node.invoke("stays").text, "hello")
            before, free = paths(node.data), self.free()
            for attempt in range(3):
                # The zip fits; it and what is in it do not.
                with self.assertRaises(AssertionError) as refused:
                    node.deploy("large", {"index.py": HELLO, "noise.bin": noise(28 << 20, seed=attempt)})
                self.assertRegex(str(refused.exception), "<507 .*space")
                self.assertEqual(paths(node.data) - before, set())
                self.assertLess(abs(self.free() - free), 1 << 20)
                self.assertEqual(node.invoke("large").status, 404)
                self.assertEqual(node.invoke("stays").text, "hello")
            node.deploy("small", {"index.py": HELLO, "noise.bin": noise(5 << 20)})
            self.assertEqual(node.invoke("small").text, "hello")


if __name__ == "__main__":
    unittest.main()
