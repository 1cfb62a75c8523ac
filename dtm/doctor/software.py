"""The software on a machine: Python, dtm and dill, and whether they fit those here.

Pure; any thread.
"""

from __future__ import annotations

from dtm.doctor.finding import Finding, fine, problem, warning
from dtm.doctor.machine import Machine

OLDEST = (3, 11)


def judge(machine: Machine, here: Machine) -> list[Finding]:
    """Judge the software of a machine; ``here`` is where the doctor runs."""
    wrong = [
        finding
        for finding in (_python(machine, here), _dtm(machine, here), _dill(machine))
        if finding is not None
    ]
    return wrong or [
        fine(
            "software", f"Python {written(machine.python)}, dtm {machine.dtm}, dill {machine.dill}"
        )
    ]


def too_old(python: tuple[int, ...], executable: str) -> Finding:
    """Return what to say of a Python that cannot even be looked from."""
    return problem(
        "software",
        f"{executable} is Python {written(python)}",
        f"dtm needs Python {written(OLDEST)} or later; name one by python= in the file of hosts",
    )


def written(version: tuple[int, ...]) -> str:
    """Return a version as people write it."""
    return ".".join(map(str, version))


def _python(machine: Machine, here: Machine) -> Finding | None:
    if machine.python[:2] < OLDEST:
        return too_old(machine.python, machine.executable)
    if machine.implementation != "CPython":
        return warning(
            "software",
            f"{machine.executable} is {machine.implementation}",
            "dtm is tested with CPython alone",
        )
    if machine.python[:2] != here.python[:2]:
        return problem(
            "software",
            f"{machine.executable} is Python {written(machine.python)}, here it is "
            f"{written(here.python)}",
            "what one pickles the other may not load: use the same minor version everywhere, "
            "by python= in the file of hosts for example",
        )
    return None


def _dtm(machine: Machine, here: Machine) -> Finding | None:
    if machine.dtm is None:
        return problem(
            "software",
            f"dtm cannot be imported by {machine.executable} ({machine.dtm_error})",
            f"install dtm {here.dtm} for that Python, or name the one that has it by python=",
        )
    if machine.dtm != here.dtm:
        return problem(
            "software",
            f"dtm is {machine.dtm} there and {here.dtm} here",
            f"workers of different versions refuse each other: install dtm {here.dtm} there",
        )
    return None


def _dill(machine: Machine) -> Finding | None:
    if machine.dill is not None:
        return None
    return warning(
        "software",
        f"{machine.executable} has no dill",
        "functions made in main, closures and lambdas cannot travel without it: pip install dill",
    )
