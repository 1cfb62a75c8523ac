"""Starting the workers of a local run: this program, once more for each of them.

The workers of a run inside a program (:mod:`dtm.run.inside`) do not run it: they are interpreters
with the same options and the same ``sys.path``, which serve (:mod:`dtm.run.serving`) what the root
has left for them in a file of the run's directory.

The root first makes everything that joins the workers (:mod:`dtm.comm.local`), then starts them,
and waits for none.  A worker finds in the environment what it needs to join.  It removes that (a
program that a task starts is no worker), and checks that the root is its parent: a program that
it ran before joining finds the same variable, and is no worker either.

Ctrl-C goes to all processes of a terminal, but only the root may act on it.  So a worker starts
with SIGINT blocked, and at joining replaces that by a handler which does nothing: not by SIG_IGN,
which the commands that tasks start would inherit.

Called in the main thread, before there is a run.

Rejected: ``os.posix_spawn``.  It is 0.15 ms a worker faster than ``Popen`` and spares 5 ms of
imports, but cannot set the working directory, and which descriptors it passes on depends on the C
library.  Also ``fork``: a process with threads, MPI or a GPU does not survive that.
"""

from __future__ import annotations

import os
import select
import signal
import socket
import sys
from contextlib import ExitStack, contextmanager, suppress
from typing import TYPE_CHECKING

from dtm.comm.child import Child, end
from dtm.comm.local import LocalRoot, LocalWorker, listen, make_directory, remove_directory
from dtm.errors import CommunicationError
from dtm.launch.command_line import command_line, start_directory, why_not_again
from dtm.launch.cores import thread_variables

if TYPE_CHECKING:
    from collections.abc import Iterator
    from subprocess import Popen
    from types import FrameType

INVITATION = "DTM_WORKER"
_ORDERS = "orders"  # the file for those who serve


def start_workers(size: int) -> LocalRoot:
    """Start ranks 1 to ``size - 1`` and return the manager of rank 0.

    Raises:
        CommunicationError: the program cannot be run again, or the system refuses.
    """
    if size == 1:
        return LocalRoot("", {}, {})
    command = command_line()
    if command is None:
        message = f"no worker can be started: {why_not_again()}"
        raise CommunicationError(message)
    return _start(command, size, start_directory())


def start_servers(size: int, orders: bytes) -> LocalRoot:
    """Start ranks 1 to ``size - 1``, which do not run the program; return the manager of rank 0.

    Args:
        size: how many workers the run has, at least 2.
        orders: what :func:`joined_server` returns there.

    Raises:
        CommunicationError: the system refuses.
    """
    from subprocess import _args_from_interpreter_flags  # type: ignore[attr-defined]

    paths = [path for path in sys.path if isinstance(path, str)]
    text = f"import sys; sys.path[:] = {paths!r}; from dtm.run.serving import serve; serve()"
    directory = None
    with suppress(OSError):  # it may have been removed
        directory = os.getcwd()
    command = [sys.executable, *_args_from_interpreter_flags(), "-c", text]
    return _start(command, size, directory, orders)


def joined_server() -> tuple[LocalWorker, bytes]:
    """Join the run that this process serves; return its manager and what the root has ordered.

    Raises:
        CommunicationError: nobody has started this process to serve.
        SystemExit: the root is dead.
    """
    directory = os.environ.get(INVITATION, "").split(":", 5)[-1]
    joined = join_run()
    if joined is None:
        message = "only a run that goes on may start this"
        raise CommunicationError(message)
    try:
        with open(os.path.join(directory, _ORDERS), "rb") as file:
            return joined, file.read()
    except OSError:  # the root has ended the run already
        raise SystemExit(0) from None


def is_invited() -> bool:
    """Whether this process was started to join a local run, and has not joined it yet."""
    *numbers, _ = os.environ.get(INVITATION, "").split(":", 5)
    return bool(numbers) and numbers[-1] == str(os.getppid())


