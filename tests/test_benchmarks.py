"""The benchmarks run and report; nothing is asserted of what they measure."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

import pytest

from benchmarks.kept import KeptFigure, KeptRow, as_json, read, replaced
from benchmarks.report import rst
from benchmarks.tables import drawn, readme_part, readme_with
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
        measured = {each["contender"] for each in row["figures"] if each["median"]}
        assert measured >= {"dtm local", "Pool"}, row


@pytest.mark.slow
def test_report_names_the_machine_the_bar_and_the_contenders(report: Report) -> None:
    text, values = report
    assert {"processor", "cores", "Python", "MPI"} <= values["machines"][0].keys()
    for words in ("≤ 1.5 × serial", "dtm local", "dtm mpi", "Pool"):
        assert words in text


def row(name: str, day: str = "2001-01-01", median: float = 2.0, **machine: str) -> KeptRow:
    """Return a row as it would be kept."""
    ours = KeptFigure("dtm local", 3, median, 1.5, median, passed=True, note="n")
    peer = KeptFigure("Pool", failure="not installed")
    facts = {"cores": "2", "processor": "P", "Python": "CPython 3", "MPI": "M", **machine}
    return KeptRow(name, f"title of {name}", "µs", "≤ 3 µs", False, day, facts, 0.1, (ours, peer))


def test_what_is_kept_is_read_again_and_a_row_measured_anew_takes_its_place(tmp_path: Path) -> None:
    kept = tmp_path / "figures.json"
    rows = [row("noop"), row("metg", MPI="another"), row("fib")]
    kept.write_text(as_json(rows), encoding="utf-8")
    assert read(kept) == rows
    newer = [row("metg", "2002-02-02", 1.0), row("tree")]
    assert replaced(read(kept), newer) == [rows[0], newer[0], rows[2], newer[1]]


def test_tables_say_what_was_measured_when_and_on_what() -> None:
    rows = [row("noop"), row("metg", "2002-02-02", 1.25, MPI="another")]
    part = readme_part(rows)
    assert re.search(r"an item +2 µs +not measured +not measured\n", part)
    assert "1.25 µs" in part
    assert "2001-01-01 (2 cores, P, CPython 3, M), on 2002-02-02" in part
    docs = rst(rows)
    assert docs.count("\n     - 2001-01-01\n") == docs.count("\n     - 2002-02-02\n") == 1
    assert "* measured: 2001-01-01\n* rows: noop\n" in docs
    assert "not installed" in docs


def test_tables_of_the_readme_and_the_docs_are_those_of_the_figures_kept() -> None:
    for path, text in drawn().items():
        assert path.read_text(encoding="utf-8") == text, "run python -m benchmarks.tables"


def test_readme_without_a_place_for_the_table_is_an_error() -> None:
    with pytest.raises(ValueError, match="has lost the lines"):
        readme_with("no table", "part")


def test_unknown_row_is_refused() -> None:
    done = run([*QUICK, "--only", "nonsense"], environment(), REPORT_TIMEOUT)
    assert done.returncode == 2
    assert "nonsense" in done.stderr
