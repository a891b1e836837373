#!/usr/bin/python3
"""House rules that no other tool checks: sizes, headers, where unsafe code may be, words that must not stay.

Each problem is one line with its place. Exit code 1 if there is any. Not checked: formatting (rustfmt), style (clippy).
"""

import fnmatch
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
FILE_LINES_MAX = 800
# Crates that hold the unsafe code; the example that takes fd 3 may have one block.
UNSAFE_HOMES = ("engine/sys/", "runtimes/provided/examples/")
BAD_FILE_NAMES = {"utils", "util", "common", "manager", "helpers", "misc"}
# Assembled, so that this file does not hold what it looks for.
WORDS = {
    "rs": ["to" + "do!(", "unimpl" + "emented!(", "FIX" + "ME", "X" + "XX", "thread::sl" + "eep", "dbg" + "!("],
    "py": ["FIX" + "ME", "X" + "XX", "TO" + "DO"],
}


def tracked(*patterns):
    """Files of the repository that git knows or would add."""
    listing = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard", "--", *patterns],
        cwd=ROOT, capture_output=True, check=True, text=True,
    ).stdout
    return [path for path in listing.split("\0") if path and (ROOT / path).is_file()]


def without_comments_and_strings(line):
    """A line of Rust without what a compiler does not read; near enough for looking for words."""
    line = re.sub(r'"(\\.|[^"\\])*"', '""', line)
    return line.split("//")[0]


def check_rust(path, text):
    lines = text.splitlines()
    if not text.startswith("//!"):
        yield path, 1, "does not open with a //! header"
    if len(lines) > FILE_LINES_MAX:
        yield path, len(lines), f"has {len(lines)} lines; the most is {FILE_LINES_MAX}"
    if Path(path).stem in BAD_FILE_NAMES:
        yield path, 1, "has a name that says nothing"
    for number, line in enumerate(lines, 1):
        code = without_comments_and_strings(line)
        for word in WORDS["rs"]:
            if word in code or (word in line and word.isalpha()):
                yield path, number, f"holds {word}"
        if re.search(r"\bunsafe\b", code) and not path.startswith(UNSAFE_HOMES):
            yield path, number, "has unsafe code outside of engine/sys"


def check_python(path, text):
    first = next((line for line in text.splitlines() if line and not line.startswith("#")), '"""')
    if not first.startswith(('"""', "'''")) and "/examples/" not in path and "/conformance/" not in path and "/prime/" not in path:
        yield path, 1, "does not open with a docstring"
    if len(text.splitlines()) > FILE_LINES_MAX:
        yield path, 1, f"has more than {FILE_LINES_MAX} lines"
    for number, line in enumerate(text.splitlines(), 1):
        for word in WORDS["py"]:
            if word in line:
                yield path, number, f"holds {word}"


def check_crates():
    """Every crate takes the workspace's lints, and every one but engine/sys forbids unsafe code at its root."""
    for manifest in tracked("*Cargo.toml"):
        text = (ROOT / manifest).read_text()
        if "[package]" not in text or "[workspace]" in text:
            continue
        if "[lints]\nworkspace = true" not in text:
            yield manifest, 1, "does not take the workspace's lints"
        if manifest.startswith("engine/sys/"):
            continue
        for root in ("src/lib.rs", "src/main.rs"):
            source = ROOT / Path(manifest).parent / root
            if source.is_file() and "#![forbid(unsafe_code)]" not in source.read_text():
                yield str(source.relative_to(ROOT)), 1, "does not forbid unsafe code"


def check_isolation():
    """Every test that docs/isolation.md names as holding a line is there."""
    path = "docs/isolation.md"
    rust = "\n".join((ROOT / one).read_text() for one in tracked("engine/funclet/tests/system/*.rs"))
    tests = set(re.findall(r"fn (\w+)\(", rust))
    tests |= set(re.findall(r"def (test_\w+)", "\n".join((ROOT / one).read_text() for one in tracked("tests/system/*.py"))))
    attempts = set(re.findall(r"\w+", "\n".join((ROOT / one).read_text() for one in tracked("tests/functions/python3/escape/*.py"))))
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if not line.startswith("| ") or line.count("|") != 3:
            continue
        cell = line.split("|")[2]
        named = [token for token in re.findall(r"`([^`]+)`", cell) if re.search(r"[_*]", token) and "/" not in token and not token.endswith(".py")]
        wanted = [(re.split(r"::|\.", token)[-1], tests) for token in named]
        for listed in re.findall(r"escapes: ([^;|]+)", cell):
            wanted += [(name.strip(), attempts) for name in listed.split(",")]
        for name, known in wanted:
            if not fnmatch.filter(known, name):
                yield path, number, f"names {name}, which is no test"


def check_settings():
    """Every setting of the engine has its place in the table of docs/operations.md, and nothing else has."""
    path, source = "docs/operations.md", "engine/faaster/src/config/settings.rs"
    table = (ROOT / source).read_text().split("SETTINGS: &[Setting] = &[")[1].split("\n];")[0]
    known = set(re.findall(r'row\(\s*"(\w+)"', table))
    if not known:
        yield source, 1, "has no settings that this check could read"
    documented, in_table = set(), False
    for number, line in enumerate((ROOT / path).read_text().splitlines(), 1):
        if not line.startswith("|"):
            in_table = False
        elif line.startswith("| setting |"):
            in_table = True
        elif in_table:
            for name in re.findall(r"`(\w+)`", line.split("|")[1]):
                documented.add(name)
                if name not in known:
                    yield path, number, f"names {name}, which is no setting"
    for name in sorted(known - documented):
        yield path, 1, f"does not name the setting {name} in its table"


def main():
    problems = list(check_crates()) + list(check_isolation()) + list(check_settings())
    for path in tracked("*.rs"):
        problems += check_rust(path, (ROOT / path).read_text())
    for path in tracked("*.py"):
        problems += check_python(path, (ROOT / path).read_text())
    for path, line, problem in problems:
        print(f"{path}:{line}: {problem}")
    print(f"{len(problems)} problems")
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
