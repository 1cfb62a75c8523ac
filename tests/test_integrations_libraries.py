"""Libraries that take a map, a pool or an executor run on dtm as they are."""

from __future__ import annotations

import pytest

from tests import checks
from tests.launch import PROGRAMS

PROGRAM = PROGRAMS / "libraries.py"


@pytest.mark.parametrize("place", ["local-3", pytest.param("mpi-3", marks=pytest.mark.slow)])
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_on_dtm(check: str, place: str) -> None:
    checks.assert_kept_alone(PROGRAM, place, check)
