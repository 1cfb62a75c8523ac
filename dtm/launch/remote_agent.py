"""An agent that was started from here, with all that is below it.

How far it has come is its ``stage``, which changes by ``TRANSITIONS``:

    CALLING --greets--> ANSWERED --all its hosts are ready--> WORKING --fails, or is ended--> GONE

It fails, in any of them, when it is too late or silent, when it is another version of dtm,
and when its connection ends.  A branch that does not come to WORKING is reported as
:class:`Refused` with the host and the reason: what ``ssh`` said last, or that nothing came
within the time.  Later its end is reported as :class:`Gone`, with all hosts and ranks that
went with it.  Each is reported once.

A silence of ``SILENT_SECONDS`` is an end too, since a machine that is cut off says
nothing; both sides send a pulse each ``PULSE_SECONDS``.

Threads: the loop's.

Rejected: ``ssh``'s own keepalive.  Commands that replace it have none, and the far
end would not notice.
"""

from __future__ import annotations

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
from dtm.launch.channel import Channel, greeting
from dtm.launch.loop import Loop
from dtm.launch.mailbox import Mailbox, paths
from dtm.launch.messages import Gone, Job, Lines, Message, Pulse, Ready, Refused
from dtm.launch.plan import Site
from dtm.launch.remote import Starting

PULSE_SECONDS = 1.0
SILENT_SECONDS = 6.0
_QUIET_SECONDS = 2.5  # more than two pulses
_ENDING_SECONDS = 0.3  # between the end of the output and the end of the process
_LOOK_SECONDS = 0.2
_SAID = 8  # lines that are kept of what it said besides messages
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