def _start(
    command: list[str], size: int, start: str | None, orders: bytes | None = None
) -> LocalRoot:
    directory = make_directory()
    links: dict[int, socket.socket] = {}
    processes: dict[int, Popen[bytes]] = {}
    try:
        if orders is not None:
            with open(os.path.join(directory, _ORDERS), "wb") as file:
                file.write(orders)
        with interrupts_blocked():
            _start_all(command, size, start, directory, links, processes)
            return LocalRoot(directory, links, processes)
    except OSError as error:
        children = [Child(process) for process in processes.values()]
        end(children)
        for child in children:
            child.close()
        for link in links.values():
            link.close()
        remove_directory(directory)
        message = f"only {len(processes)} of {size - 1} workers could be started: {error}"
        raise CommunicationError(message) from error


def join_run() -> LocalWorker | None:
    """Join the run that this process was started for, None if it was not started for one.

    Raises:
        CommunicationError: what the root passed on has been lost.
        SystemExit: the root is dead.
    """
    invitation = os.environ.pop(INVITATION, None)
    if invitation is None:
        return None
    *numbers, directory = invitation.split(":", 5)
    try:
        rank, size, listener, root, parent = map(int, numbers)
    except ValueError as error:
        message = f"{INVITATION} is for dtm's own use, and {invitation!r} is not understood"
        raise CommunicationError(message) from error
    if os.getppid() != parent:
        if _is_alive(parent) and not _is_cut_off(root):
            return None
        remove_directory(directory)
        raise SystemExit(1)  # as a worker ends whose root dies later: without a word
    _leave_interrupts_to_the_root()
    try:
        return LocalWorker(rank, size, directory, _inherited(listener), _inherited(root), parent)
    except OSError as error:
        message = f"worker {rank} could not join its run: {error}"
        raise CommunicationError(message) from error


def _start_all(
    command: list[str],
    size: int,
    start: str | None,
    directory: str,
    links: dict[int, socket.socket],
    processes: dict[int, Popen[bytes]],
) -> None:
    """Start the workers; note each, and the root's end of its link, in the last two."""
    from subprocess import DEVNULL, Popen

    environment = {**os.environ, **thread_variables(os.environ)}
    passed: dict[int, tuple[int, int]] = {}
    with ExitStack() as theirs:
        for rank in range(1, size):
            links[rank], link = socket.socketpair()
            theirs.enter_context(link)
            listener = theirs.enter_context(listen(directory, rank, size))
            passed[rank] = listener.fileno(), link.fileno()
        for rank, descriptors in passed.items():
            told = map(str, (rank, size, *descriptors, os.getpid(), directory))
            environment[INVITATION] = ":".join(told)
            processes[rank] = Popen(  # noqa: S603 - our own command line
                command,
                env=environment,
                stdin=DEVNULL,
                pass_fds=descriptors,
                cwd=start,
            )


@contextmanager
def interrupts_blocked() -> Iterator[None]:
    """Block SIGINT in this thread, and so in what it starts; here it is delivered afterwards."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _leave_interrupts_to_the_root() -> None:
    with suppress(ValueError):  # not the main thread: SIGINT stays blocked
        signal.signal(signal.SIGINT, _do_nothing)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, {signal.SIGINT})


def _do_nothing(_number: int, _frame: FrameType | None) -> None:
    """Handle SIGINT."""


def _inherited(descriptor: int) -> socket.socket:
    inherited = socket.socket(fileno=descriptor)
    inherited.set_inheritable(False)
    return inherited


def _is_alive(process: int) -> bool:
    with suppress(PermissionError):
        try:
            os.kill(process, 0)
        except ProcessLookupError:
            return False
    return True


def _is_cut_off(descriptor: int) -> bool:
    """Whether this is a socket whose other end is closed: a dead root may be a zombie for long."""
    poll = select.poll()
    poll.register(descriptor, 0)
    return any(events & select.POLLHUP for _, events in poll.poll(0))
