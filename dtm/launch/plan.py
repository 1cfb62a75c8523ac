"""The plan of a run on hosts: which ranks each host has, and how its agent is started.

Ranks are counted along the hosts in their order, so rank 0, the root, is the first slot of the
first host.  The launcher starts an agent on each host over a connection of its own, up to
``fan_out``; of more hosts it starts the first of each group, and that agent starts the others of
its group in the same way.  Hosts that are this machine need no agent.

The workers get the interpreter, its options and the command line that this process has, as in a
local run (:mod:`dtm.launch.command_line`); each host checks that the files named there exist.

What reaches a command line is of this package, or the name, user and port of a host, which
:class:`dtm.launch.hosts.Host` has validated, or quoted.  A password is never asked for
(``BatchMode``), so a host that wants one fails at once; how host keys are checked is left alone.

Read-only; any thread; ``run_on_hosts`` in the main thread, before there is a run.

Rejected: one tree of fixed degree.  Each of its levels costs the seconds of a login, and a few
dozen connections cost nothing.  Also: a new command line made of the options that matter; some
option of the interpreter would always be missing.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from dtm.errors import CommunicationError, OptionError
from dtm.launch.command_line import command_line, program_file, start_directory, why_not_again
from dtm.launch.hosts import Host
from dtm.options import CONNECT_SECONDS, Settings

if TYPE_CHECKING:
    from dtm.launch.allocation import Allocation

FAN_OUT = 64
EXACT = ("srun", "flux")  # starters that run the words as they are; the others use a shell


@dataclass(frozen=True, slots=True)
class Site:
    """A host's part in a run.

    Attributes:
        host: the machine, with as many slots as it has workers here.
        first: the rank of its first worker; the others follow.
        below: the sites whose agents are started from here.
    """

    host: Host
    first: int
    below: tuple[Site, ...] = ()

    @property
    def ranks(self) -> range:
        """The ranks of this host."""
        return range(self.first, self.first + self.host.slots)

    @property
    def depth(self) -> int:
        """How many levels of agents are below this one."""
        return max((1 + site.depth for site in self.below), default=0)

    def all(self) -> Iterator[Site]:
        """Give this site and all below it."""
        yield self
        for site in self.below:
            yield from site.all()

    def written(self) -> dict[str, Any]:
        """Return the fields, for messages."""
        return asdict(self)


def read_site(written: dict[str, Any]) -> Site:
    """Return the site that was written."""
    below = tuple(map(read_site, written["below"]))
    return Site(Host(**written["host"]), written["first"], below)


def placed(hosts: Sequence[Host], workers: int | None = None) -> list[Site]:
    """Give ranks to hosts: one for each slot, or only to the first ``workers`` slots.

    Raises:
        OptionError: there are not so many slots.
    """
    slots = sum(host.slots for host in hosts)
    if workers is not None and workers > slots:
        raise OptionError(f"{workers} workers are more than the {slots} slots of the hosts")
    first, end = 0, slots if workers is None else workers
    sites: list[Site] = []
    for host in hosts:
        taken = min(end - first, host.slots)
        if taken:
            part = Host(host.name, taken, host.user, host.port, host.python)
            sites.append(Site(part, first))
        first += taken
    return sites


def grouped(sites: Sequence[Site], fan_out: int = FAN_OUT) -> list[Site]:
    """Put sites below each other so that none starts more than ``fan_out``."""
    if len(sites) <= fan_out:
        return list(sites)
    heads: list[Site] = []
    for number in range(fan_out):
        start, end = (len(sites) * place // fan_out for place in (number, number + 1))
        head, *rest = sites[start:end]
        heads.append(Site(head.host, head.first, tuple(grouped(rest, fan_out))))
    return heads


def names(sites: Sequence[Site], here: str = "localhost") -> list[str]:
    """Return the name of the host of each rank; ``here`` is that of this machine."""
    return [here if site.host.is_local else site.host.name for site in sites for _ in site.ranks]


def check_ports(workers: int, name: str, ports: tuple[int, int] | None) -> None:
    """Check that a range has a port for each worker of a host.

    Raises:
        OptionError: it has not.
    """
    if ports is None:
        return
    low, high = ports
    there = high - low + 1
    if workers > there:
        raise OptionError(
            f"the {workers} workers on {name} need a port each, and {low}-{high} has {there}; "
            "give a wider range of ports (--ports, DTM_PORTS)"
        )


class Starting(NamedTuple):
    """How the agents of a run are started."""

    python: str  # the interpreter on hosts that have none of their own
    path: str = ""  # PYTHONPATH there
    ssh: str = "ssh"  # the program that replaces it, and its arguments
    timeout: float = CONNECT_SECONDS  # that a host has to answer
    fan_out: int = FAN_OUT  # how many agents one process starts
    starters: dict[str, list[str]] | None = None  # for each host the words instead of ssh
    mailboxes: str | None = None  # the directory of the files that replace standard streams

    def command(self, host: Host) -> list[str]:
        """Return the command that starts the agent of a host."""
        agent = [host.python or self.python, "-m", "dtm.launch.agent"]
        if self.mailboxes is not None:
            agent += [self.mailboxes, host.name]
        if self.path:
            agent = ["env", f"PYTHONPATH={self.path}", *agent]
        starter = (self.starters or {}).get(host.name)
        if starter is None:
            return ssh_command(host, ["exec", *agent], ssh=self.ssh, timeout=self.timeout)
        exact = starter[0] in EXACT
        return [*starter, *(agent if exact else map(shlex.quote, agent))]


def ssh_command(
    host: Host, command: Sequence[str], *, ssh: str = "ssh", timeout: float = CONNECT_SECONDS
) -> list[str]:
    """Return what runs a command on a host; its words arrive as they are.

    ``ssh`` is a program that takes the arguments of ``ssh``, with its first arguments; two thirds
    of the ``timeout`` for the answer are for the connection.
    """
    connecting = max(1, int(timeout * 2 / 3))
    options = ["-T", "-o", "BatchMode=yes", "-o", f"ConnectTimeout={connecting}"]
    if host.user is not None:
        options += ["-l", host.user]
    if host.port is not None:
        options += ["-p", str(host.port)]
    return [*words(ssh), *options, "--", host.name, shlex.join(command)]


def words(command: str) -> list[str]:
    """Split what replaces ``ssh``.

    Raises:
        OptionError: a quote is open, or there is nothing.
    """
    try:
        split = shlex.split(command)
    except ValueError as error:
        raise OptionError(f"--ssh {command!r} cannot be split into words: {error}") from error
    if not split:
        raise OptionError("--ssh needs the name of a program")
    return split


class Run(NamedTuple):
    """What is to be started."""

    sites: Sequence[Site]
    arguments: Sequence[str]  # of the interpreter, on every host
    directory: str  # where the workers start
    files: Sequence[str]  # what every host must have
    starting: Starting
    settings: Settings = Settings()
    module: str = ""  # what every host must have if the program is a module
    program: str = ""  # the program and its arguments, for people to read

    @property
    def leaves_the_machine(self) -> bool:
        """Whether any connection goes to another machine, or may."""
        return self.settings.bind is not None or bool(self.remote)

    @property
    def remote(self) -> list[Site]:
        """The sites that are other machines."""
        return [site for site in self.sites if not site.host.is_local]

    def described(self) -> str:
        """Say what would be started, in lines."""
        lines = []
        tops = {site.host.name for site in grouped(self.remote, self.starting.fan_out)}
        for site in self.sites:
            host, ranks = site.host, site.ranks
            which = f"rank {ranks[0]}" if len(ranks) == 1 else f"ranks {ranks[0]} to {ranks[-1]}"
            by = "this process" if host.is_local or host.name in tops else "another agent"
            lines += [f"{host.name}: {which}", f"    started by {by}"]
            if not host.is_local:
                lines[-1] += f": {shlex.join(self.starting.command(host))}"
                if host.python is not None:
                    there = shlex.join([host.python, *self.arguments])
                    lines.append(f"    each worker there: {there}")
        if self.settings.join_slots:
            lines.append(f"and {self.settings.join_slots} more may join by hand")
        command = shlex.join([self.starting.python, *self.arguments])
        return "\n".join([*lines, f"in {self.directory}, each worker: {command}", ""])


def run_on_hosts(
    hosts: Sequence[Host],
    settings: Settings,
    workers: int | None = None,
    granted: Allocation | None = None,
) -> Run:
    """Return the run that this program makes on hosts, which may be of an allocation.

    Raises:
        CommunicationError: this program cannot be started again.
        OptionError: there are not so many slots, or not so many ports.
    """
    command = command_line()
    if command is None:
        raise CommunicationError(f"no worker can be started: {why_not_again()}")
    sites = placed(hosts, workers)
    here = sum(site.host.slots for site in sites if site.host.is_local)
    check_ports(here, "localhost", settings.ports)
    for site in sites:
        check_ports(site.host.slots, site.host.name, settings.ports)
    starters = None if granted is None else _starters(granted)
    passes = starters is None or granted is None or granted.passes_input
    starting = Starting(
        sys.executable,
        os.environ.get("PYTHONPATH", ""),
        settings.ssh,
        settings.connect_timeout,
        settings.fan_out,
        starters,
        mailboxes=None if passes else "",
    )
    file = program_file()
    files = [] if file is None else [file]
    directory = start_directory() or os.sep
    program = shlex.join(sys.argv)
    return Run(sites, command[1:], directory, files, starting, settings, program=program)


def _starters(granted: Allocation) -> dict[str, list[str]] | None:
    """Return how the batch system starts something on its hosts, if that is to be used.

    Where there is ``ssh`` it is used: it is what is known best.
    """
    from shutil import which

    if which("ssh") is not None or granted.start is None:
        return None
    found = {host.name: granted.starter(host) for host in granted.hosts}
    return {name: list(words) for name, words in found.items() if words is not None}
