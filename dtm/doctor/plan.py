"""A plan: the run that would be started, which is what the doctor judges the machines by.

Read-only; any thread.
"""

from __future__ import annotations

from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass

from dtm.errors import OptionError
from dtm.launch.allocation import Allocation, allocation
from dtm.launch.hosts import Host, compress, read_hosts
from dtm.launch.plan import words
from dtm.options import CONNECT_SECONDS

WAYS = ("mpi", "local", "tcp")


@dataclass(frozen=True, slots=True)
class Plan:
    """What would be started.

    Attributes:
        way: the communication manager: "mpi", "local" or "tcp".
        workers: how many workers there would be in all.
        hosts: the hosts of a run over TCP with the workers on each; none for other runs.
        granted: the allocation that they are from.
        around: the allocation that this process is in, whether the run uses it or not.
        hosts_file: the file that the hosts are from.
        ssh: what replaces ``ssh``.
        seconds: how long a host may take to answer.
        under_mpi: whether an MPI launcher has started this process: then the run is there.
    """

    way: str
    workers: int
    hosts: tuple[Host, ...] = ()
    granted: Allocation | None = None
    around: Allocation | None = None
    hosts_file: str | None = None
    ssh: str = "ssh"
    seconds: float = CONNECT_SECONDS
    under_mpi: bool = False

    def __str__(self) -> str:
        workers = "1 worker" if self.workers == 1 else f"{self.workers} workers"
        if self.way == "local":
            return f"{workers} on this machine"
        if self.way == "mpi":
            return f"{workers} under MPI"
        names = compress(host.name for host in self.hosts)
        granted = "" if self.granted is None else f", granted by {self.granted.system}"
        return f"{workers} on {names}{granted}"


@dataclass(frozen=True, slots=True)
class Wishes:
    """What the command line says.

    Attributes:
        way: the communication manager, None for the one that would be chosen.
        workers: how many, None for all that there is room for.
        hosts_file: a file of hosts.
        ssh: what replaces ``ssh``.
        seconds: how long a host may take to answer.
    """

    way: str | None = None
    workers: int | None = None
    hosts_file: str | None = None
    ssh: str = "ssh"
    seconds: float = CONNECT_SECONDS


def planned(wishes: Wishes, environ: Mapping[str, str], usable: int) -> Plan:
    """Return the run that would be started, on ``usable`` cores if it is of this machine.

    That is also bounded by what the batch system has granted here.

    Raises:
        OptionError: hosts or allocation cannot be understood, or the wishes contradict each other.
    """
    from dtm.comm.mpi.environment import launched_by_mpi

    words(wishes.ssh)
    if wishes.hosts_file is not None:
        if wishes.way not in (None, "tcp"):
            raise OptionError(f"--hosts needs the communication manager tcp, not {wishes.way}")
        around = None
        with suppress(OptionError):  # the file is the way around what is not understood
            around = allocation(environ)
        return _on_hosts(wishes, read_hosts(wishes.hosts_file), None, around)
    if wishes.way in (None, "mpi") and launched_by_mpi(environ):
        return Plan("mpi", announced(environ), seconds=wishes.seconds, under_mpi=True)
    around = allocation(environ)
    if around is not None and wishes.way in (None, "tcp") and around.is_beyond_here:
        return _on_hosts(wishes, around.hosts, around, around)
    slots = usable if around is None or around.is_beyond_here else _slots(around)
    workers = wishes.workers or min(usable, slots)
    if wishes.way == "tcp":
        return _on_hosts(wishes, (Host("localhost", workers),), None, around)
    return Plan(wishes.way or "local", workers, around=around, seconds=wishes.seconds)


def announced(environ: Mapping[str, str]) -> int:
    """Return how many ranks the launcher says that it has started, 1 if it says nothing."""
    for variable in (
        "OMPI_COMM_WORLD_SIZE",
        "PMI_SIZE",
        "MV2_COMM_WORLD_SIZE",
        "JSM_NAMESPACE_SIZE",
    ):
        if environ.get(variable, "").isdigit():
            return int(environ[variable])
    if "PMIX_RANK" in environ and environ.get("SLURM_NTASKS", "").isdigit():
        return int(environ["SLURM_NTASKS"])
    return 1


def rank(environ: Mapping[str, str]) -> int:
    """Return which rank the launcher says that this process is, 0 if it says nothing."""
    for variable in (
        "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID",
        "JSM_NAMESPACE_RANK",
    ):  # fmt: skip
        if environ.get(variable, "").isdigit():
            return int(environ[variable])
    return 0


def _slots(granted: Allocation) -> int:
    return sum(host.slots for host in granted.hosts)


def _on_hosts(
    wishes: Wishes,
    hosts: tuple[Host, ...],
    granted: Allocation | None,
    around: Allocation | None,
) -> Plan:
    from dtm.launch.plan import placed

    taken = tuple(site.host for site in placed(hosts, wishes.workers))
    return Plan(
        "tcp",
        sum(host.slots for host in taken),
        taken,
        granted,
        around,
        wishes.hosts_file,
        wishes.ssh,
        wishes.seconds,
    )
