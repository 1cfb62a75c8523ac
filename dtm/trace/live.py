"""The live view: what the workers do, while they do it.

The root asks every worker once a second how it is (:mod:`dtm.run.status`) and keeps the answers of
the last minutes; :mod:`dtm.trace.live_server` shows them to whoever has the token.  In a large run
``MOST_ASKED`` workers are asked a second, one after the other, so the root spends no more on it.

    CLOSED --a port is there--> OPEN --the run ends, or an error--> CLOSED

What can go wrong: the port is taken, or a package is missing: a line on stderr says so, and the run
goes on.  A worker does not answer, since its code keeps the interpreter to itself: the age of what
is known of it is shown.  An error in here: it is told once, and the run goes on without the view.
A task forks: the child lets go of the port.

Shared attributes of ``LiveView``: ``_heard`` is written with the worker's lock held and emptied by
the asking thread (a deque); all others change in the asking thread, under ``_lock``, and are read
by requests, under ``_lock``.  Nobody takes the worker's lock while it holds this one.

Rejected: workers that report by themselves.  Those of a run that nobody watches would have to know
it, and would be woken a few times a second.  Also a process of its own for the server: it would
answer while the root keeps the interpreter to itself, and would have nothing new to tell.
"""

from __future__ import annotations

import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable
from time import perf_counter
from typing import TYPE_CHECKING, Any

from dtm.core.messages import Status, StatusRequest
from dtm.run.status import status
from dtm.trace.history import History
from dtm.trace.live_server import opened

if TYPE_CHECKING:
    from dtm.run.worker import Worker

PERIOD_SECONDS = 1.0
ANSWER_SECONDS = 0.1  # what is heard later belongs to the next round
MOST_ASKED = 40  # workers a second; each takes 0.2 ms of the root's processor time


class LiveView:
    """Asks the workers of a run how they are, and serves what they say.

    Args:
        worker: that of the root.
        port: where the view is served; True for any port.
    """

    def __init__(self, worker: Worker, port: bool | int) -> None:
        self._worker = worker
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._heard: deque[tuple[int, float, dict[str, Any]]] = deque()
        self._next = 1
        self._serial = 0
        self._thread = threading.Thread(target=self._ask_on, name="dtm-live", daemon=True)
        where = worker.comm.hosts[worker.comm.rank]
        self._server = opened(self, 0 if port is True else int(port), where)
        self._history = History(worker.comm.hosts, perf_counter())
        if self._server is not None:
            worker.view = self
            self._server.start()
            self._thread.start()

    def heard(self, source: int, message: Status) -> None:
        """Take the status of a worker.  Called with the worker's lock held."""
        self._heard.append((source, perf_counter(), message.values))

    def read(self, look: Callable[[History], Any]) -> Any:
        """Return what somebody finds in the history."""
        with self._lock:
            return look(self._history)

    def close(self) -> None:
        """End the view: the run is over."""
        self._over.set()
        self._worker.view = None
        if self._server is not None:
            self._server.stop()

    def fall_silent(self) -> None:
        """(In a child that a task has forked) let go of the port."""
        if self._server is not None:
            self._server.let_go()

    def _ask_on(self) -> None:
        try:
            while not self._over.is_set():
                self._ask()
                self._over.wait(ANSWER_SECONDS)
                said = [self._heard.popleft() for _ in range(len(self._heard))]
                with self._lock:
                    self._history.take(said, perf_counter())
                self._over.wait(PERIOD_SECONDS - ANSWER_SECONDS)
        except Exception:  # noqa: BLE001 - the top of a thread: what watches must not end the run
            if not self._over.is_set():
                sys.stderr.write(f"dtm: the live view ends, the run goes on:\n{_last_lines()}")
                self.close()

    def _ask(self) -> None:
        worker = self._worker
        others = worker.comm.size - 1
        with worker.lock:
            if worker.ended or self._over.is_set():
                return
            self._serial += 1
            self._heard.append((0, perf_counter(), status(worker)))
            absent = set(worker.comm.absent())
            for _ in range(min(others, MOST_ASKED)):
                rank = self._next
                self._next = rank % others + 1
                if rank not in absent:
                    worker.send(rank, StatusRequest(self._serial))
        worker.nudge()


def _last_lines() -> str:
    return "".join(traceback.format_exc(limit=3))
