"""Whatever a program names its functions, and whatever its items look like, it can be looked at."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from dtm.task import printable
from dtm.trace.recorded import read_run
from tests.launch import PROGRAMS, Completed, environment, run
from tests.test_trace_report import Written, browser, opened, write_report

__all__ = ["browser"]

FUNCTIONS = {
    "map(évaluer)", "map(</script>\"q'\\n<b>)", "map(file\\udc80)", "map(Called)",
    "map(main.<locals>.<lambda>)",
}  # fmt: skip
pytestmark = pytest.mark.xdist_group("odd")


def command(*words: str) -> Completed:
    return run([sys.executable, "-m", "dtm", *words], environment(), 60)


@pytest.fixture(scope="module")
def directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("trace")
    program = str(PROGRAMS / "odd_names.py")
    done = command("run", "-n", "2", "--summary", "--trace", str(directory), program)
    assert done.returncode == 0, done.stderr
    for name in FUNCTIONS:
        assert name in done.stderr
    return directory


def test_names_and_items_are_recorded_as_one_printable_line(directory: Path) -> None:
    found = read_run(str(directory))
    assert set(found.functions) == {"", *FUNCTIONS}
    items = {each["item"] for each in found.slow}
    assert {"<script>\\n", "file\\udc80", "\\u202eright to left", "日本"} <= items
    assert all(each.isprintable() for each in items)


@pytest.mark.parametrize(
    "words",
    [
        ("report", "-o"),
        ("predict", "--plot"),
        *(("trace", "export", "--format", form, "-o")
          for form in ("perfetto", "chrome", "csv", "parquet")),
    ],
    ids=lambda words: words[-2],
)  # fmt: skip
def test_all_that_is_made_of_them_can_be_written(
    directory: Path, tmp_path: Path, words: tuple[str, ...]
) -> None:
    more = ("--workers", "4") if words[0] == "predict" else ()
    done = command(*words, str(tmp_path / "out"), *more, str(directory))
    assert done.returncode == 0, done.stderr
    assert (tmp_path / "out").stat().st_size > 1000


def test_a_legend_shows_a_name_as_it_is(browser: object, tmp_path: Path) -> None:
    name = "map(\"a\" & 'b' <i>c</i>)"
    trace = Written(tmp_path / "trace", 1)
    trace.strip(0, 0.0, 1.0, name)
    path = tmp_path / "report.html"
    with path.open("w", encoding="utf-8") as out:
        write_report(trace.found(1.0), out)
    page, complaints = opened(browser, path)
    assert name in page.locator("#timeline .legend").text_content()
    assert complaints == []


@pytest.mark.parametrize(
    ("text", "shown"),
    [("é 日本", "é 日本"), ("a\nb\t", "a\\nb\\t"), ("\udc80\u202e\x00", "\\udc80\\u202e\\x00")],
)
def test_what_cannot_be_printed_is_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown
