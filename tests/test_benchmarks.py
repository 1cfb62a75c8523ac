"""The benchmarks run and report; nothing is asserted of what they measure."""

from __future__ import annotations

import json
import sys
from typing import Any

import pytest

from tests.launch import environment, run

QUICK = [sys.executable, "-m", "benchmarks", "--quick"]
REPORT_TIMEOUT = 110.0

Report = tuple[str, dict[str, Any]]


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """Measure two cheap rows; return the report as Markdown and as JSON."""
    folder = tmp_path_factory.mktemp("report")
    text, values = folder / "report.md", folder / "report.json"
    rows = ["--only", "noop", "startup", "--peers", "Pool", "--timeout", "15"]
    files = ["--markdown", str(text), "--json", str(values)]
    done = run([*QUICK, *rows, *files], environment(), REPORT_TIMEOUT)
    assert done.returncode == 0, done.stderr
    return text.read_text(encoding="utf-8"), json.loads(values.read_text(encoding="utf-8"))


@pytest.mark.slow
def test_quick_run_measures_dtm_and_a_peer(report: Report) -> None:
    _, values = report
    for row in values["rows"]:
        measured = {each["contender"] for each in row["figures"] if each["values"]}
        assert measured >= {"dtm local", "Pool"}, row


@pytest.mark.slow
def test_report_names_the_machine_the_bar_and_the_contenders(report: Report) -> None:
    text, values = report
    assert {"processor", "cores", "Python", "MPI"} <= values["machine"].keys()
    for words in ("≤ 1.5 × serial", "dtm local", "dtm mpi", "Pool"):
        assert words in text


def test_unknown_row_is_refused() -> None:
    done = run([*QUICK, "--only", "nonsense"], environment(), REPORT_TIMEOUT)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
