"""The launcher: the process in the user's terminal that starts a run on hosts.

It is no worker.  It makes the credentials of the run, has an agent started on each host
(:mod:`dtm.launch.agent`), and stays for signals, output and exit status.  How far the run has
come is its ``stage``, which changes by ``TRANSITIONS``:

    CALLING --all hosts ready--> RUNNING --root ended--> PARTING --all ended--> OVER

No worker is started before every host has said that it can do its part: a host that is down
costs a line on stderr, not half a run.  However a run ends, all that the launcher has started is
ended before it exits, and messages that come once it is OVER change nothing.  If it is killed, its
agents find their input ended, and do the same.

What can go wrong while it runs:

* a worker's process ends badly, or a host cannot be heard: the root is told who and how, and
  raises :class:`WorkerLostError`; if ``main`` has ended well before, a line on stderr says so;
* the root's host cannot be heard: the run is over, with status 1.

Threads: the event loop's; :mod:`dtm.launch.terminal` has one of its own.

Rejected: the launcher as rank 0.  Its terminal would be rank 0's, but a launch from a login node
would compute there.
"""

from __future__ import annotations

import asyncio
import os
import shutil
import signal
import sys
from contextlib import suppress
from enum import Enum
from tempfile import mkdtemp
from typing import TYPE_CHECKING

from dtm.comm.tcp.credentials import Credentials
from dtm.errors import CommunicationError
from dtm.launch import messages
from dtm.launch.agent import Node, own_address
from dtm.launch.plan import Run, grouped, names
from dtm.launch.processes import worker_environment
from dtm.launch.terminal import Terminal

if TYPE_CHECKING:
    from dtm.launch.tcp_worker import SecretFile

_PARTING_SECONDS = 8.0  # for the other workers to end after the root
_OTHERS_SECONDS = 2.0  # for the other hosts to answer after one has refused
_WRITE_SECONDS = 10.0
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


