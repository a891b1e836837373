"""Runs the tests of this folder, then prints one line with the counts and one for each reason of a skip."""
import argparse
import collections
import sys
import time
import unittest
from pathlib import Path


def _test_id(test):
    return getattr(test, "test_case", test).id()


def main():
    options = argparse.ArgumentParser(prog="runtimes/tests/run", description=__doc__)
    options.add_argument("-v", "--verbose", action="store_true", help="name each test")
    options.add_argument("-k", action="append", default=[], metavar="WORD", help="only tests whose name has this word")
    chosen = options.parse_args()
    loader = unittest.TestLoader()
    if chosen.k:
        loader.testNamePatterns = [f"*{word}*" for word in chosen.k]
    began = time.monotonic()
    suite = loader.discover(str(Path(__file__).parent), pattern="test_*.py")
    result = unittest.TextTestRunner(stream=sys.stdout, verbosity=2 if chosen.verbose else 1).run(suite)
    # A test may fail or skip in several of its subtests: count tests.
    failed = {_test_id(test) for test, _ in result.failures + result.errors}
    skipped = {_test_id(test) for test, _ in result.skipped} - failed
    for reason, count in sorted(collections.Counter(reason for _, reason in result.skipped).items()):
        print(f"skipped {count} x: {reason}")
    passed = result.testsRun - len(failed | skipped)
    print(f"runtimes: {passed} passed, {len(failed)} failed, {len(skipped)} skipped in {time.monotonic() - began:.0f} s")
    return 1 if failed or not result.testsRun else 0


if __name__ == "__main__":
    sys.exit(main())
