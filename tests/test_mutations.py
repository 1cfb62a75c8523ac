"""Simulation finds every planted bug."""

from __future__ import annotations

import pytest

from benchmarks import plant_bugs
from benchmarks.plant_bugs import BUGS, Bug, search

pytestmark = pytest.mark.slow


def test_there_are_bugs_enough() -> None:
    assert len({bug.name for bug in BUGS}) >= 15


@pytest.mark.timeout(180)
@pytest.mark.parametrize("bug", BUGS, ids=[bug.name for bug in BUGS])
def test_a_planted_bug_is_found(bug: Bug) -> None:
    seeds, how = search(bug)
    assert seeds is not None, f"{bug.name} survived"
    assert how


def test_what_only_slows_down_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plant_bugs, "SECONDS", 3.0)
    old = "        counters = self.counters\n"
    bug = Bug("sleep", "scheduler", old, f"        __import__('time').sleep(0.01)\n{old}")
    seeds, how = search(bug)
    assert seeds is None
    assert how.startswith("Slow: ")


@pytest.mark.parametrize("ends", [True, False])
def test_a_world_that_hangs_is_found_if_it_ends_without_the_bug(
    ends: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(plant_bugs, "HANGS_SECONDS", 5.0)
    if not ends:
        monkeypatch.setattr(plant_bugs, "_TIME", "print(3.0)")
    bug = Bug("hang", "scheduler", "        counters = self.counters\n", "        while 1: pass\n")
    seeds, how = search(bug)
    assert (seeds, how.split(":")[0]) == ((1, "Hangs") if ends else (None, "Slow"))
    assert "without the bug" in how
