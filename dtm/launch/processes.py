"""The workers of this host: started, invited, listened to, and ended.

Each is a process in a session of its own, so that a signal reaches it and what its
tasks have started, and Ctrl-C at a terminal reaches none of them by itself.  Its
output comes by two pipes and goes on in whole lines.  A worker has ended when its
process has and its pipes are empty; a program that a task has left in the
background may hold the pipes open, and is not waited for.

If this process is killed the kernel ends the workers (Linux; elsewhere they find
the root gone).

What goes up: :class:`Output`, :class:`Ended`, and from the root :class:`Address` and
:class:`Lost`.

Threads: the loop's.

Rejected: ``os.killpg`` once the process is reaped: its number may belong to others.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import sys
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import partial
from subprocess import DEVNULL, PIPE, Popen
from typing import Any

from dtm.comm.child import Child
from dtm.comm.tcp.address import allow_descriptors
from dtm.errors import CommunicationError
from dtm.launch.blas_threads import thread_variables
from dtm.launch.invitation import INVITATION
from dtm.launch.loop import Loop
from dtm.launch.messages import Address, Ended, Lines, Lost, Message, Output

_DESCRIPTORS = 5  # of each worker: three pipes or sockets, two that tell of its end
_OTHERS = 64
_READ = 1 << 16
_LONGEST_LINE = 1 << 20
_DRAIN = 0.5  # seconds that pipes may stay open after the process
_LOOK = 0.05  # seconds between looks where there are no pidfds
_GRACE = 0.3  # seconds between SIGTERM and SIGKILL
_DEATH_SIGNAL = 1  # of prctl


class Crew:
    """The workers with these ranks on this host.

    Args:
        loop: calls back.
        ranks: theirs, or as many Nones for free ones.
        command, environment: what each runs.
        invitation: what they are told, but for rank, bind and address.
        emit: takes what goes up.
    """

    def __init__(
        self,
        loop: Loop,
        ranks: Sequence[int | None],
        command: Sequence[str],
        environment: Mapping[str, str],
        invitation: Mapping[str, Any],
        emit: Callable[[Message], object],
    ) -> None:
        self._loop = loop
        self._ranks = ranks
        self._command = command
        self._environment = {**environment, **thread_variables(environment)}
        self._invitation = dict(invitation)
        self._emit = emit
        self._members: list[Member] = []
        self._invited = False

    def start(self, bind: str | None) -> None:
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
                member = Member(
                    self._loop, told, self._command, self._environment, protect, self._emit
                )
            except OSError as error:
                wanted = len(self._ranks)
                raise CommunicationError(
                    f"only {number} of {wanted} workers could be started: {error.strerror}"
                ) from error
            self._members.append(member)
            if rank == 0:
                member.invite({**self._invitation, "rank": 0, "address": None})
                member.hear_root()

    def invite(self, address: str) -> None:
        """Let the others join the root."""
        self._invited = True
        for rank, member in zip(self._ranks, self._members):
            if rank != 0:
                member.invite({**self._invitation, "rank": rank, "address": address})

    def signal_root(self, number: int) -> None:
        """Pass a signal on to the root: an interrupt to all that it has started too."""
        for rank, member in zip(self._ranks, self._members):
            if rank == 0:
                member.signal(number)

    def tell_root(self, ranks: Sequence[int], reason: str) -> None:
        """Tell the root, if it is here, that others have ended."""
        for rank, member in zip(self._ranks, self._members):
            if rank == 0:
                member.say([list(ranks), reason])

    def dismiss(self) -> None:
        """The root has ended: end those who have not joined it.

        If it never came to its start, the others may not either: these go on, but must not wait.
        """
        for rank, member in zip(self._ranks, self._members):
            if rank != 0 and not self._invited:
                member.say(None)
            elif rank != 0 and not member.has_joined():
                member.signal_group(signal.SIGTERM)

    def pause(self, *, reading: bool) -> None:
        """Cease to read what the workers write, or go on."""
        for member in self._members:
            member.pause(reading=reading)

    @property
    def ended(self) -> bool:
        """Whether none is left."""
        return all(member.ended for member in self._members)

    def end(self) -> None:
        """End all with all that they have started; does not wait for long."""
        running = [member for member in self._members if not member.ended]
        for member in running:
            member.signal_group(signal.SIGTERM)
        self._loop.run_until(lambda: all(member.ended for member in running), _GRACE)
        for member in running:
            member.signal_group(signal.SIGKILL)
        self._loop.run_until(lambda: self.ended, _DRAIN + _GRACE)


class Member:
    """One worker's process, seen from outside."""

    def __init__(
        self,
        loop: Loop,
        rank: int,
        command: Sequence[str],
        environment: Mapping[str, str],
        protect: Callable[[], None] | None,
        emit: Callable[[Message], object],
    ) -> None:
        self.ended = False
        self._joined = False
        self._told: Lines | None = None  # by the root
        self._loop = loop
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
        self._pipes: dict[int, tuple[str, Lines]] = {}
        for name, pipe in (("stdout", self._process.stdout), ("stderr", self._process.stderr)):
            assert pipe is not None
            os.set_blocking(pipe.fileno(), False)
            self._pipes[pipe.fileno()] = name, Lines(_LONGEST_LINE, strict=False)
        self.pause(reading=True)
        self._watch()

    def invite(self, invitation: Mapping[str, Any]) -> None:
        """Tell the worker of its run."""
        self.say(invitation)

    def say(self, what: Any) -> None:
        """Write a line of JSON to the worker."""
        try:
            self._line.sendall(json.dumps(what).encode() + b"\n")
        except OSError:  # it has ended, which is found out elsewhere; or has not read for ages
            self._drop_line()

    def has_joined(self) -> bool:
        """Whether the worker has said, by a byte, that it has joined."""
        if not self._joined and self._line.fileno() >= 0:
            with suppress(OSError):  # nothing has been said
                self._joined = self._line.recv(1) != b""
        return self._joined

    def hear_root(self) -> None:
        """Take what the root tells, line by line: its address, then whom it has lost."""
        self._told = Lines(_READ, strict=True)
        self._loop.read(self._line.fileno(), self._listen)

    def _listen(self) -> None:
        try:
            piece = self._line.recv(_READ)
        except OSError:  # it has ended with its invitation unread, or has said nothing more
            piece = b""
        if not piece:
            self._loop.read(self._line.fileno(), None)
        assert self._told is not None
        for line in self._told.feed(piece).splitlines():
            told = json.loads(line)
            self._emit(Address(told) if isinstance(told, str) else Lost(told))

    def signal(self, number: int) -> None:
        """Send a signal to the worker; an interrupt to what it has started too."""
        if number == signal.SIGINT:
            self.signal_group(number)
        elif not self.ended and self._process.returncode is None:
            self._process.send_signal(number)

    def signal_group(self, number: int) -> None:
        """Send a signal to the worker and what it has started."""
        if self._process.returncode is None:
            with suppress(ProcessLookupError, PermissionError):
                os.killpg(self._process.pid, number)

    def pause(self, *, reading: bool) -> None:
        """Cease to read, or go on."""
        for descriptor in self._pipes:
            act = partial(self._read, descriptor)
            self._loop.read(descriptor, act if reading else None)

    def _watch(self) -> None:
        if self._child.watchable:
            self._loop.read(self._child.fileno(), self._exited)
        else:
            self._loop.later(_LOOK, self._look)

    def _look(self) -> None:
        if _has_ended(self._process.pid):
            self._exited()
        else:
            self._loop.later(_LOOK, self._look)

    def _exited(self) -> None:
        if self._child.watchable:
            self._loop.read(self._child.fileno(), None)
        if _failed(self._process.pid):
            self.signal_group(signal.SIGKILL)  # whatever it has started and can no longer end
        self._process.wait()
        self._child.close()
        if self._told is not None and self._line.fileno() >= 0:
            self._listen()
        self._drop_line()
        if self._pipes:
            self.pause(reading=True)
            self._loop.later(_DRAIN, self._conclude)
        else:
            self._conclude()

    def _drop_line(self) -> None:
        if self._line.fileno() >= 0:
            self._loop.read(self._line.fileno(), None)
            self._line.close()

    def _read(self, descriptor: int) -> None:
        name, lines = self._pipes[descriptor]
        try:
            data = os.read(descriptor, _READ)
        except BlockingIOError:
            return
        whole = lines.feed(data) if data else lines.rest()
        if whole:
            self._emit(Output(self._rank, name, whole.decode("utf-8", "surrogateescape")))
        if not data:
            self._drop(descriptor)
            if not self._pipes and self._process.returncode is not None:
                self._conclude()

    def _drop(self, descriptor: int) -> None:
        del self._pipes[descriptor]
        self._loop.read(descriptor, None)
        for pipe in (self._process.stdout, self._process.stderr):
            if pipe is not None and not pipe.closed and pipe.fileno() == descriptor:
                pipe.close()

    def _conclude(self) -> None:
        if self.ended:
            return
        self.ended = True
        for descriptor, (name, lines) in list(self._pipes.items()):
            rest = lines.rest().decode("utf-8", "surrogateescape")
            if rest:
                self._emit(Output(self._rank, name, rest))
            self._drop(descriptor)
        self._emit(Ended(self._rank, self._process.returncode))


def _death_signal() -> Callable[[], None] | None:
    """Return what makes a started process die with this one, None where there is no such thing."""
    if sys.platform != "linux":
        return None
    import ctypes

    prctl = ctypes.CDLL(None).prctl
    return lambda: prctl(_DEATH_SIGNAL, signal.SIGKILL)


def _has_ended(process: int) -> bool:
    return os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None


def _failed(process: int) -> bool:
    """Whether a process that has ended, and is not reaped yet, ended badly."""
    ending = os.waitid(os.P_PID, process, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return ending is not None and ending.si_status != 0
