"""What a launcher and an agent have in common: workers of this host, and agents below.

Messages from above come in by ``take``; what goes up leaves by ``emit``.  A node has
all the workers of its own sites (an agent has one site, a launcher those that are
this machine, or none) and one branch for each agent that it starts.

Threads: the loop's.

Rejected: an agent for this machine too, for one way alone: it would be another
interpreter to start, on the way of every run on one machine.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence

from dtm.errors import CommunicationError
from dtm.launch.loop import Loop
from dtm.launch.messages import (
    Address,
    Death,
    Go,
    Gone,
    Job,
    Message,
    Over,
    Ready,
    Refused,
    Signal,
)
from dtm.launch.modules import is_there
from dtm.launch.plan import Site
from dtm.launch.processes import Crew
from dtm.launch.remote import Starting
from dtm.launch.remote_agent import PULSE_SECONDS, Branch, site_depth

_PARTING_SECONDS = 4.0  # for agents below to end their workers, and themselves


class Node:
    """Workers of this host, and agents below.

    Args:
        loop: calls back.
        sites: the parts of this host.
        below: the parts whose agents are started from here.
        job: what to do; its site is of no concern here.
        emit: takes what goes up.
    """

    def __init__(
        self,
        loop: Loop,
        sites: Sequence[Site],
        below: Sequence[Site],
        job: Job,
        emit: Callable[[Message], object],
    ) -> None:
        self._loop = loop
        self._sites = sites
        self._job = job
        self._emit = emit
        command = [sys.executable, *job.arguments]
        self._crews = {
            site.host.name: Crew(loop, site.ranks, command, job.environment, job.invitation, emit)
            for site in sites
        }
        starting = Starting(**job.starting)
        self._branches = [Branch(loop, site, starting, self._job_of, emit) for site in below]

    def prepare(self, here: str, there: str) -> None:
        """Look whether this host can do its part, and have those below look.

        ``here`` and ``there`` are both ends of the way to whoever started this node.
        """
        for branch in self._branches:
            branch.start()
        self._loop.every(PULSE_SECONDS, self._beat)
        reason = _missing(self._job)
        for site in self._sites:
            name = site.host.name
            self._emit(Ready(name, here, there) if reason is None else Refused(name, reason))

    def take(self, message: Message) -> None:
        """Do what a message from above says, and pass it on."""
        for branch in self._branches:
            branch.send(message)
        if isinstance(message, Go):
            self._start(message)
        for crew in self._crews.values():
            if isinstance(message, Address):
                crew.invite(message.address)
            elif isinstance(message, Signal):
                crew.signal_root(message.number)
            elif isinstance(message, Death):
                crew.tell_root(message.ranks, message.reason)
            elif isinstance(message, Over):
                crew.dismiss()

    def pause(self, *, reading: bool) -> None:
        """Cease to read what comes from workers and from below, or go on."""
        for crew in self._crews.values():
            crew.pause(reading=reading)
        for branch in self._branches:
            branch.pause(reading=reading)

    def end(self) -> None:
        """End everything that was started; returns when that is done, or soon after."""
        heeding = [branch for branch in self._branches if branch.heeds and not branch.silent]
        for branch in self._branches:
            if branch not in heeding:
                branch.kill()
        for branch in heeding:
            branch.dismiss()
        for crew in self._crews.values():
            crew.end()
        levels = 1 + max((site_depth(branch.site) for branch in heeding), default=0)
        self._loop.run_until(
            lambda: all(branch.left for branch in heeding), levels * _PARTING_SECONDS
        )
        for branch in heeding:
            branch.kill()

    def _start(self, go: Go) -> None:
        for site in self._sites:
            name = site.host.name
            try:
                self._crews[name].start(go.addresses.get(name))
            except CommunicationError as error:
                self._emit(Gone([name], list(site.ranks), f"on {name} {error}"))

    def _beat(self) -> None:
        for branch in self._branches:
            branch.beat()

    def _job_of(self, site: Site) -> Job:
        return self._job._replace(site=site.written())


def _missing(job: Job) -> str | None:
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
    if job.module and not is_there(job.module, job.directory, job.environment):
        return f"there is no module {job.module}"
    return None
