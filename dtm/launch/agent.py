"""An agent: what a launcher starts on each host, to start the workers there.

``python -m dtm.launch.agent`` reads messages from standard input and writes messages to standard
output (:mod:`dtm.launch.messages`); with a directory and the name of its host, it reads and writes
files there instead (:class:`dtm.launch.channel.Mailbox`).

It greets, gets its job once, and hands on whatever comes after that to its node.  When its input
ends, or nothing has come for ``SILENT_SECONDS``, it ends all that it has started, and itself: so
when the launcher dies, the connection breaks, or the network is cut, nothing is left running here.

A ``Node`` is what a launcher and an agent have in common: the workers of this host, and the agents
that are started from it.  Messages from above come in by ``take``; what goes up leaves by ``emit``.

Threads: the event loop's.

Rejected: a daemon that stays between runs; somebody would have to guard it.  Also: an agent for the
launcher's own machine, so that workers are started in one way only; each run on one machine would
start one interpreter more.
"""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic

from dtm.errors import CommunicationError
from dtm.launch import messages
from dtm.launch.channel import LOOK_SECONDS, Channel, Mailbox, hello, mailbox_files
from dtm.launch.command_line import module_is_there
from dtm.launch.plan import Site, Starting, read_site
from dtm.launch.processes import Workers, is_of_the_host
from dtm.launch.remote_agent import PULSE_SECONDS, SILENT_SECONDS, RemoteAgent

_HUNG_SECONDS = 30
_PARTING_SECONDS = 4.0  # for agents below to end their workers, and themselves


class Node:
    """Workers of this host, and agents below.

    Args:
        sites: the parts of this host: an agent has one, a launcher may have none or several.
        below: the parts whose agents are started from here.
        job: what to do; its site is not looked at.
        emit: takes what goes up.
        room: while it is not set, nothing is read from workers and from below.
    """

    def __init__(
        self,
        sites: Sequence[Site],
        below: Sequence[Site],
        job: messages.Job,
        emit: Callable[[messages.Message], object],
        room: asyncio.Event,
    ) -> None:
        self._sites = sites
        self._job = job
        self._emit = emit
        ranks = [rank for site in sites for rank in site.ranks]
        command = [sys.executable, *job.arguments]
        self._workers = Workers(ranks, command, job.environment, job.invitation, emit, room)
        starting = Starting(**job.starting)
        self._agents = [RemoteAgent(site, starting, job, emit, room) for site in below]

    async def serve(self, tasks: asyncio.TaskGroup, here: str, there: str) -> None:
        """Check that this host can do its part, start the agents below, and send pulses to them.

        ``here`` and ``there`` are both addresses of the connection to whoever started this node.
        """
        self._tasks = tasks
        for agent in self._agents:
            agent.start(tasks)
        reason = _missing(self._job)
        for site in self._sites:
            name = site.host.name
            self._emit(
                messages.Ready(name, here, there)
                if reason is None
                else messages.Refused(name, reason)
            )
        while True:
            await asyncio.sleep(PULSE_SECONDS)
            for agent in self._agents:
                agent.beat()

    def take(self, message: messages.Message) -> None:
        """Do what a message from above says, and pass it on."""
        for agent in self._agents:
            agent.send(message)
        if isinstance(message, messages.Go):
            self._start(message)
        elif isinstance(message, messages.Address):
            self._workers.invite(message.address)
        elif isinstance(message, messages.Signal):
            self._workers.signal_root(message.number)
        elif isinstance(message, messages.Death):
            self._workers.tell_root(message.ranks, message.reason)
        elif isinstance(message, messages.Over):
            self._workers.dismiss()

    async def end(self) -> None:
        """End everything that was started; returns when that is done, or soon after."""
        obeying = [agent for agent in self._agents if agent.obeys and not agent.silent]
        try:
            for agent in self._agents:
                if agent in obeying:
                    agent.dismiss()
                else:
                    agent.kill()
            await self._workers.end()
            levels = 1 + max((agent.site.depth for agent in obeying), default=0)
            ending = [agent.task for agent in obeying if agent.task is not None]
            if ending:
                await asyncio.wait(ending, timeout=levels * _PARTING_SECONDS)
        finally:
            for agent in self._agents:
                agent.kill()

    def _start(self, go: messages.Go) -> None:
        names = [site.host.name for site in self._sites]
        bind = go.addresses.get(names[0]) if names else None  # the names are of one machine
        try:
            self._workers.start(self._tasks, bind)
        except CommunicationError as error:
            ranks = [rank for site in self._sites for rank in site.ranks]
            self._emit(messages.Gone(names, ranks, f"on {names[0]} {error}"))


