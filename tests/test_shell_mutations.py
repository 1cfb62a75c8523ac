"""Bugs planted in the shell can be planted, and are found.

All are searched for by ``python -m benchmarks.plant_shell_bugs``; here it is some, for it takes
minutes: the first bug of each file of tests that catches any, and some that show in the first
schedules.
"""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import plant_shell_bugs
from benchmarks.plant_shell_bugs import BUGS, ShellBug, plant, search

ROOT = Path(__file__).resolve().parent.parent
EXPLORED = (
    "a call that is complete resumes nobody",
    "one message is read at a time",
    "results are gathered without the lock",
)
FIRST = {bug.test: bug.name for bug in reversed(BUGS) if bug.test}
SAMPLE = [bug for bug in BUGS if bug.name in (*EXPLORED, *FIRST.values())]


def test_there_are_bugs_enough_and_each_has_its_place() -> None:
    assert len({bug.name for bug in BUGS}) == len(BUGS) >= 67
    for bug in BUGS:
        text = (ROOT / "dtm" / bug.module).read_text(encoding="utf-8")
        assert text.count(bug.old) == 1, f"{bug.name}: {bug.module} has changed"


@pytest.mark.slow
@pytest.mark.timeout(400)
@pytest.mark.parametrize("bug", SAMPLE, ids=[bug.name for bug in SAMPLE])
def test_a_planted_bug_is_found(bug: ShellBug) -> None:
    found, how = search(bug)
    assert found is not None, f"{bug.name} survived: {how}"


@pytest.mark.slow
@pytest.mark.timeout(400)
def test_what_is_no_bug_is_not_found(monkeypatch: pytest.MonkeyPatch) -> None:
    old = "        self.polled = perf_counter()\n        if not self._alone:\n"
    bug = ShellBug("none", "run/runner.py", old, f"        # nothing\n{old}")
    assert search(bug, rounds=1) == (None, "nothing was wrong")
    monkeypatch.setattr(plant_shell_bugs, "SECONDS", 1.0)
    found, how = search(bug)
    assert found is None
    assert "no end after 1 s" in how


def test_a_bug_without_a_place_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="has 0 times 'nowhere'"):
        plant(ShellBug("none", "run/runner.py", "nowhere", ""), tmp_path)
