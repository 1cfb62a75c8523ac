"""joblib's own calls run on dtm, nested ones too."""

from __future__ import annotations

import pytest

from tests import checks
from tests.launch import PROGRAMS

pytest.importorskip("joblib", reason="joblib is not installed: pip install 'dtm[joblib]'")

PROGRAM = PROGRAMS / "joblib_calls.py"
PLACES = checks.places(PROGRAM, "local-3", "local-1", "mpi-3")


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_in_a_run(check: str, place: str) -> None:
    checks.assert_kept(PROGRAM, place, check)


@pytest.mark.parametrize("place", PLACES)
def test_the_run_ends_well(place: str) -> None:
    checks.assert_ended_well(PROGRAM, place)
