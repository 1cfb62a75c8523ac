"""A machine, as a process on it sees it: software, cores, load, room for files.

The text of this module is also sent to other hosts and run by the Python there.  So it
imports nothing but the standard library at its top, and runs on every Python that
dtm runs on: whether that is installed there is one of the things to see.

It changes nothing; any thread.

Rejected: psutil for cores and load.  It would have to be installed on each host first.
"""

from __future__ import annotations

import os
import platform
import resource
import sys
import tempfile
from dataclasses import dataclass
from importlib import metadata
from typing import Any

OLDEST = (3, 11)  # the first Python that dtm runs on


@dataclass(frozen=True)
class Machine:
    """What was seen of a machine.

    Attributes:
        name: what the machine calls itself.
        python: the version, as three numbers.
        implementation: of Python, as in "CPython".
        executable: the path of the interpreter.
        dtm: its version; None if it cannot be imported.
        dtm_error: why not.
        dill: the version of that library, None if it is not installed.
        cores: how many the machine has.
        affinity: those that this process may run on.
        usable: how many of them its quota comes to.
        load: processes that ran or wanted to in the last minute, on average.
        temporary: the directory for temporary files, None if none can be written to.
        temporary_free: the free bytes there.
        shared_free: the free bytes of shared memory, None if there is none.
        threads: the variables that tell numeric libraries how many threads to start.
        files: how many files a process may hold open.
        refused: the directory that TMPDIR names, if it is not the one for temporary files.
    """

    name: str
    python: tuple[int, ...]
    implementation: str
    executable: str
    dtm: str | None
    dtm_error: str
    dill: str | None
    cores: int
    affinity: tuple[int, ...]
    usable: int
    load: float
    temporary: str | None
    temporary_free: int
    shared_free: int | None
    threads: dict[str, str]
    files: int
    refused: str | None = None


def look() -> Machine:
    """Look at this machine."""
    dtm, dtm_error = _dtm()
    temporary, asked = _temporary(), os.environ.get("TMPDIR")
    affinity = _affinity()
    endings = ("_NUM_THREADS", "_MAXIMUM_THREADS")
    return Machine(
        name=platform.node(),
        python=tuple(sys.version_info[:3]),
        implementation=platform.python_implementation(),
        executable=sys.executable,
        dtm=dtm,
        dtm_error=dtm_error,
        dill=installed("dill"),
        cores=os.cpu_count() or 1,
        affinity=affinity,
        usable=_usable(len(affinity)),
        load=os.getloadavg()[0],
        temporary=temporary,
        temporary_free=(temporary and _free(temporary)) or 0,
        shared_free=_free("/dev/shm"),  # noqa: S108 - looked at, not used
        threads={name: text for name, text in os.environ.items() if name.endswith(endings)},
        files=resource.getrlimit(resource.RLIMIT_NOFILE)[0],
        refused=asked if asked and temporary and os.path.abspath(asked) != temporary else None,
    )


def read(seen: dict[str, Any]) -> Machine:
    """Return the machine that was written as JSON."""
    lists = {name: tuple(seen[name]) for name in ("python", "affinity")}
    return Machine(**{**seen, **lists})


def _dtm() -> tuple[str | None, str]:
    try:
        import dtm
    except Exception as error:  # noqa: BLE001 - a broken package may raise anything: it is reported
        return None, f"{type(error).__name__}: {error}"
    return dtm.__version__, ""


def installed(name: str) -> str | None:
    """Return the version of an installed package, None if it is not installed."""
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return None


def _affinity() -> tuple[int, ...]:
    if hasattr(os, "sched_getaffinity"):
        return tuple(sorted(os.sched_getaffinity(0)))
    return tuple(range(os.cpu_count() or 1))


def _usable(allowed: int) -> int:
    try:
        from dtm.launch.cores import available_cores
    except ImportError:
        return allowed
    return available_cores()


def _temporary() -> str | None:
    try:
        return tempfile.gettempdir()
    except FileNotFoundError:
        return None


def _free(path: str) -> int | None:
    try:
        there = os.statvfs(path)
    except OSError:
        return None
    return there.f_bavail * there.f_frsize
