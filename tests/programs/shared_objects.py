"""Uses of ``dtm.share``: prints, for each, whether all was right."""

from __future__ import annotations

import functools
import gc
import os
import sys
import tempfile
import threading
import time
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import scenarios
from large_data import lies_in_segment

from dtm import dtm
from dtm.handle import here

COUNT = 1 << 20
NAP = 0.01
PATIENCE = 30.0
kept: list[Any] = []
before = dtm.share({"made": "before the run"})


class Data:
    """Can be referred to weakly."""

    def __init__(self, number: int) -> None:
        self.table = np.full(COUNT, number % 256, np.uint8)


def look(handle: Any, index: int = 0) -> tuple[int, int, int, bool]:
    """Look at the data: who, which object, what is in it, whether in shared memory."""
    time.sleep(NAP)
    table = handle.value.table
    own = dtm.getWorkerId() == 0
    shared = lies_in_segment(table)
    return (
        dtm.getWorkerId(),
        id(table),
        int(table[index]),
        own or (shared and not table.flags.writeable),
    )


def right(found: list[tuple[int, int, int, bool]], number: int) -> bool:
    """Tell whether each worker has one object, shared, and with the right data."""
    return (
        {rank for rank, *_ in found} == set(range(dtm.size()))
        and len({(rank, obj) for rank, obj, _, _ in found}) == dtm.size()
        and all(value == number and shared for *_, value, shared in found)
    )


def of_closure(handle: Any) -> Callable[[int], tuple[int, int, int, bool]]:
    """Return a function that has a handle."""
    return lambda index: look(handle, index)


def made_here(_: int) -> tuple[int, Any]:
    """Share something from wherever this runs."""
    time.sleep(NAP)
    return dtm.getWorkerId(), dtm.share(Data(dtm.getWorkerId() + 100))


def keep(handle: Any) -> int:
    """Keep a handle in a global."""
    time.sleep(NAP)
    kept[:] = [handle]
    return dtm.getWorkerId()


def look_at_kept(_: int) -> tuple[int, int]:
    """Look at what was kept, if this worker has kept anything; forget it."""
    time.sleep(NAP)
    return dtm.getWorkerId(), int(kept[0].value.table[0]) if kept else -1


def forget(_: int) -> int:
    """Forget what was kept."""
    time.sleep(NAP)
    kept.clear()
    return dtm.getWorkerId()


def known(_: int) -> tuple[int, int]:
    """Return how many handles this worker knows."""
    time.sleep(NAP)
    gc.collect()
    return dtm.getWorkerId(), len(here.table._refs) if here.table else 0


def busy(item: tuple[Any, str]) -> bool:
    """On the owner: be busy until somebody else has looked; elsewhere: look."""
    handle, path = item
    deadline = time.monotonic() + PATIENCE
    if dtm.size() == 1 or dtm.getWorkerId():
        time.sleep(NAP)
        seen = int(handle.value.table[0]) == 9
        Path(path).touch()
        return seen
    while not os.path.exists(path) and time.monotonic() < deadline:
        pass
    return os.path.exists(path)


def everywhere(function: Callable[..., Any], items: list[Any]) -> list[Any]:
    """Run a map until every worker has had a part of it."""
    deadline = time.monotonic() + PATIENCE
    while True:
        found = dtm.map(function, items)
        ranks = {one[0] if isinstance(one, tuple) else one for one in found}
        if len(ranks) == dtm.size() or time.monotonic() > deadline:
            return found


def say(name: str, verdict: object) -> None:
    """Print one verdict."""
    print(name, bool(verdict))


def main() -> None:
    """Go through the uses."""
    size = dtm.size()
    scenarios.gather(size)
    items = 8 * size
    handle = dtm.share(Data(7))
    say("items", right(everywhere(look, [handle] * items), 7))
    nested = everywhere(lambda item: look(item["in"][0]), [{"in": [handle]}] * items)
    say("nested", right(nested, 7))
    say("closure", right(everywhere(of_closure(handle), list(range(items))), 7))
    say("partial", right(everywhere(functools.partial(look, handle), list(range(items))), 7))
    made = everywhere(made_here, list(range(items)))
    say("results", all(one.value.table[0] == rank + 100 for rank, one in made))
    again = dtm.map(lambda one: int(one.value.table[5]), [one for _, one in made])
    say("passed-on", again == [rank + 100 for rank, _ in made])
    everywhere(keep, [handle] * items)
    alone = weakref.ref(handle.value)
    del handle, made
    say("kept", all(value in (7, -1) for _, value in everywhere(look_at_kept, [0] * items)))
    say("before", set(dtm.map(lambda _: before.value["made"], range(items))) == {"before the run"})
    with tempfile.TemporaryDirectory() as directory:
        path = os.path.join(directory, "seen")
        say("busy", all(dtm.map(busy, [(dtm.share(Data(9)), path)] * items)))
    try:
        dtm.share(threading.Lock())
        say("unsendable", size == 1)
    except dtm_errors() as error:
        say("unsendable", "cannot be shared" in str(error))
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        everywhere(forget, [0] * items)
        gc.collect()
        if alone() is None and max(count for _, count in everywhere(known, [0] * items)) <= 4:
            break
    say("freed", alone() is None)
    say("few", max(count for _, count in everywhere(known, [0] * items)) <= 4)


def dtm_errors() -> type[Exception]:
    """Return what is raised for what cannot be shared."""
    from dtm.errors import SerializationError

    return SerializationError


if __name__ == "__main__":
    dtm.start(main)
    sys.exit(0)
