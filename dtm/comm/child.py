"""Processes that this one has started: when each ended, and how; and how to end them all.

Where the system has them (Linux 5.3 and later) a pidfd says when, so that it can
be watched like a socket and waited for to the microsecond.  Elsewhere
``watchable`` is false, the end of the connection has to tell, and waiting means
looking again and again.

A worker that ends in the middle of a task leaves behind what the task has started, a shell
with its commands for example.  That would hold the worker's standard output open, and
launchers wait for the end of that; so ``end_descendants`` ends it.

Threads: an instance under the caller's lock (:mod:`dtm.comm.stream_manager`);
``end_descendants`` from any.

Rejected: a handler of SIGCHLD.  It belongs to the user's program.
"""

from __future__ import annotations

import os
import select
import signal
from contextlib import suppress
from time import monotonic, sleep
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from subprocess import Popen

_LOOK = 0.002
_GRACE = 0.2  # between SIGTERM and SIGKILL
_REAP = 5.0  # a process may be stuck in the kernel; then it is left to its fate


class Child:
    """A process that this one has started."""

    def __init__(self, process: Popen[bytes]) -> None:
        self.process = process
        self._pidfd = -1
        if hasattr(os, "pidfd_open"):
            try:
                self._pidfd = os.pidfd_open(process.pid)
            except OSError:  # an old kernel, or a sandbox that forbids it
                self._pidfd = -1

    def __repr__(self) -> str:
        return f"<Child {self.process.pid}: {self.outcome() or 'running'}>"

    @property
    def watchable(self) -> bool:
        """Whether the descriptor becomes readable at the end of the process."""
        return self._pidfd >= 0

    def fileno(self) -> int:
        """Return the pidfd, -1 where there is none."""
        return self._pidfd

    def close(self) -> None:
        """Close the pidfd."""
        if self._pidfd >= 0:
            os.close(self._pidfd)
            self._pidfd = -1

    def outcome(self) -> str | None:
        """Say how the process ended ("killed by SIGKILL"), None while it runs."""
        status = self.process.poll()
        if status is None:
            return None
        if status >= 0:
            return f"exited with status {status}"
        try:
            return f"killed by {signal.Signals(-status).name}"
        except ValueError:  # a real-time signal
            return f"killed by signal {-status}"

    def wait(self, timeout: float) -> bool:
        """Wait for the end, reap the process; return whether it has ended."""
        deadline = monotonic() + timeout
        while self.process.poll() is None:
            left = deadline - monotonic()
            if left <= 0:
                return False
            if self.watchable:
                poll = select.poll()
                poll.register(self._pidfd, select.POLLIN)
                poll.poll(left * 1000)
            else:
                sleep(min(_LOOK, left))
        return True


def end(children: Iterable[Child]) -> None:
    """Make processes end: SIGTERM, soon after SIGKILL.  Reaps each."""
    running = [child for child in children if child.process.poll() is None]
    for child in running:
        child.process.terminate()
    deadline = monotonic() + _GRACE
    stubborn = [child for child in running if not child.wait(deadline - monotonic())]
    for child in stubborn:
        child.process.kill()
    deadline = monotonic() + _REAP
    for child in stubborn:
        child.wait(deadline - monotonic())


def end_descendants() -> None:
    """End all that this process has started and that runs still: SIGTERM, soon after SIGKILL.

    Where the system does not tell who was started by whom (other than Linux), nobody is ended.
    """
    for number in (signal.SIGTERM, signal.SIGKILL):
        found = list(_descendants(os.getpid()))
        for process in found:
            with suppress(OSError):  # it has ended meanwhile
                os.kill(process, number)
        deadline = monotonic() + _GRACE
        while any(map(_runs, found)) and monotonic() < deadline:
            sleep(_LOOK)


def _descendants(process: int) -> Iterator[int]:
    with suppress(OSError):
        for thread in os.listdir(f"/proc/{process}/task"):
            with open(f"/proc/{process}/task/{thread}/children", encoding="ascii") as children:
                for child in map(int, children.read().split()):
                    yield child
                    yield from _descendants(child)


def _runs(process: int) -> bool:
    """Whether a process is there, and no zombie."""
    try:
        with open(f"/proc/{process}/stat", encoding="utf-8", errors="replace") as stat:
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except (OSError, IndexError):
        return False
