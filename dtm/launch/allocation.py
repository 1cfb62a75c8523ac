"""What a batch system has granted this job: hosts, slots, and how to start something there.

Each system says it in its own way: a compressed list (Slurm), a file with a line for each
slot (PBS, Torque, OAR, LSF), a file with a line for each host (Grid Engine), pairs in a
variable (LSF), the answer of a command (Flux).  They are read in a fixed order, since one may
run inside another: Flux, which is always the inner one, first.

Invariant: nothing is guessed.  Variables that cannot be read, or contradict each other, are
an error that names them, and that says how ``--hosts`` goes around it.

Read-only; any thread.

Rejected: looking for the commands of the systems on the path.  Login nodes have them too, and
nothing has been granted there.
"""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from dtm.errors import OptionError
from dtm.launch.hosts import MOST_HOSTS, Host, expand, merged

Ask = Callable[[tuple[str, ...]], str]
ASK_SECONDS = 10.0
_COUNT = re.compile(r"([0-9]{1,9})(?:\(x([0-9]{1,9})\))?")


@dataclass(frozen=True, slots=True)
class Allocation:
    """What has been granted."""

    system: str  # the batch system: "slurm", "pbs", "lsf", "sge", "flux" or "oar"
    hosts: tuple[Host, ...]  # with their slots, each once, in the system's order
    # The words that start one process on a host where ssh is not to be used, with {host} or
    # {index} for the host; None if there are none.
    start: tuple[str, ...] | None
    passes_input: bool = True  # whether it reads what its starter gets on standard input

    @property
    def is_beyond_here(self) -> bool:
        """Whether it has hosts besides this one."""
        return not all(map(_is_here, self.hosts))

    def starter(self, host: Host) -> tuple[str, ...] | None:
        """Return the words that start a process on one of the hosts, None if there are none."""
        if self.start is None:
            return None
        index = str(self.hosts.index(host))
        return tuple(
            word.replace("{host}", host.name).replace("{index}", index) for word in self.start
        )


def ask_command(asked: tuple[str, ...]) -> str:
    """Return what a command prints.

    Raises:
        OptionError: it is not there, fails, or takes longer than ``ASK_SECONDS``.
    """
    from subprocess import DEVNULL, SubprocessError, run

    try:
        done = run(  # noqa: S603 - a command of Flux's, with a job's number in it
            asked, stdin=DEVNULL, capture_output=True, text=True, timeout=ASK_SECONDS, check=True
        )
    except (OSError, SubprocessError, UnicodeDecodeError) as error:
        raise OptionError(str(error)) from error
    return done.stdout


def allocation(environ: Mapping[str, str], ask: Ask = ask_command) -> Allocation | None:
    """Return what the batch system of this environment has granted, None if there is none.

    Raises:
        OptionError: the environment cannot be understood; names the variable.
    """
    if environ.get("FLUX_JOB_ID") or environ.get("FLUX_URI"):
        return _flux(environ, ask)
    for variables, read in _SYSTEMS:
        if any(environ.get(variable) for variable in variables):
            granted = read(environ)
            if granted is not None:
                return granted
    return None


def _is_here(host: Host) -> bool:
    mine = os.uname().nodename.lower()
    name = host.name.lower()
    return host.is_local or name == mine or name.partition(".")[0] == mine.partition(".")[0]


def _flux(environ: Mapping[str, str], ask: Ask) -> Allocation:
    """Read what Flux has granted.  Only its command can tell: a batch script lacks even the job."""
    job = environ.get("FLUX_JOB_ID")
    asked = ("flux", "job", "info", job, "R") if job else ("flux", "resource", "R")
    try:
        hosts = [Host(name, cores) for name, cores in _flux_cores(ask(asked))]
    except OptionError as error:
        variable = "FLUX_JOB_ID" if job else "FLUX_URI"
        said = f"what {' '.join(asked)!r} says is not understood"
        raise OptionError(f"{variable} is set, but {said}: {error}; {_WAY_OUT}") from error
    start = ("flux", "exec", *((f"--jobid={job}",) if job else ()), "--rank={index}")
    return Allocation("flux", _granted("FLUX_URI", hosts), start)


def _flux_cores(text: str) -> list[tuple[str, int]]:
    """Return the hosts in a resource set of Flux, in the order of their ranks, with their cores.

    It looks like ``{"version": 1, "execution": {"nodelist": ["n[0-1]"],
    "R_lite": [{"rank": "0-1", "children": {"core": "0-7"}}]}}``.
    """
    try:
        resources: Any = json.loads(text)
        if resources["version"] != 1:
            raise OptionError(f"its version is {resources['version']!r}, not 1")
        execution = resources["execution"]
        hosts = expand(",".join(execution["nodelist"]))
        cores: dict[int, int] = {}
        for part in execution["R_lite"]:
            for rank in expand(f"[{part['rank']}]"):
                many = len(expand(f"[{part['children']['core']}]"))
                cores[int(rank)] = cores.get(int(rank), 0) + many
    except (KeyError, TypeError, AttributeError) as error:
        raise OptionError(f"it is no resource set: {error!r}") from error
    except json.JSONDecodeError as error:
        raise OptionError(f"it is no JSON: {error}") from error
    if len(cores) != len(hosts):
        raise OptionError(f"it has {len(hosts)} hosts and {len(cores)} ranks")
    return [(host, cores[rank]) for host, rank in zip(hosts, sorted(cores))]


