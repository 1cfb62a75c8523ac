"""Runs test cases of CPython's own and prints a line of JSON for each, as the checks of ours do."""

from __future__ import annotations

import json
import unittest
from collections.abc import Iterable
from typing import Any


class Lines(unittest.TestResult):
    """A result that says at once what has come of each test."""

    def addSuccess(self, test: unittest.TestCase) -> None:
        self._say(test, "ok")

    def addSkip(self, test: unittest.TestCase, reason: str) -> None:
        self._say(test, f"skipped: {reason}")

    def addFailure(self, test: unittest.TestCase, err: Any) -> None:
        self._say(test, self._exc_info_to_string(err, test))  # type: ignore[attr-defined]

    def addSubTest(self, test: unittest.TestCase, subtest: unittest.TestCase, err: Any) -> None:
        if err is not None:
            self.addFailure(test, err)

    addError = addFailure

    @staticmethod
    def _say(test: unittest.TestCase, verdict: str) -> None:
        name = getattr(test, "_testMethodName", str(test))
        print(json.dumps({"check": name, "verdict": verdict}), flush=True)


def names(cases: Iterable[type[unittest.TestCase]], not_asked: Iterable[str]) -> set[str]:
    """Return the names of the tests of some cases, but for those that are not asked."""
    loader = unittest.TestLoader()
    return {name for case in cases for name in loader.getTestCaseNames(case)} - {*not_asked}


def play(
    cases: Iterable[type[unittest.TestCase]], not_asked: Iterable[str], chosen: Iterable[str]
) -> None:
    """Run the tests of some cases, those that are chosen or all that are asked."""
    wanted = set(chosen) or names(cases, not_asked)
    for case in cases:
        found = unittest.TestLoader().getTestCaseNames(case)
        suite = unittest.TestSuite(case(name) for name in found if name in wanted)
        suite.run(Lines())
