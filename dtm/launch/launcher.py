"""The launcher: the process in the user's terminal that starts a run on hosts.

It is no worker.  It makes the credentials of the run, has an agent started on each
host (:mod:`dtm.launch.node`), and stays for signals, output and exit status.  How far
the run has come is its ``stage``, which changes by ``TRANSITIONS``:

    CALLING --all hosts ready--> RUNNING --root ended--> PARTING --all ended--> OVER

No worker is started before every host has said that it can do its part: a host that is
down costs a sentence, not half a run.  Whatever ends it, all that it has started is ended
before it leaves, and what comes up meanwhile, when it is OVER, changes nothing more.  If it
dies without a word, its agents find their input ended, and do the same.

What can go wrong while it runs:

* a worker's process ends badly, or a host cannot be heard: the root is told who and
  how, and raises :class:`WorkerLostError`; where ``main`` has ended well before it
  could, a line says so here;
* the root's host cannot be heard: the run is over, with status 1.

Threads: the loop's; :mod:`dtm.launch.terminal` has one of its own.

Rejected: the launcher as rank 0.  Its terminal would be rank 0's, but a launch from a
login node would compute there.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from enum import Enum

from dtm.comm.tcp.credentials import Credentials
from dtm.errors import CommunicationError
from dtm.launch.agent import is_of_the_host, own_address
from dtm.launch.invitation import INVITATION, Invitation
from dtm.launch.loop import Loop
from dtm.launch.messages import (
    Address,
    Death,
    Ended,
    Go,
    Gone,
    Job,
    Lost,
    Message,
    Output,
    Over,
    Ready,
    Refused,
    Signal,
)
from dtm.launch.node import Node
from dtm.launch.plan import Site, branches, names
from dtm.launch.remote import Starting
from dtm.launch.secret import SecretFile

_PARTING_SECONDS = 8.0  # for the other workers to end after the root
_OTHERS_SECONDS = 0.5  # for other hosts to refuse too, after the first
_WRITE_SECONDS = 10.0
_RESUME_SECONDS = 0.05
_PATIENCE = 3  # signals
_OF_THE_DISMISSED = (-signal.SIGTERM, -signal.SIGKILL, 128 + signal.SIGTERM)
_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGTSTP)


class Stage(Enum):
    """How far a run has come."""

    CALLING = "calling"
    RUNNING = "running"
    PARTING = "parting"
    OVER = "over"


TRANSITIONS: dict[Stage, dict[str, Stage]] = {
    Stage.CALLING: {"all hosts ready": Stage.RUNNING, "given up": Stage.OVER},
    Stage.RUNNING: {"root ended": Stage.PARTING, "given up": Stage.OVER},
    Stage.PARTING: {
        "all ended": Stage.OVER,
        "time is up": Stage.OVER,
        "given up": Stage.OVER,
    },
    Stage.OVER: {},
}


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be started.

    Attributes:
        sites: who runs where.
        arguments: of the interpreter, on every host.
        directory: where.
        files: what has to be there.
        module: likewise, if the program is a module; else empty.
        starting: how agents are started.
        join_slots: how many workers may join by hand.
        ports: the first and the last port to listen at, None for any.
        bind: this machine's address for others; None chooses one if there are others.
        tls: whether connections are encrypted; None: if they leave the machine.
        tag_output: whether rank and host stand before each line.
        secret_file: where to put what those who join by hand have to know.
        program: the program and its arguments, for people to read.
    """

    sites: Sequence[Site]
    arguments: Sequence[str]
    directory: str
    files: Sequence[str]
    starting: Starting
    module: str = ""
    join_slots: int = 0
    ports: tuple[int, int] | None = None
    bind: str | None = None
    tls: bool | None = None
    tag_output: bool = False
    secret_file: str | None = None
    program: str = ""

    @property
    def leaves_the_machine(self) -> bool:
        """Whether any connection goes to another machine, or may."""
        return self.bind is not None or not all(site.host.is_local for site in self.sites)


