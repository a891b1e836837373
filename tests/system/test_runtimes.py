"""Every language that the node has: results, contexts, environment, packages, names; and one that is added by a folder."""

import base64
import json
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from support.deploy import FUNCTIONS, EngineCase, brn, get_json, printed, source, tail_of
from support.http_client import request
from support.node import ROOT

LANGUAGES = ("python3", "nodejs", "ruby")
EXAMPLE = ROOT / "runtimes" / "provided"
# "\n" at the end of "quoted" would be added by nobody else.
RESULTS = {
    "text": "plain text",
    "quoted": 'with "quotes"\n',
    "unicode": "héllo ☃ 𝄞 <b>&",
    "object": '{"a":[1,2,{"b":null}],"s":"<x>&☃"}',
    "none": "null",
    "number": "42",
    "true": "true",
    "empty": "",
    "list": "[]",
}


class LanguageTest(EngineCase):
    """The same function in every language."""

    POOL = {"python3": 1, "nodejs": 1, "ruby": 1, "provided": 0}

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.found = [language for language in LANGUAGES if language in {one["name"] for one in cls.node.ready["runtimes"]}]
        for language in cls.found:
            cls.deploy(f"kinds-{language}", source("kinds", language), runtime=language, Timeout=30, MemorySize=192,
                       Environment={"Variables": {"GREETING": "grüße 'n \"quotes\" $HOME", "EMPTY": ""}})

    def each(self):
        for language in self.found:
            with self.subTest(language):
                yield language, f"kinds-{language}"

    def test_the_languages_of_this_machine_are_there(self):
        for language, program in (("python3", "/usr/bin/python3"), ("nodejs", "/usr/bin/node"), ("ruby", "/usr/bin/ruby")):
            self.assertEqual(language in self.found, Path(program).exists(), language)

    def test_hello_of_each_example(self):
        for language, _ in self.each():
            folder = ROOT / "runtimes" / language / "examples" / "hello"
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
            self.deploy(f"hello-{language}", files, runtime=language)
            for _ in range(2):
                answer = self.good(self.node.invoke(f"hello-{language}"))
                self.assertEqual(answer.text, "Hello world!")
                self.assertEqual(answer.headers["Content-Type"], "text/plain; charset=utf-8")

    def test_code_that_is_not_given_is_an_example(self):
        for language, _ in self.each():
            self.assertEqual(self.create(f"default-{language}", Runtime=language).status, 200)
            self.assertEqual(self.good(self.node.invoke(f"default-{language}")).text, "Hello world!")
        if "nodejs" in self.found:
            self.assertEqual(self.create("default").status, 200)
            self.assertEqual(self.good(self.node.invoke("default")).text, "Hello world!")

    def test_results(self):
        for _, name in self.each():
            for kind, expected in RESULTS.items():
                self.assertEqual(self.good(self.node.invoke(name, {"kind": kind})).body, expected.encode(), kind)

    def test_events_arrive_as_they_are(self):
        event = {"kind": "echo", "text": "ünï ☃ 𝄞 \u0000 \u2028 \\ \" /", "deep": [[[{"a": [None, True, False, -1.5, 1e3]}]]],
                 "large": "x" * 1_000_000}
        for _, name in self.each():
            self.assertEqual(self.call(name, event), event)

    def test_environment(self):
        for _, name in self.each():
            self.assertEqual(self.call(name, {"kind": "env"}), ["grüße 'n \"quotes\" $HOME", "", None])
            self.assertEqual(self.good(self.node.invoke(name, {"kind": "cwd"})).text, "/var/task")
            self.assertIn("/usr/bin", self.good(self.node.invoke(name, {"kind": "path"})).text)

    def test_context(self):
        client = {"client": {"app_title": "tést"}, "custom": {"a": "1"}}
        headers = {"X-easyfaas-Request-Id": "my-own-id-1",
                   "X-easyfaas-Client-Context": base64.b64encode(json.dumps(client).encode()).decode()}
        for _, name in self.each():
            answer = self.good(self.node.invoke(name, {"kind": "context"}, headers=headers))
            self.assertEqual(answer.headers["X-Easyfaas-Request-Id"], "my-own-id-1")
            context = answer.json()
            remaining = context.pop("remaining")
            self.assertTrue(0 < remaining <= 30_000, remaining)
            self.assertEqual(context, {
                "requestId": "my-own-id-1", "name": name, "version": "$LATEST", "memory": 192, "brn": brn(name), "client": client,
            })
            other = self.node.invoke(name, {"kind": "context"})
            self.assertEqual(other.json()["requestId"], other.headers["X-Easyfaas-Request-Id"])
            self.assertRegex(other.json()["requestId"], "^[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$")
            self.assertIsNone(other.json()["client"])
            self.assertNotEqual(self.node.invoke(name, {"kind": "context"}).json()["requestId"], other.json()["requestId"])

    def test_versions_are_functions_of_their_own(self):
        for language, _ in self.each():
            name = f"versions-{language}"
            self.deploy(name, source("kinds", language), runtime=language, Version="1")
            self.deploy(name, source("kinds", language), runtime=language, Version="2", MemorySize=256)
            for version, memory in (("1", 128), ("2", 256)):
                context = self.call(name, {"kind": "context"}, qualifier=version)
                self.assertEqual((context["version"], context["memory"]), (version, memory))
            self.assertEqual(self.node.invoke(name).status, 404, "there is no $LATEST")

    def test_packages_in_the_zip(self):
        expected = {"python3": ["at root", "in vendor"], "nodejs": ["at root", "1.2.3"], "ruby": ["at root", "in vendor"]}
        for language, _ in self.each():
            self.deploy(f"vendored-{language}", source("vendored", language), runtime=language)
            self.assertEqual(self.call(f"vendored-{language}"), expected[language])

    def test_errors_have_the_same_shape(self):
        codes = {"python3": "def handler(event, context):\n    raise ValueError('böse \"x\"')\n",
                 "nodejs": "exports.handler = async () => { throw new RangeError('böse \"x\"'); };",
                 "ruby": "def handler(event:, context:)\n  raise ArgumentError, 'böse \"x\"'\nend\n"}
        kinds = {"python3": "ValueError", "nodejs": "RangeError", "ruby": "ArgumentError"}
        for language, _ in self.each():
            files = {"index.rb": codes[language]} if language == "ruby" else codes[language]
            self.deploy(f"raises-{language}", files, runtime=language)
            error = self.failed(self.node.invoke(f"raises-{language}"))
            self.assertEqual((error["errorMessage"], error["errorType"]), ('böse "x"', kinds[language]))
            self.assertTrue(any("index." in line for line in error["stackTrace"]), error)

    def test_names_of_languages(self):
        names = {"python3": ["python3", "python3.6", "python3.11", "python"],
                 "nodejs": ["nodejs6.11", "nodejs8.5", "nodejs10", "nodejs12", "nodejs"], "ruby": ["ruby", "ruby2.7"]}
        for language in self.found:
            for name in names[language]:
                with self.subTest(name):
                    function = "named-" + name.replace(".", "-")
                    self.deploy(function, source("kinds", language), runtime=name)
                    self.assertEqual(self.good(self.node.invoke(function, {"kind": "text"})).text, "plain text")
                    shown = get_json(self.node.registry, f"/v1/functions/{function}")
                    self.assertEqual(shown["Configuration"]["Runtime"], name)
        for name in ("python2.7", "java8", "lua5.3", "go1.x", "dotnetcore3.1", "pytho", "Python3"):
            with self.subTest(name):
                answer = self.create("refused", Runtime=name)
                self.assertEqual(answer.status, 400, answer)
                self.assertIn(f'"{name}" is not available', answer.text)
                for pattern in ("python3*", "nodejs*", "provided*"):
                    self.assertIn(pattern, answer.text)

    def test_python_handlers_of_every_kind(self):
        for concurrency in (0, 10):
            for handler, expected in (("coroutine", "from a coroutine"), ("plain", "from a function"),
                                      ("callable_object", "from an object")):
                with self.subTest(handler, concurrency=concurrency):
                    name = f"{handler}-{concurrency}"
                    self.deploy(name, source("styles"), handler=f"index.{handler}", PodConcurrentQuota=concurrency)
                    for _ in range(3):
                        self.assertEqual(self.good(self.node.invoke(name)).text, expected)
            name = f"failing-{concurrency}"
            self.deploy(name, source("styles"), handler="index.failing", PodConcurrentQuota=concurrency)
            self.assertEqual(self.failed(self.node.invoke(name))["errorType"], "KeyError")

    @unittest.skipUnless(Path("/usr/bin/node").exists(), "Node is not installed")
    def test_node_handlers_of_every_kind(self):
        good = {"asynchronous": "from async", "promise": "from a promise", "callback": "from a callback", "callbackAtOnce": "at once",
                "callbackTwice": "first", "succeed": "from succeed", "returned": "from a return", "nested.deep": "from deep"}
        for concurrency in (0, 10):
            for handler, expected in good.items():
                with self.subTest(handler, concurrency=concurrency):
                    name = f"{handler.replace('.', '-')}-{concurrency}"
                    self.deploy(name, source("styles", "nodejs"), runtime="nodejs10", handler=f"index.{handler}",
                                PodConcurrentQuota=concurrency)
                    for _ in range(3):
                        self.assertEqual(self.good(self.node.invoke(name)).text, expected)
        self.deploy("callback-error", source("styles", "nodejs"), runtime="nodejs10", handler="index.callbackError")
        self.assertEqual(self.node.invoke("callback-error").text, '{"errorMessage":"string error"}')
        self.deploy("callback-object", source("styles", "nodejs"), runtime="nodejs10", handler="index.callbackErrorObject")
        error = self.failed(self.node.invoke("callback-object"))
        self.assertEqual((error["errorMessage"], error["errorType"]), ("too far", "RangeError"))

    def test_every_language_prints(self):
        prints = {"python3": "def handler(event, context):\n    print('oüt')\n",
                  "nodejs": "exports.handler = async () => { console.log('oüt'); };",
                  "ruby": "def handler(event:, context:)\n  puts 'oüt'\nend\n"}
        for language, _ in self.each():
            files = {"index.rb": prints[language]} if language == "ruby" else prints[language]
            self.deploy(f"prints-{language}", files, runtime=language)
            answer = self.good(self.node.invoke(f"prints-{language}", headers={"Log-Type": "Tail"}))
            self.assertEqual(printed(answer)[-1].rsplit("\t", 1)[-1], "oüt", tail_of(answer))

    def test_configuration_of_runtimes(self):
        for language, _ in self.each():
            shown = get_json(self.node.registry, f"/v1/runtimes/{language}/configuration")
            self.assertEqual(shown["Name"], language)
            self.assertTrue(Path(shown["Bin"]).exists(), shown)
        answer = request(self.node.registry, "GET", "/v1/runtimes/python2.7/configuration")
        self.assertEqual((answer.status, answer.text), (500, "invaild runtime python2.7"))


