"""Every function of the interface, under every communication manager.

One program (``programs/interface.py``) makes all the checks within one run and reports
each; a test asserts what was reported of its check, so that a manager costs one
start, not thirty.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests.checks import checks_of, verdicts

PROGRAM = Path(__file__).parent / "programs" / "interface.py"
CHECKS = checks_of(PROGRAM)
PLACES = [
    "serial", "local-1", "local-2", "local-3", "local-8", "mpi-1", "mpi-2", "mpi-4", "mpi-8",
    "mpich-2", "mpich-4", "tcp-1", "tcp-2", "tcp-4", "relaying-7",
]  # fmt: skip
FAST = ("serial", "local-2", "mpi-2", "tcp-2")  # one of each kind; the others are slow
def _place(name: str) -> Any:
    """Return the parameter of a place: its run is made once, in one process."""
    marks = [pytest.mark.xdist_group(f"interface {name}")]
    return pytest.param(name, marks=marks if name in FAST else [*marks, pytest.mark.slow])


@pytest.mark.parametrize("place", [_place(each) for each in PLACES])
@pytest.mark.parametrize("check", CHECKS)
def test_interface(check: str, place: str) -> None:
    verdicts, ending = verdicts(PROGRAM, place)
    assert verdicts.get(check, f"not reached; {ending}") == "ok"


@pytest.mark.parametrize("place", [_place(each) for each in PLACES])
def test_run_of_all_checks_ends_with_status_0(place: str) -> None:
    assert verdicts(PROGRAM, place)[1] == ""


def test_there_are_checks() -> None:
    assert len(CHECKS) > 25
    assert os.path.exists(PROGRAM)
