"""What tasks may rely on, under every communication manager: ``programs/waits.py``."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from tests import checks

PROGRAM = Path(__file__).parent / "programs" / "waits.py"
FAST = ("local-1", "local-3", "mpi-2")
PLACES = (*FAST, "local-2", "local-7", "mpi-4", "tcp-3")


def _place(name: str) -> Any:
    marks = [pytest.mark.xdist_group(f"waits {name}")]
    return pytest.param(name, marks=marks if name in FAST else [*marks, pytest.mark.slow])


@pytest.mark.parametrize("place", [_place(each) for each in PLACES])
@pytest.mark.parametrize("check", checks.names(PROGRAM))
def test_what_tasks_may_rely_on(check: str, place: str) -> None:
    checks.assert_kept(PROGRAM, place, check)