class ProvidedTest(EngineCase):
    """Executables in the zip: the shipped Rust example, and what is no good."""

    POOL = {"python3": 1, "nodejs": 0, "ruby": 0, "provided": 1}

    def built(self):
        """The example's program; skips where it cannot be built."""
        folder = Path(tempfile.mkdtemp(prefix="faaster-test-", dir="/var/tmp"))
        self.addCleanup(shutil.rmtree, folder, ignore_errors=True)
        if shutil.which("cargo") is None:
            self.skipTest("cargo is not installed")
        ended = subprocess.run([EXAMPLE / "conformance" / "build", "hello", folder], capture_output=True, text=True, check=False)
        if ended.returncode == 3:
            self.skipTest(ended.stdout.strip())
        self.assertEqual(ended.returncode, 0, ended.stderr)
        return (folder / "bootstrap").read_bytes()

    def test_the_rust_example(self):
        program = self.built()
        self.deploy("rust-hello", {"bootstrap": program}, runtime="provided", handler="hello")
        self.deploy("rust-echo", {"bootstrap": program}, runtime="provided", handler="echo", PodConcurrentQuota=16,
                    Environment={"Variables": {"A": "b"}})
        for _ in range(3):
            self.assertEqual(self.good(self.node.invoke("rust-hello")).text, "Hello world!")
        event = {"text": "☃", "large": "x" * 700_000}
        self.assertEqual(self.call("rust-echo", event), event)

    def test_a_script_gets_its_settings_from_the_environment(self):
        script = """#!/usr/bin/python3
import json, os, struct, socket
channel = socket.socket(fileno=3)
stream = channel.makefile("rb")
def post(kind, invocation, body=b""):
    channel.sendall(struct.pack("<4sHHQQIIIi24x", b"FAS\\x01", kind, 0, invocation, 0, 0, len(body), 0, 0) + body)
post(3, 0)
while True:
    head = stream.read(64)
    if len(head) < 64:
        break
    _, kind, _, invocation, _, meta, body = struct.unpack("<4sHHQQII", head[:36 - 4])
    stream.read(meta), stream.read(body)
    if kind == 4:
        shown = {name: os.environ.get(name) for name in os.environ if name.startswith(("FAASTER_", "MINE"))}
        post(6, invocation, json.dumps(shown).encode())
    elif kind == 11:
        break
"""
        self.deploy("script", {"bootstrap": script}, runtime="provided", handler="any.thing", Timeout=7, MemorySize=256,
                    PodConcurrentQuota=3, Environment={"Variables": {"MINE": "yes"}})
        self.assertEqual(self.call("script"), {
            "MINE": "yes", "FAASTER_FUNCTION_NAME": "script", "FAASTER_FUNCTION_VERSION": "$LATEST", "FAASTER_BRN": brn("script"),
            "FAASTER_HANDLER": "any.thing", "FAASTER_MEMORY_MB": "256", "FAASTER_TIMEOUT_MS": "7000", "FAASTER_CONCURRENCY": "3",
            "FAASTER_USER_ID": "df391b08c64c426a81645468c75163a5",
        })

    def test_a_bootstrap_that_is_missing_or_no_program(self):
        for name, content, words in (
            ("none", None, "no file /var/task/bootstrap"), ("text", "no program", "neither a program"),
            ("interpreter", "#!/no/such/interpreter\n", "interpreter"),
        ):
            with self.subTest(name):
                self.deploy(f"bad-{name}", {"bootstrap": content} if content else {"other": "x"}, runtime="provided", handler="x")
                error = self.failed(self.node.invoke(f"bad-{name}"))
                self.assertEqual(error["errorType"], "Runtime.InvalidEntrypoint")
                self.assertIn(words, error["errorMessage"])
        self.deploy("bad-ends", {"bootstrap": "#!/bin/sh\nexit 9\n"}, runtime="provided", handler="x")
        self.lost(self.node.invoke("bad-ends"))
        self.log_says("bad-ends", "exit status 9")