def _missing(job: messages.Job) -> str | None:
    """Say what of the program is not here, None if all is."""
    if not os.path.isdir(job.directory):
        return f"the directory {job.directory} is not there"
    for path in job.files:
        if not os.path.exists(os.path.join(job.directory, path)):
            return f"the file {os.path.join(job.directory, path)} is not there"
    try:
        os.chdir(job.directory)
    except OSError as error:
        return f"the directory {job.directory} cannot be entered: {error.strerror}"
    if job.module and not module_is_there(job.module, job.directory, job.environment):
        return f"there is no module {job.module}"
    return None


class Agent:
    """The agent of this process."""

    def __init__(self, reading: int, writing: int) -> None:
        os.write(writing, hello())
        self._channel = Channel(reading, writing)
        self._node: Node | None = None
        self._over = asyncio.Event()
        self._heard = monotonic()

    async def serve(self) -> None:
        """Do what is said, until nobody says anything any more."""
        for number in (signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self._over.set)
        async with asyncio.TaskGroup() as tasks:
            self._tasks = tasks
            self._running = [tasks.create_task(self._listen()), tasks.create_task(self._beat())]
            await self._over.wait()
            for task in self._running:
                task.cancel()
            if self._node is not None:
                await self._node.end()
        self._channel.close()

    async def _listen(self) -> None:
        while True:
            try:
                message = await self._channel.receive()
            except CommunicationError:  # the launcher has ended, or ends this agent
                self._over.set()
                return
            self._heard = monotonic()
            if isinstance(message, messages.Job):
                self._prepare(message)
            elif self._node is not None:
                self._node.take(message)

    def _prepare(self, job: messages.Job) -> None:
        site = read_site(job.site)
        own = {name: value for name, value in os.environ.items() if is_of_the_host(name)}
        job = job._replace(environment={**job.environment, **own})
        self._node = Node([site], site.below, job, self._channel.send, self._channel.room)
        here, there = _connection()
        serving = self._node.serve(self._tasks, here or own_address(site.host.name), there)
        self._running.append(self._tasks.create_task(serving))

    async def _beat(self) -> None:
        while monotonic() - self._heard <= SILENT_SECONDS:
            signal.alarm(_HUNG_SECONDS)  # the kernel ends an agent that hangs, and so its workers
            self._channel.send(messages.Pulse())
            await asyncio.sleep(PULSE_SECONDS)
        self._over.set()


def _connection() -> tuple[str, str]:
    """Return the addresses of this end of the connection and of the other, if ssh tells."""
    told = os.environ.get("SSH_CONNECTION", "").split()
    return (told[2], told[0]) if len(told) == 4 else ("", "")


def own_address(name: str) -> str:
    """Return an address of this host by which others can reach it."""
    with suppress(OSError):  # a name that only ssh knows
        for *_, address in socket.getaddrinfo(name, None, type=socket.SOCK_STREAM):
            text = str(address[0])
            if not text.startswith("127.") and text != "::1" and _is_own(text):
                return text
    for target in ("192.0.2.1", "2001:db8::1"):  # away from here; nothing is sent
        with suppress(OSError), _datagrams(target) as probe:  # else there is no such way
            probe.connect((target, 9))
            return str(probe.getsockname()[0])
    return "127.0.0.1"


def _is_own(address: str) -> bool:
    with suppress(OSError), _datagrams(address) as probe:
        probe.bind((address, 0))
        return True
    return False


def _datagrams(address: str) -> socket.socket:
    return socket.socket(socket.AF_INET6 if ":" in address else socket.AF_INET, socket.SOCK_DGRAM)


async def serve(arguments: Sequence[str]) -> None:
    """Be the agent of this host, by a mailbox if arguments name one."""
    if arguments:
        ours, theirs = mailbox_files(*arguments)
        box = Mailbox(theirs, ours)
        following = asyncio.create_task(box.follow())
        appending = asyncio.create_task(box.append())
        reading, writing = box.reading, box.writing
    else:
        reading, writing = os.dup(0), os.dup(1)
    null = os.open(os.devnull, os.O_RDWR)
    os.dup2(null, 0)
    os.dup2(2, 1)  # whatever else is printed here must not stand among the messages
    os.close(null)
    await Agent(reading, writing).serve()
    if arguments:
        following.cancel()
        await asyncio.wait((following, appending), timeout=2 * LOOK_SECONDS)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1:]), debug=False)
