"""How far a call is, shown by tqdm while its caller waits.

A thread of its own looks a few times a second how many results are in, and what the caller
has computed itself so far.  What other workers have computed counts when they send it, which is
within a second.

Threads: the one that looks only reads; it touches no lock of dtm's.

Rejected: to count in the runner, item by item or strip by strip.  It would cost every call
something, and the wish to see is rare.
"""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from dtm.errors import OptionError
from dtm.task import Call

LOOK_SECONDS = 0.1


@contextmanager
def shown(call: Call) -> Iterator[None]:
    """Show how far a call is until the block ends.

    Raises:
        OptionError: tqdm is not installed.
    """
    with _bar(call) as bar:
        over = threading.Event()
        watcher = threading.Thread(target=_follow, args=(call, bar, over), daemon=True)
        watcher.start()
        try:
            yield
        finally:
            over.set()
            watcher.join(1.0)
            _advance(bar, call.size if call.failure is None and not call.missing else call.done())


def _follow(call: Call, bar: Any, over: threading.Event) -> None:
    while not over.wait(LOOK_SECONDS):
        _advance(bar, call.done())


def _advance(bar: Any, count: int) -> None:
    if count > bar.n:
        bar.update(count - bar.n)


def _bar(call: Call) -> Any:
    from importlib import import_module

    try:
        bar = import_module("tqdm.auto").tqdm
    except ImportError:
        raise OptionError(
            "progress is shown by tqdm, which is not installed: pip install 'dtm[progress]'"
        ) from None
    return bar(total=call.size, desc=call.name, leave=True)
