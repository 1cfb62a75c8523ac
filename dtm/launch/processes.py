"""The worker processes of this host: started, invited, listened to, and ended.

Each is in a session of its own, so that a signal reaches it with all that its tasks have started,
and Ctrl-C at a terminal reaches none of them directly.  Its output comes through two pipes and goes
on in whole lines.  A worker has ended when its process has and its pipes are empty; a program
that a task has left in the background may hold the pipes open, and is not waited for.

If this process is killed, the kernel ends the workers (Linux; elsewhere they find the root gone).

What goes up: :class:`Output`, :class:`Ended`, and from the root :class:`Address` and
:class:`Lost`.

Threads: the event loop's.

Rejected: ``asyncio``'s subprocesses, which reap a process before its session can be ended; from
then on the number of the session may belong to others.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from subprocess import DEVNULL, PIPE, Popen
from typing import IO, Any

from dtm.comm.child import Child
from dtm.comm.tcp.address import allow_descriptors
from dtm.errors import CommunicationError
from dtm.launch.channel import Lines, exited, read, read_now, status
from dtm.launch.cores import thread_variables
from dtm.launch.messages import INVITATION, Address, Ended, Lost, Message, Output

_DESCRIPTORS = 5  # of each worker: three pipes or sockets, two that tell of its end
_OTHERS = 64
_LONGEST_LINE = 1 << 20
_DRAIN = 0.5  # seconds that pipes may stay open after the process
_GRACE = 0.3  # seconds between SIGTERM and SIGKILL
_DEATH_SIGNAL = 1  # of prctl
_ENVIRONMENT = ("SSH_", "XDG_", "DBUS_")
_OF_THE_HOST = frozenset({"HOSTNAME", "HOST", "DISPLAY", "XAUTHORITY", "TERM_SESSION_ID"})

Emit = Callable[[Message], object]


def is_of_the_host(variable: str) -> bool:
    """Whether a variable of the environment speaks of a host or a session, not of the program."""
    return variable in _OF_THE_HOST or variable.startswith(_ENVIRONMENT)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of workers: this one, without what is a host's or a worker's."""
    own = {"DTM_WORKER", INVITATION}
    return {
        name: value
        for name, value in environ.items()
        if name not in own and not is_of_the_host(name)
    }


class Workers:
    """The workers with these ranks on this host.

    Args:
        ranks: theirs, or as many Nones for free ones.
        command, environment: what each runs.
        invitation: the fields of their invitations, without rank, address and bind.
        emit: takes what goes up.
        room: while it is not set, nothing is read from running workers.
    """

    def __init__(
        self,
        ranks: Sequence[int | None],
        command: Sequence[str],
        environment: Mapping[str, str],
        invitation: Mapping[str, Any],
        emit: Emit,
        room: asyncio.Event,
    ) -> None:
        self._ranks = ranks
        self._command = command
        self._environment = {**environment, **thread_variables(environment)}
        self._invitation = dict(invitation)
        self._emit = emit
        self._room = room
        self._started: list[Worker] = []
        self._root: Worker | None = None
        self._invited = False

    def start(self, tasks: asyncio.TaskGroup, bind: str | None) -> None:
        """Start all; the root is invited at once.

        Raises:
            CommunicationError: the system does not let so many be started.
        """
        self._invitation["bind"] = bind
        protect = _death_signal()
        allow_descriptors(len(self._ranks) * _DESCRIPTORS + _OTHERS)
        for number, rank in enumerate(self._ranks):
            told = number if rank is None else rank
            try:
                worker = Worker(told, self._command, self._environment, protect, self._emit)
            except OSError as error:
                wanted = len(self._ranks)
                raise CommunicationError(
                    f"only {number} of {wanted} workers could be started: {error.strerror}"
                ) from error
            self._started.append(worker)
            worker.task = tasks.create_task(worker.serve(tasks, self._room, is_root=rank == 0))
            if rank == 0:
                self._root = worker
                worker.say({**self._invitation, "rank": 0, "address": None})

    def invite(self, address: str) -> None:
        """Let the others join the root."""
        self._invited = True
        for rank, worker in zip(self._ranks, self._started):
            if rank != 0:
                worker.say({**self._invitation, "rank": rank, "address": address})

    def signal_root(self, number: int) -> None:
        """Pass a signal on to the root, if it is here: an interrupt to what it has started too."""
        if self._root is not None:
            self._root.signal(number, group=number == signal.SIGINT)

    def tell_root(self, ranks: Sequence[int], reason: str) -> None:
        """Tell the root, if it is here, that others have ended."""
        if self._root is not None:
            self._root.say([list(ranks), reason])

    def dismiss(self) -> None:
        """The root has ended: end the workers that have not joined it.

        If it has never listened, the others may not have come to their start either: these go
        on, but must not wait for it.
        """
        for worker in self._started:
            if worker is self._root:
                continue
            if not self._invited:
                worker.say(None)
            elif not worker.has_joined():
                worker.signal(signal.SIGTERM)

    async def end(self) -> None:
        """End all with all that they have started; does not wait for long."""
        try:
            for number, seconds in ((signal.SIGTERM, _GRACE), (signal.SIGKILL, _DRAIN + _GRACE)):
                running = [worker for worker in self._started if not worker.task.done()]
                for worker in running:
                    worker.signal(number)
                if running:
                    await asyncio.wait([worker.task for worker in running], timeout=seconds)
        finally:
            for worker in self._started:
                worker.task.cancel()


