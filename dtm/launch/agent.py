"""An agent: what a launcher starts on each host, to start the workers there.

``python -m dtm.launch.agent`` reads messages from standard input and writes messages
to standard output (:mod:`dtm.launch.messages`); with a directory and the name of its
host, it reads and writes files there instead (:mod:`dtm.launch.mailbox`).

It greets, gets its job once, and hands on whatever comes after that to its node.  It
ends, and before that all that it has started, when its input ends or nothing has come for
``SILENT_SECONDS``: so when the launcher dies, the connection breaks, or the network is
cut, nothing is left running here.

Rejected: a daemon that stays between runs.  Somebody would have to guard it.
"""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Sequence
from time import monotonic

from dtm.launch.channel import Channel, hello
from dtm.launch.loop import Loop
from dtm.launch.mailbox import LOOK_SECONDS, Mailbox, paths
from dtm.launch.messages import Job, Message, Pulse
from dtm.launch.node import Node
from dtm.launch.plan import read
from dtm.launch.remote_agent import PULSE_SECONDS, SILENT_SECONDS

_CROWDED = 64  # messages that wait to go up before workers are read no more
_HUNG_SECONDS = 30
_ENVIRONMENT = ("SSH_", "XDG_", "DBUS_")
_OF_THE_HOST = frozenset({"HOSTNAME", "HOST", "DISPLAY", "XAUTHORITY", "TERM_SESSION_ID"})


def is_of_the_host(variable: str) -> bool:
    """Whether a variable of the environment speaks of a host or a session, not of the program."""
    return variable in _OF_THE_HOST or variable.startswith(_ENVIRONMENT)


class Agent:
    """The agent of this process."""

    def __init__(self, loop: Loop, reading: int, writing: int) -> None:
        self._loop = loop
        self._node: Node | None = None
        self._heard = monotonic()
        self._paused = False
        os.write(writing, hello())
        self._channel = Channel(
            self._loop, reading, writing, self._take, lambda _: self._loop.stop()
        )

    def serve(self) -> None:
        """Do what is said, until nobody says anything any more."""
        self._loop.signals((signal.SIGTERM, signal.SIGHUP), lambda _: self._loop.stop())
        self._loop.every(PULSE_SECONDS, self._beat)
        self._loop.run()
        if self._node is not None:
            self._node.end()
        self._channel.close()

    def _take(self, message: Message) -> None:
        self._heard = monotonic()
        if isinstance(message, Job):
            self._prepare(message)
        elif self._node is not None:
            self._node.take(message)

    def _prepare(self, job: Job) -> None:
        site = read(job.site)
        own = {name: value for name, value in os.environ.items() if is_of_the_host(name)}
        job = job._replace(environment={**job.environment, **own})
        self._node = Node(self._loop, [site], site.below, job, self._emit)
        here, there = _way()
        self._node.prepare(here or own_address(site.host.name), there)

    def _emit(self, message: Message) -> None:
        self._channel.send(message)
        crowded = self._channel.queued > _CROWDED
        if crowded and self._node is not None and not self._paused:
            self._paused = True
            self._node.pause(reading=False)

    def _beat(self) -> None:
        signal.alarm(_HUNG_SECONDS)  # the kernel ends an agent that hangs, and so its workers
        self._channel.send(Pulse())
        if self._paused and not self._channel.queued and self._node is not None:
            self._paused = False
            self._node.pause(reading=True)
        if monotonic() - self._heard > SILENT_SECONDS:
            self._loop.stop()


def _way() -> tuple[str, str]:
    """Return the addresses of this end of the connection and of the other, if ssh tells."""
    told = os.environ.get("SSH_CONNECTION", "").split()
    return (told[2], told[0]) if len(told) == 4 else ("", "")


def own_address(name: str) -> str:
    """Return an address of this host by which others can reach it."""
    import socket

    found = []
    try:
        found = socket.getaddrinfo(name, None, type=socket.SOCK_STREAM)
    except OSError:  # a name that only ssh knows
        found = []
    for *_, address in found:
        text = str(address[0])
        if not text.startswith("127.") and text != "::1" and _is_own(text):
            return text
    return _outward()


def _outward() -> str:
    """Return the address of the interface that leads away from here; nothing is sent."""
    import socket

    for family, target in ((socket.AF_INET, "192.0.2.1"), (socket.AF_INET6, "2001:db8::1")):
        try:
            with socket.socket(family, socket.SOCK_DGRAM) as probe:
                probe.connect((target, 9))
                return str(probe.getsockname()[0])
        except OSError:  # no such way
            continue
    return "127.0.0.1"


def _is_own(address: str) -> bool:
    import socket

    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as probe:
            probe.bind((address, 0))
    except OSError:
        return False
    return True


def main(arguments: Sequence[str]) -> None:
    """Be the agent of this host."""
    loop = Loop()
    if arguments:
        ours, theirs = paths(*arguments)
        box = Mailbox(loop, theirs, ours)
        reading, writing = box.reading, box.writing
    else:
        reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # whatever else is printed here must not stand among the messages
    os.close(null)
    Agent(loop, reading, writing).serve()
    if arguments:
        loop.run_until(lambda: False, 2 * LOOK_SECONDS)  # for the mailbox to be closed
    loop.close()


if __name__ == "__main__":
    main(sys.argv[1:])
