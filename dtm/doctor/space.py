"""Room for files: temporary ones, shared memory, and how many may be open.

Pure; any thread.
"""

from __future__ import annotations

from dtm.doctor.finding import Finding, fine, problem, warning
from dtm.doctor.machine import Machine

_MB = 1_000_000
_LEAST_TEMPORARY = 100 * _MB
_LEAST_SHARED = 64 * _MB
_FILES_BESIDE = 100
_FILES_A_WORKER = 4


def judge(machine: Machine, workers: int) -> list[Finding]:
    """Judge whether there is room for a run with so many workers on a machine."""
    found = [*_temporary(machine), *_shared(machine), *_files(machine, workers)]
    return found or [fine("space", f"{_size(machine.temporary_free)} free in {machine.temporary}")]


def _temporary(machine: Machine) -> list[Finding]:
    if machine.temporary is None:
        return [
            problem(
                "space",
                "there is no directory where temporary files can be written",
                "set TMPDIR to one: the workers of a machine meet there",
            )
        ]
    if machine.refused is not None:
        return [
            warning(
                "space",
                f"TMPDIR is {machine.refused}, where no file can be written; {machine.temporary} "
                "is used instead",
                "make that directory, or set TMPDIR to one that is there on every host",
            )
        ]
    if machine.temporary_free < _LEAST_TEMPORARY:
        return [
            warning(
                "space",
                f"only {_size(machine.temporary_free)} are free in {machine.temporary}",
                "remove what is not needed there, or set TMPDIR to another directory",
                free=machine.temporary_free,
            )
        ]
    return []


def _shared(machine: Machine) -> list[Finding]:
    if machine.shared_free is None or machine.shared_free >= _LEAST_SHARED:
        return []
    return [
        warning(
            "space",
            f"only {_size(machine.shared_free)} are free in /dev/shm",
            "MPI libraries join the ranks of a machine there, and fail without: remove what "
            "dead runs have left, or give the container more (--shm-size)",
            free=machine.shared_free,
        )
    ]


def _files(machine: Machine, workers: int) -> list[Finding]:
    needed = workers * _FILES_A_WORKER + _FILES_BESIDE
    if machine.files < 0 or machine.files >= needed:  # below zero: no limit
        return []
    return [
        warning(
            "open files",
            f"a process may have {machine.files} files open, {workers} workers can take {needed}",
            f"ulimit -n {needed}",
            limit=machine.files,
        )
    ]


def _size(count: int) -> str:
    return f"{count / 1e9:.1f} GB" if count >= 1e9 else f"{count / _MB:.0f} MB"