class Branch:
    """A started agent.

    Args:
        loop: calls back.
        site: the part of the agent and of those below it.
        starting: how it is started.
        job: the job, which is sent to it with its own site.
        emit: takes what goes up.
    """

    def __init__(
        self,
        loop: Loop,
        site: Site,
        starting: Starting,
        job: Callable[[Site], Job],
        emit: Callable[[Message], object],
    ) -> None:
        self.site = site
        self.stage = Stage.CALLING
        self._loop = loop
        self._job = job
        self._emit = emit
        self._timeout = starting.timeout
        self._mailboxes = starting.mailboxes
        self._errors = Lines(1 << 16, strict=False)
        self._sites = list(site.all())
        self._ready: set[str] = set()
        self._said: deque[str] = deque(maxlen=_SAID)
        self._heard = monotonic()
        self._paused = False
        self._command = starting.command(site.host)
        self._process: Popen[bytes] | None = None
        self._channel: Channel | None = None

    def _go(self, event: str) -> None:
        self.stage = TRANSITIONS[self.stage][event]

    def start(self) -> None:
        """Start the agent; it answers in time, or is reported."""
        mail = self._mailboxes is not None
        try:
            self._process = Popen(  # noqa: S603 - see dtm.launch.remote
                self._command,
                stdin=DEVNULL if mail else PIPE,
                stdout=DEVNULL if mail else PIPE,
                stderr=PIPE,
                start_new_session=True,
            )
        except OSError as error:
            self._fail(f"{self._command[0]} cannot be run: {error.strerror}")
            return
        self._child = Child(self._process)
        self._channel = Channel(
            self._loop, *self._descriptors(), self._take, self._ended, self._greeted,
            self._said.append,
        )  # fmt: skip
        self._follow_errors()
        self._loop.later(self._timeout, self._check_answer)
        # Whatever is below has its time too, and names itself when that is over.
        levels = 2 + site_depth(self.site)
        self._loop.later(levels * self._timeout, self._check_ready)

    def _descriptors(self) -> tuple[int, int]:
        """Return where the agent is heard and spoken to."""
        assert self._process is not None
        if self._mailboxes is not None:
            box = Mailbox(self._loop, *paths(self._mailboxes, self.site.host.name))
            self._loop.later(_LOOK_SECONDS, self._look)
            return box.reading, box.writing
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None and stdout is not None  # noqa: PT018
        with stdin, stdout:
            return os.dup(stdout.fileno()), os.dup(stdin.fileno())

    def _look(self) -> None:
        """See whether an agent is there that no pipe tells of."""
        if self.stage is Stage.GONE:
            return
        if self.left:
            self._ended("its process has ended")
        else:
            self._loop.later(_LOOK_SECONDS, self._look)

    def _follow_errors(self) -> None:
        pipe = None if self._process is None else self._process.stderr
        assert pipe is not None
        os.set_blocking(pipe.fileno(), False)
        self._loop.read(pipe.fileno(), self._read_errors)

    def send(self, message: Message) -> None:
        """Send a message down."""
        if self._channel is not None and self.heeds:
            self._channel.send(message)

    def beat(self) -> None:
        """Send a pulse, and see whether any has come for long."""
        self.send(Pulse())
        silent = monotonic() - self._heard > SILENT_SECONDS
        if silent and not self._paused and self.heeds:
            self._fail(f"nothing has been heard of it for {SILENT_SECONDS:.0f} s")

    def pause(self, *, reading: bool) -> None:
        """Cease to read what comes up, or go on."""
        if self._channel is not None:
            self._channel.pause(reading=reading)
        self._paused = not reading
        self._heard = monotonic()

    def dismiss(self) -> None:
        """Have the agent end what it has started, and itself."""
        if self._channel is not None:
            self._channel.close_output()

    @property
    def heeds(self) -> bool:
        """Whether there is an agent that ends by itself when it is told to."""
        return self.stage in {Stage.ANSWERED, Stage.WORKING}

    @property
    def silent(self) -> bool:
        """Whether pulses that were due have not come, so that it is hardly there any more."""
        return not self._paused and monotonic() - self._heard > _QUIET_SECONDS

    @property
    def left(self) -> bool:
        """Whether the process that started the agent has ended."""
        return self._process is None or self._process.poll() is not None

    def kill(self) -> None:
        """End the process that started the agent, and what it has started: it may be a script."""
        if self.stage is not Stage.GONE:
            self._go("is ended")
        if self._process is not None:
            if self._process.poll() is None:
                with suppress(ProcessLookupError, PermissionError):  # it is just ending
                    os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            self._child.close()
            self._drop_errors()
        if self._channel is not None:
            self._channel.close()

    # What comes.

    def _greeted(self, hello: str) -> None:
        theirs, ours = hello, greeting()
        if self.stage is not Stage.CALLING:
            return
        if theirs != ours:
            self._fail(f"it has {theirs}, and this machine {ours}; they must be the same")
            return
        self._go("greets")
        self._heard = monotonic()
        self._said.clear()  # greetings
        self.send(self._job(self.site))

    def _take(self, message: Message) -> None:
        self._heard = monotonic()
        if self.stage is Stage.GONE or isinstance(message, Pulse):
            return
        if isinstance(message, Ready):
            self._ready.add(message.host)
            if len(self._ready) == len(self._sites) and self.stage is Stage.ANSWERED:
                self._go("all hosts ready")
        self._emit(message)

    def _ended(self, reason: str) -> None:
        """Nothing more comes; the process will soon tell why."""
        if self.stage is not Stage.GONE:
            self._loop.later(0.0, lambda: self._explain(reason))

    def _explain(self, reason: str) -> None:
        self._child.wait(_ENDING_SECONDS)
        self._read_errors()
        status = self._process.poll() if self._process is not None else None
        if status == _UNKNOWN_COMMAND:
            reason = "the command was not found there"
        elif status == _NO_SSH and self.stage is Stage.CALLING:
            reason = f"{self._command[0]} failed"
        elif self.stage is Stage.CALLING:
            reason = "no agent of dtm answered"
        self._fail(reason)

    def _read_errors(self) -> None:
        pipe = None if self._process is None else self._process.stderr
        if pipe is None or pipe.closed:
            return
        try:
            data = os.read(pipe.fileno(), 1 << 16)
        except BlockingIOError:
            return
        text = (self._errors.feed(data) if data else self._errors.rest()).decode("utf-8", "replace")
        self._said.extend(line.strip() for line in text.splitlines() if line.strip())
        if not data:
            self._drop_errors()

    def _drop_errors(self) -> None:
        pipe = None if self._process is None else self._process.stderr
        if pipe is not None and not pipe.closed:
            self._loop.read(pipe.fileno(), None)
            pipe.close()

    # What does not come.

    def _check_answer(self) -> None:
        if self.stage is not Stage.CALLING:
            return
        asks = "" if self._channel is None else self._channel.rest()
        if asks:
            self._said.append(asks)
        self._fail(f"no answer within {self._timeout:g} s")

    def _check_ready(self) -> None:
        if self.stage is Stage.ANSWERED:
            late = [site.host.name for site in self._sites if site.host.name not in self._ready]
            self._fail(f"not ready in time: {', '.join(late)}")

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
            ranks = [rank for site in self._sites for rank in site.ranks]
            hosts = [site.host.name for site in self._sites]
            what = f"the connection to {', '.join(hosts)} is lost: {reason}"
            self._emit(Gone(hosts, ranks, what))
        else:
            self._emit(Refused(self.site.host.name, reason))


def site_depth(site: Site) -> int:
    """Return how many levels of agents are below a site."""
    return max((1 + site_depth(below) for below in site.below), default=0)
