"""This program, started again on hosts: what :class:`dtm.launch.launcher.Run` that makes.

The workers get the interpreter, its options and the command line that this process
has, as in a local run (:mod:`dtm.launch.command_line`); the files named in there are
checked on every host.

Called in the main thread, before there is a run.

Rejected: to make a new command line of the options that matter.  Some option of the
interpreter would always be missing.
"""

from __future__ import annotations

import os
import shlex
import sys
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from dtm.errors import CommunicationError, OptionError
from dtm.launch.command_line import command_line, program_file, start_directory, why_not_again
from dtm.launch.hosts import Host
from dtm.launch.launcher import Run
from dtm.launch.plan import check_all_ports, placed
from dtm.launch.remote import Starting
from dtm.launch.settings import Settings

if TYPE_CHECKING:
    from dtm.launch.allocation import Allocation

_OLD_OPTION = "--dtmTCPhosts"


def run_again(
    hosts: Sequence[Host],
    chosen: Settings,
    workers: int | None = None,
    files: Sequence[str] = (),
    program: str = "",
    granted: Allocation | None = None,
    module: str = "",
) -> Run:
    """Return the run that this program makes on hosts.

    Args:
        hosts: where.
        chosen: how.
        workers: how many, None for all slots.
        files: what has to be on each host besides the file that the interpreter runs.
        program: the program and its arguments, for people.
        granted: the allocation that the hosts are from.
        module: what has to be on each host, if the program is a module.

    Raises:
        CommunicationError: this program cannot be started again.
        OptionError: there are not so many slots, or not so many ports.
    """
    command = command_line()
    if command is None:
        raise CommunicationError(f"no worker can be started: {why_not_again()}")
    sites = placed(hosts, workers)
    check_all_ports(sites, chosen.ports)
    file = program_file()
    starters = None if granted is None else _starters(granted)
    passes = starters is None or granted is None or granted.passes_input
    return Run(
        sites=sites,
        arguments=command[1:],
        directory=start_directory() or os.sep,
        files=[*([] if file is None else [file]), *files],
        starting=Starting(
            python=sys.executable,
            path=os.environ.get("PYTHONPATH", ""),
            ssh=chosen.ssh,
            timeout=chosen.connect_timeout,
            fan_out=chosen.fan_out,
            starters=starters,
            mailboxes=None if passes else "",
        ),
        module=module,
        join_slots=chosen.join_slots or 0,
        ports=chosen.ports,
        bind=chosen.bind,
        tls=chosen.tls,
        tag_output=chosen.tag_output,
        secret_file=chosen.secret_file,
        program=program or shlex.join(sys.argv),
    )


def _starters(granted: Allocation) -> dict[str, list[str]] | None:
    """Return how the batch system starts something on its hosts, if that is to be used.

    Where there is ``ssh`` it is used: it is what is known best.
    """
    from shutil import which

    if which("ssh") is not None or granted.start is None:
        return None
    found = {host.name: granted.starter(host) for host in granted.hosts}
    return {name: list(words) for name, words in found.items() if words is not None}


def old_hosts_file(arguments: Sequence[str]) -> str | None:
    """Return the file of hosts that scripts for DEAP's dtm name on their command line.

    Raises:
        OptionError: the option stands there without a file.
    """
    named = None
    for number, argument in enumerate(arguments):
        if argument.startswith(f"{_OLD_OPTION}="):
            named = argument.removeprefix(f"{_OLD_OPTION}=")
        elif argument == _OLD_OPTION:
            if number + 1 == len(arguments):
                raise OptionError(f"{_OLD_OPTION} needs the file of hosts")
            named = arguments[number + 1]
    return named


def beyond_here(environ: Mapping[str, str]) -> Allocation | None:
    """Return the allocation of this environment if it has hosts besides this one."""
    from dtm.launch.allocation import allocation

    granted = allocation(environ)
    return granted if granted is not None and is_beyond_here(granted) else None


def is_beyond_here(granted: Allocation) -> bool:
    """Whether an allocation has hosts besides this one."""
    return not all(_is_here(host) for host in granted.hosts)


def _is_here(host: Host) -> bool:
    mine = os.uname().nodename.lower()
    name = host.name.lower()
    return host.is_local or name == mine or name.partition(".")[0] == mine.partition(".")[0]
