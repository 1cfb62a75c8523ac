"""The story that the documentation tells: a report, the change that it asks for, and after it."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtm.run.advice import advice
from dtm.trace.findings import Findings, find
from dtm.trace.recorded import read_run
from tests.launch import ROOT, environment, find_mpirun, mpi_prefix, run

WORKERS = 4


def recorded(directory: Path, *words: str) -> Findings:
    program = str(ROOT / "examples" / "long_item_last.py")
    command = [*mpi_prefix(WORKERS), sys.executable, program, *words]
    done = run(command, environment({"DTM_TRACE": str(directory)}), 60)
    assert done.returncode == 0, done.stderr
    assert "sum 12520" in done.stdout
    return find(read_run(str(directory)))


@pytest.mark.slow
@pytest.mark.skipif(find_mpirun() is None, reason="there is no mpirun")
def test_the_first_sentence_of_the_report_is_worth_following(tmp_path: Path) -> None:
    before = recorded(tmp_path / "before")
    sentence = "one item of map(evaluate) (index 80, "
    (said,) = (each for each in advice(before.figures) if sentence in each)
    assert said.endswith("order long items first, or split it")
    after = recorded(tmp_path / "after", "longest-first")
    assert after.figures.idle_otherwise < before.figures.idle_otherwise / 2
    assert not any("index 80" in each for each in advice(after.figures))