def _slurm(environ: Mapping[str, str]) -> Allocation:
    variable = _first(environ, "SLURM_JOB_NODELIST", "SLURM_NODELIST")
    if variable is None:
        raise _wrong("SLURM_JOB_NODELIST", "it is not set, and SLURM_JOB_ID is")
    try:
        names = expand(environ[variable])
    except OptionError as error:
        raise _wrong(variable, str(error)) from error
    slots = _slurm_slots(environ, variable, len(names))
    hosts = [_host(variable, name, count) for name, count in zip(names, slots)]
    return Allocation("slurm", _granted(variable, hosts), _SRUN)


def _slurm_slots(environ: Mapping[str, str], variable: str, nodes: int) -> list[int]:
    """Return the slots of each node: tasks if they were asked for, else as many as have cores."""
    tasks = environ.get("SLURM_TASKS_PER_NODE")
    each = _whole(environ, "SLURM_CPUS_PER_TASK", 1)
    of_one_process = nodes == 1 and tasks == "1"  # it has all the cores of the job to use
    # Inside of a step the variable is the step's, the nodes are the job's.
    of_the_job = tasks is not None and tasks != environ.get("SLURM_STEP_TASKS_PER_NODE")
    if environ.get("SLURM_JOB_CPUS_PER_NODE") and (of_one_process or not of_the_job):
        cores = _counts(environ, "SLURM_JOB_CPUS_PER_NODE", variable, nodes)
        return cores if of_one_process else [max(count // each, 1) for count in cores]
    if of_one_process:
        return [_whole(environ, "SLURM_CPUS_ON_NODE", each)]
    if tasks is not None:
        return _counts(environ, "SLURM_TASKS_PER_NODE", variable, nodes)
    if nodes == 1:
        return [max(_whole(environ, "SLURM_CPUS_ON_NODE", 1) // each, 1)]
    why = f"it is not set, and {variable} names {nodes} nodes"
    raise _wrong("SLURM_TASKS_PER_NODE", why)


def _pbs(environ: Mapping[str, str]) -> Allocation:
    hosts = _one_a_slot("PBS_NODEFILE", _lines(environ, "PBS_NODEFILE"))
    torque = _first(environ, "PBS_NUM_PPN", "PBS_NUM_NODES", "PBS_NP") is not None
    if all(host.slots == 1 for host in hosts):  # some sites write a line a node
        alone = _whole(environ, "NCPUS", 1) if len(hosts) == 1 else 1  # cores of one process
        slots = _whole(environ, "PBS_NUM_PPN", alone)
        hosts = tuple(Host(host.name, slots) for host in hosts)
    if torque:
        return Allocation("pbs", hosts, ("pbsdsh", "-o", "-h", "{host}"), passes_input=False)
    return Allocation("pbs", hosts, ("pbs_tmrsh", "{host}"), passes_input=False)


def _lsf(environ: Mapping[str, str]) -> Allocation:
    found: dict[str, tuple[Host, ...]] = {}
    if text := environ.get("LSB_MCPU_HOSTS"):
        found["LSB_MCPU_HOSTS"] = _pairs("LSB_MCPU_HOSTS", text)
    if environ.get("LSB_DJOB_HOSTFILE"):
        lines = _lines(environ, "LSB_DJOB_HOSTFILE")
        found["LSB_DJOB_HOSTFILE"] = _one_a_slot("LSB_DJOB_HOSTFILE", lines)
    if text := environ.get("LSB_HOSTS"):
        found["LSB_HOSTS"] = _one_a_slot("LSB_HOSTS", text.split())
    (first, hosts), *others = found.items()
    for other, said in others:
        if {h.name.lower(): h.slots for h in said} != {h.name.lower(): h.slots for h in hosts}:
            raise _wrong(other, f"it grants other slots than {first} does")
    return Allocation("lsf", hosts, ("blaunch", "-z", "{host}"))


def _oar(environ: Mapping[str, str]) -> Allocation:
    variable = _first(environ, *_OAR) or _OAR[0]
    return Allocation("oar", _one_a_slot(variable, _lines(environ, variable)), ("oarsh", "{host}"))


def _grid_engine(environ: Mapping[str, str]) -> Allocation | None:
    """Read a job of Grid Engine; without a parallel environment it has slots on this host alone."""
    if not environ.get("PE_HOSTFILE"):
        if not (environ.get("JOB_ID") and environ.get("NSLOTS")):
            return None
        slots = _whole(environ, "NSLOTS", 1)
        return Allocation("sge", (_host("NSLOTS", "localhost", slots),), None)
    hosts: list[Host] = []
    for line in _lines(environ, "PE_HOSTFILE"):
        name, *rest = line.split()
        if not rest or not _is_count(rest[0]):
            raise _wrong("PE_HOSTFILE", f"the line {line!r} of that file has no number of slots")
        hosts.append(_host("PE_HOSTFILE", name, int(rest[0])))
    granted = _granted("PE_HOSTFILE", hosts)
    total = sum(host.slots for host in granted)
    if _whole(environ, "NSLOTS", total) != total:
        raise _wrong("NSLOTS", f"the file that PE_HOSTFILE names has {total} slots")
    return Allocation("sge", granted, ("qrsh", "-inherit", "{host}"))


# One process for all the workers of a host: on all its cores, though this step be of the same
# ones, and without the variables that would make an MPI rank of it.
_SRUN = (
    "srun", "--nodes=1", "--ntasks=1", "--ntasks-per-node=1", "--nodelist={host}",
    "--overlap", "--cpu-bind=none", "--mpi=none", "--export=ALL",
)  # fmt: skip
_OAR = ("OAR_NODEFILE", "OAR_NODE_FILE", "OAR_FILE_NODES")
_SYSTEMS: tuple[tuple[tuple[str, ...], Callable[[Mapping[str, str]], Allocation | None]], ...] = (
    (("SLURM_JOB_NODELIST", "SLURM_NODELIST", "SLURM_JOB_ID"), _slurm),
    (("LSB_MCPU_HOSTS", "LSB_DJOB_HOSTFILE", "LSB_HOSTS"), _lsf),
    (_OAR, _oar),
    (("PE_HOSTFILE", "SGE_ROOT"), _grid_engine),
    (("PBS_NODEFILE",), _pbs),
)
_WAY_OUT = "say --hosts FILE to name the hosts yourself"


def _one_a_slot(variable: str, names: list[str]) -> tuple[Host, ...]:
    """Return the hosts of a list that names a host for each slot."""
    return _granted(variable, [_host(variable, name, 1) for name in names])


def _pairs(variable: str, text: str) -> tuple[Host, ...]:
    """Return the hosts of a list in which a number of slots follows each host."""
    words = text.split()
    names, slots = words[::2], words[1::2]
    if len(names) != len(slots) or not all(map(_is_count, slots)):
        raise _wrong(variable, f"{text!r} is not hosts with a number behind each")
    return _granted(variable, [_host(variable, name, int(n)) for name, n in zip(names, slots)])


def _lines(environ: Mapping[str, str], variable: str) -> list[str]:
    """Return the lines of the file that a variable names."""
    try:
        with open(environ[variable], encoding="utf-8") as file:
            lines = [line.strip() for line in file]
    except (OSError, UnicodeDecodeError) as error:
        raise _wrong(variable, f"that file cannot be read: {error}") from error
    return [line for line in lines if line]


def _granted(variable: str, hosts: list[Host]) -> tuple[Host, ...]:
    if not hosts:
        raise _wrong(variable, "it names no host")
    return merged(hosts)


def _host(variable: str, name: str, slots: int) -> Host:
    try:
        return Host(name, slots)
    except OptionError as error:
        raise _wrong(variable, str(error)) from error


def _counts(environ: Mapping[str, str], variable: str, of: str, nodes: int) -> list[int]:
    """Read what Slurm writes as ``4(x2),3``: a number for each node."""
    counts: list[int] = []
    for part in environ[variable].split(","):
        match = _COUNT.fullmatch(part.strip())
        if match is None or int(match[1]) < 1:
            raise _wrong(variable, f"{environ[variable]!r} is no list such as '4(x2),3'")
        counts += [int(match[1])] * min(int(match[2] or 1), MOST_HOSTS)
    if len(counts) != nodes:
        raise _wrong(variable, f"it is for {len(counts)} nodes, and {of} names {nodes}")
    return counts


def _whole(environ: Mapping[str, str], variable: str, default: int) -> int:
    text = environ.get(variable)
    if not text:
        return default
    if not _is_count(text) or int(text) < 1:
        raise _wrong(variable, f"{text!r} is no whole number of at least 1")
    return int(text)


def _is_count(text: str) -> bool:
    return text.isascii() and text.isdigit() and len(text) <= 9


def _first(environ: Mapping[str, str], *variables: str) -> str | None:
    return next((variable for variable in variables if environ.get(variable)), None)


def _wrong(variable: str, why: str) -> OptionError:
    return OptionError(f"the environment variable {variable} is not understood: {why}; {_WAY_OUT}")
