"""Simulation finds every planted bug."""

from __future__ import annotations

import pytest

from benchmarks.plant_bugs import BUGS, Bug, search


def test_there_are_bugs_enough() -> None:
    assert len({bug.name for bug in BUGS}) >= 15


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_is_found(bug: Bug) -> None:
    seeds, how = search(bug)
    assert seeds is not None, f"{bug.name} survived"
    assert how
