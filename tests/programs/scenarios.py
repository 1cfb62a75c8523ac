"""What programs under test have in common: scenarios that are run one after another.

A scenario is a function whose name begins with ``check_``.  The root runs all of
them in one run, or the one that is named, and prints for each a line of JSON with
its name and what went wrong, if anything did.
"""

from __future__ import annotations

import json
import sys
import time
import traceback
from collections.abc import Callable
from typing import Any

from dtm import dtm

ITEMS = 60
NAP = 0.02
PATIENCE = 40.0


def who(_: object) -> int:
    """Return the worker that runs this item, after a nap that lets others have some."""
    time.sleep(NAP / 4)
    return dtm.getWorkerId()


def gather(workers: int) -> None:
    """Wait until that many workers take part, so that what follows finds them awake."""
    deadline = time.monotonic() + PATIENCE
    while len(set(dtm.map(who, range(8 * workers)))) < workers:
        assert time.monotonic() < deadline, "some worker has never run anything"


class Elsewhere:
    """Calls a function on the workers other than the root, where items just take their time."""

    def __init__(self, function: Callable[[int], Any]) -> None:
        self.function = function

    def __call__(self, item: int) -> Any:
        """Run one item."""
        time.sleep(NAP)
        return item if dtm.getWorkerId() == 0 else self.function(item)


def failure_elsewhere(function: Callable[[int], Any]) -> BaseException:
    """Return what a map raises whose items call the function on other workers only."""
    return failure_of(lambda: dtm.map(Elsewhere(function), range(ITEMS)))


def failure_of(action: Callable[[], object]) -> BaseException:
    """Return what an action raises."""
    try:
        result = action()
    except BaseException as error:
        return error
    raise AssertionError(f"nothing was raised, it returned {result!r}"[:300])


def chosen(module: dict[str, Any], names: list[str]) -> list[str]:
    """Return the names of the scenarios of a module that are wanted."""
    return names or [name for name in module if name.startswith("check_")]


def run_all(module: dict[str, Any], workers: int, names: list[str]) -> None:
    """Run scenarios on the root and print what came of each."""
    gather(workers)
    for name in chosen(module, names):
        outcome = "kept"
        try:
            module[name]()
        except BaseException:
            outcome = traceback.format_exc()
        print(json.dumps({"name": name, "outcome": outcome}), flush=True)
    print("all run", file=sys.stderr)