def worker_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of workers: this one, without what is a host's or a worker's."""
    own = {"DTM_WORKER", INVITATION}
    return {
        name: value
        for name, value in environ.items()
        if name not in own and not is_of_the_host(name)
    }


class Launcher:
    """Starts a run and sees it through.

    Attributes:
        stage: how far it has come.
    """

    def __init__(self, run: Run) -> None:
        from dtm.launch.terminal import Terminal

        self.stage = Stage.CALLING
        self._run = run
        self._hosts = names(run.sites)
        tls = run.leaves_the_machine if run.tls is None else run.tls
        self._credentials = Credentials.fresh(tls=tls)
        self._loop = Loop()
        self._terminal = Terminal(
            self._loop,
            (lambda rank: f"[{rank}@{self._hosts[rank]}] ") if run.tag_output else None,
            self._finish,
        )
        self._secret = SecretFile(run.secret_file, self._credentials)
        self._ready: dict[str, Ready] = {}
        self._refusals: list[str] = []
        self._left = set(range(len(self._hosts)))
        self._given_up: set[int] = set()  # by the root, when it has ended not to be waited for
        self._status: int | None = None
        self._failed: dict[int, str] = {}
        self._signals = 0
        self._reading = True
        self._mailboxes = None if run.starting.mailboxes is None else _private(run.directory)
        local = [site for site in run.sites if site.host.is_local]
        remote = [site for site in run.sites if not site.host.is_local]
        below = branches(remote, run.starting.fan_out)
        self._node = Node(self._loop, local, below, self._job(tls=tls), self._take)

    def _job(self, *, tls: bool) -> Job:
        run = self._run
        invitation = Invitation(
            credentials=self._credentials.to_bytes().decode("ascii"),
            size=len(self._hosts) + run.join_slots,
            hosts=names(run.sites, os.uname().nodename),
            tls=tls,
            ports=run.ports,
            carries_output=True,
        )
        return Job(
            directory=run.directory,
            arguments=list(run.arguments),
            files=list(run.files),
            module=run.module,
            environment=worker_environment(os.environ),
            invitation=invitation.written(),
            site={},
            starting=replace(run.starting, mailboxes=self._mailboxes).written(),
        )

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]
        if self.stage is Stage.OVER:
            self._loop.stop()

    def serve(self) -> int:
        """Start the run, see it through, and return its exit status."""
        self._loop.signals(_SIGNALS, self._signal)
        try:
            self._loop.later(0.0, lambda: self._node.prepare("", ""))
            self._loop.run()
        finally:
            self._node.end()
            self._terminal.close(_WRITE_SECONDS)
            self._secret.remove()
            self._loop.close()
            if self._mailboxes is not None:
                _remove(self._mailboxes)
        if self._status == 0:
            sys.stderr.writelines(f"dtm: {text}\n" for _, text in sorted(self._failed.items()))
        return 1 if self._status is None else self._status

    # What comes up.

    def _take(self, message: Message) -> None:
        if isinstance(message, Output):
            self._write(message)
        elif isinstance(message, Ready):
            self._ready[message.host] = message
            self._begin()
        elif isinstance(message, Refused):
            self._refuse(message)
        elif isinstance(message, Address):
            self._open(message)
        elif isinstance(message, Lost):
            self._given_up.update(message.ranks)
        elif isinstance(message, Ended):
            self._note(message)
            self._end(message)
        elif isinstance(message, Gone):
            self._mourn(message)

    def _begin(self) -> None:
        """Have the workers started, if every host is ready and none has refused."""
        complete = len(self._ready) == len(self._run.sites) and not self._refusals
        if self.stage is not Stage.CALLING or not complete:
            return
        self._go("all hosts ready")
        self._node.take(Go(self._addresses()))

    def _addresses(self) -> dict[str, str]:
        """Return the address of each host for the others; none if this machine is all there is."""
        if not self._run.leaves_the_machine:
            return {}
        seen = next((ready.there for ready in self._ready.values() if ready.there), "")
        mine = self._run.bind or seen or own_address(os.uname().nodename)
        return {name: ready.here or mine for name, ready in self._ready.items()}

    def _refuse(self, refused: Refused) -> None:
        if self.stage is not Stage.CALLING:
            return
        self._refusals.append(f"{refused.host}: {refused.reason}")
        if len(self._refusals) == 1:
            self._loop.later(_OTHERS_SECONDS, self._give_up)

    def _give_up(self) -> None:
        if self.stage is not Stage.CALLING:
            return
        for line in self._refusals:
            sys.stderr.write(f"dtm: {line}\n")
        sys.stderr.write("dtm: nothing was started\n")
        self._finish(1)

    def _open(self, message: Address) -> None:
        self._node.take(message)
        if self._run.join_slots:
            self._secret.write()
            slots, program = self._run.join_slots, self._run.program
            sys.stderr.write(self._secret.how_to_join(message.address, slots, program))

    def _end(self, ended: Ended) -> None:
        self._left.discard(ended.rank)
        if self.stage is Stage.RUNNING and ended.rank == 0:
            self._root_ended(ended.status)
        elif self.stage is Stage.RUNNING and ended.status:
            self._node.take(Death([ended.rank], how_it_ended(ended.status)))
        self._see_who_is_left()

    def _note(self, ended: Ended) -> None:
        """Remember who failed: if ``main`` ends well, nobody else tells."""
        dismissed = self._status is not None and ended.status in _OF_THE_DISMISSED
        if ended.rank and ended.status and not dismissed:
            who = f"worker {ended.rank}, on {self._hosts[ended.rank]},"
            self._failed[ended.rank] = f"{who} {how_it_ended(ended.status)}"

    def _root_ended(self, status: int) -> None:
        self._go("root ended")
        self._status = status if status >= 0 else 128 - status
        if status < 0 and not self._signals:
            sys.stderr.write(f"dtm: the root, on {self._hosts[0]}, was {how_it_ended(status)}\n")
        self._left -= self._given_up
        self._node.take(Over())
        self._loop.later(0.0 if status < 0 else _PARTING_SECONDS, self._part)

    def _part(self) -> None:
        if self.stage is Stage.PARTING:
            self._go("time is up")

    def _see_who_is_left(self) -> None:
        if self.stage is Stage.PARTING and not self._left:
            self._go("all ended")

    def _mourn(self, gone: Gone) -> None:
        self._left.difference_update(gone.ranks)
        if self.stage is Stage.CALLING:
            self._refuse(Refused(gone.hosts[0], gone.reason))
        elif self.stage is Stage.RUNNING and 0 in gone.ranks:
            sys.stderr.write(f"dtm: {gone.reason}; the root was there\n")
            self._finish(1)
        elif self.stage is Stage.RUNNING:
            self._failed[gone.ranks[0]] = gone.reason
            self._node.take(Death(gone.ranks, gone.reason))
        self._see_who_is_left()

    def _write(self, output: Output) -> None:
        self._terminal.write(output.rank, output.stream, output.text)
        if self._terminal.crowded and self._reading:
            self._reading = False
            self._node.pause(reading=False)
            self._loop.later(_RESUME_SECONDS, self._resume)

    def _resume(self) -> None:
        if self._terminal.crowded:
            self._loop.later(_RESUME_SECONDS, self._resume)
        else:
            self._reading = True
            self._node.pause(reading=True)

    # What comes from the user.

    def _signal(self, number: int) -> None:
        if number == signal.SIGTSTP:
            sys.stderr.write("dtm: a run on hosts cannot be suspended; it goes on\n")
            return
        self._signals += 1
        if self.stage is Stage.CALLING or self._signals >= _PATIENCE:
            self._finish(128 + number)
        else:
            self._node.take(Signal(number))

    def _finish(self, status: int) -> None:
        if self._status is None:
            self._status = status
        if self.stage is not Stage.OVER:
            self._go("given up")
        self._loop.stop()  # even if it waits for the last to end


def _private(directory: str) -> str:
    """Make a directory that nobody else can enter, where all hosts see it."""
    from tempfile import mkdtemp

    try:
        return mkdtemp(prefix=".dtm-", dir=directory)
    except OSError as error:
        raise CommunicationError(
            f"the hosts of this batch system are spoken to by files in {directory}, and none can "
            f"be made there: {error.strerror}"
        ) from error


def _remove(directory: str) -> None:
    from shutil import rmtree

    rmtree(directory, ignore_errors=True)


def how_it_ended(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"exited with status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def described(run: Run) -> list[str]:
    """Say what would be started, a line each."""
    import shlex

    lines = []
    command = shlex.join([run.starting.python, *run.arguments])
    remote = [site for site in run.sites if not site.host.is_local]
    tops = {site.host.name for site in branches(remote, run.starting.fan_out)}
    for site in run.sites:
        ranks = site.ranks
        which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
        lines.append(f"{site.host.name}: {which}")
        if site.host.is_local:
            lines.append("    started by this process")
        else:
            by = "started by this process" if site.host.name in tops else "started by another agent"
            lines.append(f"    {by}: {shlex.join(run.starting.command(site.host))}")
            if site.host.python is not None:
                there = shlex.join([site.host.python, *run.arguments])
                lines.append(f"    each worker there: {there}")
    if run.join_slots:
        lines.append(f"and {run.join_slots} more may join by hand")
    lines.append(f"in {run.directory}, each worker: {command}")
    return lines


def launch(run: Run) -> int:
    """Start a run on hosts, see it through, and return its exit status."""
    return Launcher(run).serve()
