"""CPython's own tests of pools, held against ``dtm.Pool``; prints a line for each as JSON.

They are taken from the interpreter that runs this (``test._test_multiprocessing``).  What is not
about the interface of a pool, but about processes that belong to it, is in ``NOT_ASKED``
with the reason.
"""

from __future__ import annotations

import multiprocessing
import sys
import unittest
import warnings
from typing import Any

from dtm import dtm
from tests import their_tests

NOT_ASKED = {
    "test_map_unplicklable": "what cannot be sent runs where it was called, which is no error",
    "test_async_timeout": "who waits runs what no other worker has taken for a while; ours has one",
    "test_make_pool": "asks for the list of the pool's processes; its numbers are tested by ours",
    "test_traceback": "wants multiprocessing's own class for the remote traceback",
    "test_map_no_failfast": "map raises as soon as the smallest failing index is known",
    "test_resource_warning": "a pool of dtm holds nothing that could leak",
    "test_unpickleable_result": "what runs at home is not pickled; abroad it is dtm's own error",
    "test_pool_worker_lifetime": "asks for the identities of the pool's processes",
    "test_worker_finalization_via_atexit_handler_of_multiprocessing": "a program without dtm",
}
NAMES = ("_TestPool", "_TestPoolWorkerErrors", "_TestPoolWorkerLifetime")


def cases() -> list[type[unittest.TestCase]]:
    """Return their test cases, with our pool in the place of theirs."""
    from test import _test_multiprocessing as theirs

    parts: dict[str, Any] = {"TYPE": "processes", "Pool": dtm.Pool}
    return [type(name, (getattr(theirs, name), unittest.TestCase), parts) for name in NAMES]


def main() -> None:
    """Run them, or those that the command line names."""
    warnings.simplefilter("ignore")
    multiprocessing.Pool = dtm.Pool  # type: ignore[assignment]
    their_tests.play(cases(), NOT_ASKED, sys.argv[2:])


if __name__ == "__main__":
    dtm.start(main)
