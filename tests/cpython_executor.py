"""CPython's own tests of executors, held against ``dtm.Executor``; prints a line for each as JSON.

They are taken from the interpreter that runs this (``test.test_concurrent_futures``, a package
since Python 3.12).  What is not about the interface of an executor, but about processes or threads
that belong to it, is in ``NOT_ASKED`` with the reason.
"""

from __future__ import annotations

import sys
import unittest
import warnings
from importlib import import_module
from typing import Any

from dtm import dtm
from tests import their_tests

NOT_ASKED = {
    "test_interpreter_shutdown": "a program that imports another executor and has no run",
    "test_submit_after_interpreter_shutdown": "the same",
    "test_hang_gh83386": "the same",
    "test_hang_issue39205": "the same",
    "test_no_stale_references": "sleeps on an event until a call has run that nobody waits for",
    "test_map_timeout": "naps of 0 s let it estimate that the one of 6 s fits into the time left",
    "test_first_completed": "who waits works too, and may have run the other call meanwhile",
    "test_first_exception": "the same",
    "test_first_exception_some_already_complete": "the same",
    "test_cancel_futures": "wants some calls to have begun that nobody waits for",
}
MODULES = ("executor", "test_wait", "test_as_completed", "test_shutdown", "test_init")
NAMES = (
    "ExecutorTest",
    "WaitTests",
    "AsCompletedTests",
    "ExecutorShutdownTest",
    "InitializerMixin",
)


def _theirs() -> dict[str, type]:
    found: dict[str, type] = {}
    for module in ("", *(f".{name}" for name in MODULES)):
        try:
            found |= vars(import_module(f"test.test_concurrent_futures{module}"))
        except ModuleNotFoundError:
            continue
    return {name: found[name] for name in NAMES if name in found}


def cases() -> list[type[unittest.TestCase]]:
    """Return their test cases, each with an executor of ours; none if this Python has none."""

    class Ours:
        def setUp(self) -> None:
            kwargs = getattr(self, "executor_kwargs", {})
            super().setUp()  # type: ignore[misc]
            kwargs = getattr(self, "executor_kwargs", kwargs)
            self.executor = dtm.Executor(**kwargs)

        def tearDown(self) -> None:
            self.executor.shutdown()
            super().tearDown()  # type: ignore[misc]

    parts: dict[str, Any] = {"executor_type": dtm.Executor, "worker_count": 5}
    return [
        type(name, (Ours, theirs, unittest.TestCase), parts) for name, theirs in _theirs().items()
    ]


def main() -> None:
    """Run them, or those that the command line names."""
    warnings.simplefilter("ignore")
    their_tests.play(cases(), NOT_ASKED, sys.argv[2:])


if __name__ == "__main__":
    dtm.start(main)