class Worker:
    """One worker's process, seen from outside.

    Attributes:
        task: runs ``serve``.
    """

    task: asyncio.Task[None]

    def __init__(
        self,
        rank: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        protect: Callable[[], None] | None,
        emit: Emit,
    ) -> None:
        self._joined = False
        self._rank = rank
        self._emit = emit
        self._line, theirs = socket.socketpair()
        self._line.setblocking(False)
        with theirs:
            self._process = Popen(  # noqa: S603 - the user's own program
                command,
                env={**environment, INVITATION: f"{theirs.fileno()}:{os.getpid()}"},
                stdin=DEVNULL,
                stdout=PIPE,
                stderr=PIPE,
                pass_fds=(theirs.fileno(),),
                start_new_session=True,
                preexec_fn=protect,  # noqa: PLW1509 - there is one thread, and all is loaded
            )
        self._child = Child(self._process)
        self._told = Lines(_LONGEST_LINE, strict=True)  # by the root
        self._outputs: dict[str, tuple[IO[bytes], Lines]] = {}
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._outputs[name] = pipe, Lines(_LONGEST_LINE, strict=False)

    async def serve(self, tasks: asyncio.TaskGroup, room: asyncio.Event, *, is_root: bool) -> None:
        """Pass on what the worker writes until it has ended; report its end."""
        reading = [tasks.create_task(self._read(name, room)) for name in self._outputs]
        listening = [tasks.create_task(self._listen())] if is_root else []
        try:
            await exited(self._child)
            ending = status(self._process.pid)
            if ending is not None and ending.si_status != 0:
                self.signal(signal.SIGKILL)  # whatever it has started and can no longer end
            self._process.wait()
            await asyncio.wait(reading, timeout=_DRAIN)
        finally:
            self.signal(signal.SIGKILL)
            self._child.wait(_GRACE)
            for task in (*reading, *listening):
                task.cancel()
            await asyncio.wait((*reading, *listening))  # before their descriptors are closed
            if is_root:
                self._hear(read_now(self._line.fileno()) or b"")
            self._close()
        self._emit(Ended(self._rank, self._process.returncode))

    def say(self, what: Any) -> None:
        """Write a line of JSON to the worker."""
        try:
            self._line.sendall(json.dumps(what).encode() + b"\n")
        except OSError:  # it has ended, which is found out elsewhere; or has not read for ages
            with suppress(OSError):
                self._line.shutdown(socket.SHUT_WR)

    def has_joined(self) -> bool:
        """Whether the worker has said, by a byte, that it has joined."""
        if not self._joined and self._line.fileno() >= 0:
            self._joined = bool(read_now(self._line.fileno()))
        return self._joined

    def signal(self, number: int, *, group: bool = True) -> None:
        """Send a signal to the worker, and to what it has started if ``group``."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                (os.killpg if group else os.kill)(self._process.pid, number)

    async def _read(self, name: str, room: asyncio.Event) -> None:
        pipe, lines = self._outputs[name]
        while True:
            await room.wait()
            data = await read(pipe.fileno())
            if not data:
                return
            self._pass_on(name, lines.feed(data))

    async def _listen(self) -> None:
        while data := await read(self._line.fileno()):
            self._hear(data)

    def _hear(self, data: bytes) -> None:
        """Take what the root tells, line by line: its address, then the ranks it has lost."""
        for line in self._told.feed(data).splitlines():
            told = json.loads(line)
            self._emit(Address(told) if isinstance(told, str) else Lost(told))

    def _pass_on(self, name: str, data: bytes) -> None:
        if data:
            self._emit(Output(self._rank, name, data.decode("utf-8", "surrogateescape")))

    def _close(self) -> None:
        """Pass on what is left in the pipes, and close everything."""
        for name, (pipe, lines) in self._outputs.items():
            self._pass_on(name, lines.feed(read_now(pipe.fileno()) or b"") + lines.rest())
            pipe.close()
        self._line.close()
        self._child.close()


def _death_signal() -> Callable[[], None] | None:
    """Return what makes a started process die with this one, None where there is no such thing."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_DEATH_SIGNAL, signal.SIGKILL)