class Launcher:
    """Starts a run and sees it through.

    Attributes:
        stage: how far it has come.
    """

    def __init__(self, run: Run) -> None:
        settings = run.settings
        self.stage = Stage.CALLING
        self._run = run
        self._hosts = names(run.sites)
        tls = run.leaves_the_machine if settings.tls is None else settings.tls
        self._credentials = Credentials.fresh(tls=tls)
        self._terminal = Terminal(
            (lambda rank: f"[{rank}@{self._hosts[rank]}] ") if settings.tag_output else None,
            self._finish,
        )
        self._secret: SecretFile | None = None
        self._ready: dict[str, messages.Ready] = {}
        self._refusals: dict[str, str] = {}
        self._left = set(range(len(self._hosts)))
        self._given_up: set[int] = set()  # by the root, when it has ended not to be waited for
        self._status: int | None = None
        self._failed: dict[int, str] = {}
        self._signals = 0
        self._over = asyncio.Event()
        self._hurry = asyncio.Event()  # the user does not wait for the last to end
        self._mailboxes = None if run.starting.mailboxes is None else _private(run.directory)
        local = [site for site in run.sites if site.host.is_local]
        below = grouped(run.remote, run.starting.fan_out)
        self._node = Node(local, below, self._job(tls=tls), self._take, self._terminal.room)

    def _job(self, *, tls: bool) -> messages.Job:
        run = self._run
        invitation = messages.Invitation(
            credentials=self._credentials.to_bytes().decode("ascii"),
            size=len(self._hosts) + (run.settings.join_slots or 0),
            hosts=names(run.sites, os.uname().nodename),
            tls=tls,
            ports=run.settings.ports,
            carries_output=True,
        )
        return messages.Job(
            directory=run.directory,
            arguments=list(run.arguments),
            files=list(run.files),
            module=run.module,
            environment=worker_environment(os.environ),
            invitation=invitation._asdict(),
            site={},
            starting=run.starting._replace(mailboxes=self._mailboxes)._asdict(),
        )

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]
        if self.stage is Stage.OVER:
            self._over.set()

    async def serve(self) -> int:
        """Start the run, see it through, and return its exit status."""
        for number in _SIGNALS:
            asyncio.get_running_loop().add_signal_handler(number, self._signal, number)
        try:
            async with asyncio.TaskGroup() as tasks:
                serving = tasks.create_task(self._node.serve(tasks, "", ""))
                await self._over.wait()
                serving.cancel()
                ending = tasks.create_task(self._node.end())
                hurried = tasks.create_task(self._hurry.wait())
                await asyncio.wait((ending, hurried), return_when=asyncio.FIRST_COMPLETED)
                ending.cancel()
                hurried.cancel()
        finally:
            self._terminal.close(_WRITE_SECONDS)
            if self._secret is not None:
                self._secret.remove()
            if self._mailboxes is not None:
                shutil.rmtree(self._mailboxes, ignore_errors=True)
        if self._status == 0:
            sys.stderr.writelines(f"dtm: {text}\n" for _, text in sorted(self._failed.items()))
        return 1 if self._status is None else self._status

    # What comes up.

    def _take(self, message: messages.Message) -> None:
        if isinstance(message, messages.Output):
            self._terminal.write(message.rank, message.stream, message.text)
        elif isinstance(message, messages.Ready):
            self._ready[message.host] = message
            self._begin()
        elif isinstance(message, messages.Refused):
            self._refuse(message)
        elif isinstance(message, messages.Address):
            self._open(message)
        elif isinstance(message, messages.Lost):
            self._given_up.update(message.ranks)
        elif isinstance(message, messages.Ended):
            self._note(message)
            self._end(message)
        elif isinstance(message, messages.Gone):
            self._note_loss(message)

    def _begin(self) -> None:
        """Have the workers started if every host is ready; give up when all have answered."""
        answered = self._ready.keys() | self._refusals.keys()
        if self.stage is not Stage.CALLING or len(answered) < len(self._run.sites):
            return
        if self._refusals:
            self._give_up()
            return
        self._go("all hosts ready")
        self._node.take(messages.Go(self._addresses()))

    def _addresses(self) -> dict[str, str]:
        """Return the address of each host for the others; none if this machine is all there is."""
        if not self._run.leaves_the_machine:
            return {}
        seen = next((ready.there for ready in self._ready.values() if ready.there), "")
        mine = self._run.settings.bind or seen or own_address(os.uname().nodename)
        return {name: ready.here or mine for name, ready in self._ready.items()}

    def _refuse(self, refused: messages.Refused) -> None:
        if not self._refusals:
            asyncio.get_running_loop().call_later(_OTHERS_SECONDS, self._give_up)
        self._refusals.setdefault(refused.host, refused.reason)
        self._begin()

    def _give_up(self) -> None:
        if self.stage is not Stage.CALLING:
            return
        for host, reason in self._refusals.items():
            sys.stderr.write(f"dtm: {host}: {reason}\n")
        sys.stderr.write("dtm: nothing was started\n")
        self._finish(1)

    def _open(self, message: messages.Address) -> None:
        slots = self._run.settings.join_slots
        if slots:
            from dtm.launch.tcp_worker import SecretFile  # with a manager, which few launchers need

            path = self._run.settings.secret_file
            try:
                self._secret = SecretFile(path, self._credentials)
            except CommunicationError as error:
                sys.stderr.write(f"dtm: {error}\n")
                self._finish(1)
                return
            how = self._secret.how_to_join(message.address, slots, self._run.program)
            sys.stderr.write(how)
        self._node.take(message)

    def _end(self, ended: messages.Ended) -> None:
        self._left.discard(ended.rank)
        if self.stage is Stage.RUNNING and ended.rank == 0:
            self._root_ended(ended.status)
        elif self.stage is Stage.RUNNING and ended.status:
            self._node.take(messages.Death([ended.rank], how_it_ended(ended.status)))
        self._see_who_is_left()

    def _note(self, ended: messages.Ended) -> None:
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
        self._node.take(messages.Over())
        patience = 0.0 if status < 0 else _PARTING_SECONDS
        asyncio.get_running_loop().call_later(patience, self._part)

    def _part(self) -> None:
        if self.stage is Stage.PARTING:
            self._go("time is up")

    def _see_who_is_left(self) -> None:
        if self.stage is Stage.PARTING and not self._left:
            self._go("all ended")

    def _note_loss(self, gone: messages.Gone) -> None:
        self._left.difference_update(gone.ranks)
        if self.stage is Stage.CALLING:
            self._refuse(messages.Refused(gone.hosts[0], gone.reason))
        elif self.stage is Stage.RUNNING and 0 in gone.ranks:
            sys.stderr.write(f"dtm: {gone.reason}; the root was there\n")
            self._finish(1)
        elif self.stage is Stage.RUNNING:
            self._failed[gone.ranks[0]] = gone.reason
            self._node.take(messages.Death(gone.ranks, gone.reason))
        self._see_who_is_left()

    # What comes from the user.

    def _signal(self, number: int) -> None:
        if number == signal.SIGTSTP:
            sys.stderr.write("dtm: a run on hosts cannot be suspended; it goes on\n")
            return
        self._signals += 1
        if self.stage is Stage.CALLING or self._signals >= _PATIENCE:
            self._finish(128 + number)
        else:
            self._node.take(messages.Signal(number))

    def _finish(self, status: int) -> None:
        if self._status is None:
            self._status = status
        if self.stage is Stage.OVER:
            self._hurry.set()
        else:
            self._go("given up")


def _private(directory: str) -> str:
    """Make a directory that nobody else can enter, where all hosts see it."""
    try:
        return mkdtemp(prefix=".dtm-", dir=directory)
    except OSError as error:
        raise CommunicationError(
            f"the hosts of this batch system are spoken to by files in {directory}, and none can "
            f"be made there: {error.strerror}"
        ) from error


def how_it_ended(status: int) -> str:
    """Say how a process ended."""
    if status >= 0:
        return f"exited with status {status}"
    with suppress(ValueError):
        return f"killed by {signal.Signals(-status).name}"
    return f"killed by signal {-status}"


def launch(run: Run) -> int:
    """Start a run on hosts, see it through, and return its exit status."""
    return asyncio.run(Launcher(run).serve(), debug=False)
