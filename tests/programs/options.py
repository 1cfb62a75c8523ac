"""Runs with the options that are given as JSON, and prints as JSON what came of it."""

from __future__ import annotations

import json
import sys
import time

from dtm import dtm
from dtm.comm.serial import SingleManager
from dtm.core.balancer import Balancer
from dtm.errors import OptionError


class Mine(SingleManager):
    """A communication manager of the user's."""


class Policy(Balancer):
    """A load balancer of the user's."""

    made = 0

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        Policy.made += 1


def work(item: int) -> int:
    """Take a while; return the worker."""
    time.sleep(0.004)
    return dtm.getWorkerId()


def long_enough(workers: int) -> list[int]:
    """Return who ran what, once all have been seen or after a while."""
    deadline = time.monotonic() + 30
    while True:
        ran = dtm.map(work, range(120))
        if len(set(ran)) >= workers or time.monotonic() > deadline:
            return ran


def main() -> dict[str, object]:
    """Return what is known of the run."""
    ran = long_enough(int(sys.argv[1]))
    modules = [sys.modules[name] for name in ("__main__", "options") if name in sys.modules]
    used = any(module.Policy.made for module in modules)
    return {"workers": sorted(set(ran)), "ran": ran, "policy": used}


if __name__ == "__main__":
    given = json.loads(sys.argv[2])
    for name, value in given.items():
        if value == "<class>":
            given[name] = Mine
        elif value == "<object>":
            given[name] = Mine()
        elif value == "<policy>":
            given[name] = Policy
    try:
        dtm.setOptions(**given)
        found = dtm.start(main)
    except OptionError as error:
        print(json.dumps({"error": str(error)}))
        sys.exit(3)
    print(json.dumps(found))
