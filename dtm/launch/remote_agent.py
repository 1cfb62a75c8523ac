"""An agent that was started from here, with all that is below it.

How far it has come is its ``stage``, which changes by ``TRANSITIONS``:

    CALLING --greets--> ANSWERED --all its hosts are ready--> WORKING --fails, or is ended--> GONE

It fails, in any of them, when it is too late or silent, when it is another version of dtm, and
when its connection ends.  An agent that fails before it is WORKING is reported as
:class:`Refused`, with the host and the reason: what ``ssh`` said last, or that nothing came within
the time.  Later it is reported as :class:`Gone`, with all the hosts and ranks that went with
it.  Each is reported once.

A silence of ``SILENT_SECONDS`` is a failure too, since a machine that is cut off says nothing;
both sides send a pulse every ``PULSE_SECONDS``.

Threads: the event loop's.

Rejected: the keepalive of ``ssh``.  Commands that replace ``ssh`` have none, and the far end would
not notice.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from enum import Enum
from subprocess import DEVNULL, PIPE, Popen
from time import monotonic

from dtm.comm.child import Child
from dtm.errors import CommunicationError
from dtm.launch.channel import (
    Channel,
    Lines,
    Mailbox,
    exited,
    greeting,
    mailbox_files,
    read,
    read_now,
)
from dtm.launch.messages import Gone, Job, Message, Pulse, Ready, Refused
from dtm.launch.plan import Site, Starting

PULSE_SECONDS = 1.0
SILENT_SECONDS = 6.0
_QUIET_SECONDS = 2.5  # more than two pulses
_ENDING_SECONDS = 0.3  # between the end of the output and the end of the process
_REAP_SECONDS = 5.0
_KEPT_LINES = 8  # of what it said besides messages
_UNKNOWN_COMMAND = 127
_NO_SSH = 255


class Stage(Enum):
    """How far an agent has come."""

    CALLING = "calling"
    ANSWERED = "answered"
    WORKING = "working"
    GONE = "gone"


TRANSITIONS: dict[Stage, dict[str, Stage]] = {
    Stage.CALLING: {"greets": Stage.ANSWERED, "fails": Stage.GONE, "is ended": Stage.GONE},
    Stage.ANSWERED: {
        "all hosts ready": Stage.WORKING,
        "fails": Stage.GONE,
        "is ended": Stage.GONE,
    },
    Stage.WORKING: {"fails": Stage.GONE, "is ended": Stage.GONE},
    Stage.GONE: {},
}


class RemoteAgent:
    """A started agent.

    Args:
        site: the part of the agent and of those below it.
        starting: how it is started.
        job: what it has to do.
        emit: takes what goes up.
        room: while it is not set, nothing is read.
    """

    def __init__(
        self,
        site: Site,
        starting: Starting,
        job: Job,
        emit: Callable[[Message], object],
        room: asyncio.Event,
    ) -> None:
        self.site = site
        self.stage = Stage.CALLING
        self.task: asyncio.Task[None] | None = None
        self._starting = starting
        self._command = starting.command(site.host)
        self._job = job._replace(site=site.written())
        self._emit = emit
        self._room = room
        self._hosts = [each.host.name for each in site.all()]
        self._waiting = set(self._hosts)  # for these to be ready
        self._errors = Lines(1 << 16, strict=False)
        self._said: deque[str] = deque(maxlen=_KEPT_LINES)
        self._heard = monotonic()
        self._channel: Channel | None = None

    def start(self, tasks: asyncio.TaskGroup) -> None:
        """Start the agent; it answers in time, or is reported."""
        self._heard = monotonic()
        self.task = tasks.create_task(self._serve(tasks))

    def send(self, message: Message) -> None:
        """Send a message down."""
        if self._channel is not None and self.obeys:
            self._channel.send(message)

    def beat(self) -> None:
        """Send a pulse, and check that some have come lately."""
        self.send(Pulse())
        if not self._room.is_set():  # nobody listens
            self._heard = monotonic()
        elif monotonic() - self._heard > SILENT_SECONDS and self.obeys:
            self._fail(f"nothing has been heard of it for {SILENT_SECONDS:.0f} s")

    def dismiss(self) -> None:
        """Have the agent end what it has started, and itself."""
        if self._channel is not None:
            self._channel.close_output()

    def kill(self) -> None:
        """End the process that started the agent, and what it has started: it may be a script."""
        if self.stage is not Stage.GONE:
            self._go("is ended")
        if self.task is not None and not self.task.cancelling():
            self.task.cancel()

    @property
    def obeys(self) -> bool:
        """Whether the agent runs, and will end when it is told to."""
        return self.stage in {Stage.ANSWERED, Stage.WORKING}

    @property
    def silent(self) -> bool:
        """Whether pulses that were due have not come, so that it is hardly there any more."""
        return self._room.is_set() and monotonic() - self._heard > _QUIET_SECONDS

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]

    async def _serve(self, tasks: asyncio.TaskGroup) -> None:
        piped = DEVNULL if self._starting.mailboxes is not None else PIPE
        try:
            process = Popen(  # noqa: S603, ASYNC220 - see dtm.launch.plan; it does not block long
                self._command, stdin=piped, stdout=piped, stderr=PIPE, start_new_session=True
            )
        except OSError as error:
            self._fail(f"{self._command[0]} cannot be run: {error.strerror}")
            return
        child = Child(process)
        channel, helpers = self._connect(child, tasks)
        self._channel = channel
        helpers.append(tasks.create_task(self._keep_errors(process)))
        try:
            try:
                await self._converse(channel)
            except CommunicationError as error:
                await self._explain(child, str(error))
            await exited(child)
        finally:
            if process.poll() is None:
                with suppress(ProcessLookupError, PermissionError):  # it is just ending
                    os.killpg(process.pid, signal.SIGKILL)
            child.wait(_REAP_SECONDS)
            for task in helpers:
                task.cancel()
            await asyncio.wait(helpers)  # before their descriptors are closed
            channel.close()
            child.close()
            assert process.stderr is not None
            process.stderr.close()

    def _connect(
        self, child: Child, tasks: asyncio.TaskGroup
    ) -> tuple[Channel, list[asyncio.Task[None]]]:
        """Return the channel to the agent, and the tasks that it needs."""
        if self._starting.mailboxes is None:
            stdin, stdout = child.process.stdin, child.process.stdout
            assert stdin is not None and stdout is not None  # noqa: PT018
            with stdin, stdout:
                reading, writing = os.dup(stdout.fileno()), os.dup(stdin.fileno())
            return Channel(reading, writing, self._said.append), []
        box = Mailbox(*mailbox_files(self._starting.mailboxes, self.site.host.name))
        following = tasks.create_task(box.follow())

        async def end_with_the_process() -> None:
            await exited(child)
            following.cancel()

        helpers = [tasks.create_task(each) for each in (box.append(), end_with_the_process())]
        return Channel(box.reading, box.writing, self._said.append), [following, *helpers]

    async def _converse(self, channel: Channel) -> None:
        """Hear the agent until it fails.

        Raises:
            CommunicationError: the connection has ended.
        """
        timeout = self._starting.timeout
        # Whatever is below has its time too, and names itself when that is over.
        ready_by = monotonic() + (2 + self.site.depth) * timeout
        try:
            theirs = await asyncio.wait_for(channel.hello(), timeout)
        except TimeoutError:
            self._said.extend(filter(None, [channel.unended()]))
            self._fail(f"no answer within {timeout:g} s")
            return
        if theirs != greeting():
            self._fail(f"it has {theirs}, and this machine {greeting()}; they must be the same")
            return
        self._go("greets")
        self._heard = monotonic()
        self._said.clear()  # greetings of the login
        self.send(self._job)
        while True:
            await self._room.wait()
            patience = max(0.0, ready_by - monotonic()) if self.stage is Stage.ANSWERED else None
            try:
                self._take(await asyncio.wait_for(channel.receive(), patience))
            except TimeoutError:
                late = [name for name in self._hosts if name in self._waiting]
                self._fail(f"not ready in time: {', '.join(late)}")
                return

    def _take(self, message: Message) -> None:
        self._heard = monotonic()
        if self.stage is Stage.GONE or isinstance(message, Pulse):
            return
        if isinstance(message, Ready):
            self._waiting.discard(message.host)
            if not self._waiting and self.stage is Stage.ANSWERED:
                self._go("all hosts ready")
        self._emit(message)

    async def _keep_errors(self, process: Popen[bytes]) -> None:
        assert process.stderr is not None
        os.set_blocking(process.stderr.fileno(), False)
        while data := await read(process.stderr.fileno()):
            self._keep(self._errors.feed(data))

    def _keep(self, data: bytes) -> None:
        text = data.decode("utf-8", "replace")
        self._said.extend(line.strip() for line in text.splitlines() if line.strip())

    # What goes wrong.

    async def _explain(self, child: Child, reason: str) -> None:
        """Fail, with a better reason if the process or what it has written tells one."""
        with suppress(TimeoutError):
            await asyncio.wait_for(exited(child), _ENDING_SECONDS)
        assert child.process.stderr is not None
        rest = read_now(child.process.stderr.fileno()) or b""
        self._keep(self._errors.feed(rest) + self._errors.rest())
        status = child.process.poll()
        if status == _UNKNOWN_COMMAND:
            reason = "the command was not found there"
        elif status == _NO_SSH and self.stage is Stage.CALLING:
            reason = f"{self._command[0]} failed"
        elif self.stage is Stage.CALLING:
            reason = "no agent of dtm answered"
        self._fail(reason)

    def _fail(self, reason: str) -> None:
        if self.stage is Stage.GONE:
            return
        before = self.stage
        self._go("fails")
        if self._said and before is not Stage.WORKING:
            reason = f"{reason}: {' / '.join(self._said)}"
        elif self._said:
            sys.stderr.write("".join(f"{self.site.host.name}: {line}\n" for line in self._said))
        self.dismiss()
        if before is Stage.WORKING:
            ranks = [rank for site in self.site.all() for rank in site.ranks]
            what = f"the connection to {', '.join(self._hosts)} is lost: {reason}"
            self._emit(Gone(self._hosts, ranks, what))
        else:
            self._emit(Refused(self.site.host.name, reason))
