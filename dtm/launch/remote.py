"""How an agent is started on another host: by ``ssh``, or by what a batch system has for it.

Everything that reaches a command line is either of this package, or a host's name,
user and port that :class:`dtm.launch.hosts.Host` has validated, or quoted.  A
password is never asked for (``BatchMode``), so a host that wants one is an error at
once, and nothing here touches how host keys are checked.

Read-only; any thread.

Rejected: X11, agent and port forwarding are left as the user's configuration has
them: it is the place to say so.
"""

from __future__ import annotations

import shlex
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from dtm.errors import OptionError
from dtm.launch.hosts import Host

CONNECT_SECONDS = 15.0
EXACT = ("srun", "flux")  # starters that run the words as they are; the others use a shell


def ssh_command(
    host: Host, command: Sequence[str], *, ssh: str = "ssh", timeout: float = CONNECT_SECONDS
) -> list[str]:
    """Return what runs a command on a host.

    Args:
        host: where.
        command: its words, which arrive as they are.
        ssh: the program and its first arguments; takes the arguments of ``ssh``.
        timeout: seconds for the answer; the connection has two thirds of it.
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


@dataclass(frozen=True, slots=True)
class Starting:
    """How agents are started in a run.

    Attributes:
        python: the interpreter on hosts that have none of their own.
        path: ``PYTHONPATH`` there, empty for none.
        ssh: the program that replaces ``ssh``, and its arguments.
        timeout: seconds that a host has to answer.
        fan_out: how many agents one process starts.
        starters: for each host the words that go before a command instead of ``ssh``.
        mailboxes: the directory of files by which agents are spoken to where starters pass
            nothing on (:mod:`dtm.launch.mailbox`), None where they do.
    """

    python: str
    path: str = ""
    ssh: str = "ssh"
    timeout: float = CONNECT_SECONDS
    fan_out: int = 64
    starters: dict[str, list[str]] | None = None
    mailboxes: str | None = None

    def written(self) -> dict[str, Any]:
        """Return the fields, for messages."""
        return asdict(self)

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