class AddedLanguageTest(EngineCase):
    """A folder makes a language (issue 3, point 5): Perl, which no line of the engine knows."""

    POOL = {"python3": 1, "nodejs": 0, "ruby": 0, "provided": 0, "perl": 1}

    @classmethod
    def arguments(cls):
        return (f"--runtimes={FUNCTIONS / 'runtimes'}",)

    @classmethod
    def setUpClass(cls):
        if not Path("/usr/bin/perl").exists():
            raise unittest.SkipTest("Perl is not installed")
        super().setUpClass()

    def test_it_is_listed(self):
        self.assertIn("perl", {one["name"] for one in self.node.ready["runtimes"]})
        self.assertIn("perl", self.node.cli("runtimes").stdout)

    def test_it_runs(self):
        code = {"index.pl": (FUNCTIONS / "runtimes" / "perl" / "hello" / "index.pl").read_bytes()}
        self.deploy("perl", code, runtime="perl5", handler="index.handler")
        for _ in range(3):
            self.assertEqual(self.good(self.node.invoke("perl", "[1,2]")).text, "Hello from Perl, 5 bytes")
        answer = self.good(self.node.invoke("perl", {"x": "y" * 700_000}, headers={"Log-Type": "Tail"}))
        self.assertEqual(answer.text, "Hello from Perl, 700009 bytes")
        self.assertEqual(printed(answer), ["perl was here"])
        self.assertEqual(self.failed(self.node.invoke("perl", {"fail": 1}))["errorMessage"].strip(), "no way")

    def test_its_default_code(self):
        self.assertEqual(self.create("perl-default", Runtime="perl").status, 200)
        self.assertEqual(self.good(self.node.invoke("perl-default")).text, "Hello from Perl, 2 bytes")

    def test_its_load_errors(self):
        self.deploy("perl-broken", {"index.pl": "sub handler {"}, runtime="perl")
        self.assertEqual(self.failed(self.node.invoke("perl-broken"))["errorType"], "Runtime.HandlerNotFound")


if __name__ == "__main__":
    unittest.main()
