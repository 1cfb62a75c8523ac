"""What the documentation shows is true: its programs run, and print what stands below them."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Iterator
from itertools import zip_longest
from pathlib import Path
from textwrap import dedent
from typing import NamedTuple

import pytest

from tests.launch import ROOT, environment, run, run_local

PAGES = (
    ROOT / "README.rst",
    *(ROOT / "docs" / f"{name}.rst" for name in ("index", "tutorial", "simulation")),
)
BLOCK = re.compile(
    r"^\.\. code-block:: (?P<language>\w+)\n(?P<output>   :class: output\n)?\n"
    r"(?P<text>(?:   .*\n|\n)+)",
    re.MULTILINE,
)
IMPORT = re.compile(r"^from dtm import dtm$|^from dtm.testing import ", re.MULTILINE)


class Program(NamedTuple):
    """A program of a page, and what the page says that it prints (None: it does not say)."""

    name: str
    text: str
    output: str | None


def programs(page: Path) -> Iterator[Program]:
    """Find the blocks of a page that are complete programs: those that import of dtm."""
    content = page.read_text(encoding="utf-8")
    blocks = list(BLOCK.finditer(content))
    for block, after in zip_longest(blocks, blocks[1:]):
        text = dedent(block["text"]).strip() + "\n"
        if block["language"] == "python" and IMPORT.search(text):
            line = content.count("\n", 0, block.start()) + 1
            shown = dedent(after["text"]).strip() + "\n" if after and after["output"] else None
            yield Program(f"{page.name}:{line}", text, shown)


PROGRAMS = [program for page in PAGES for program in programs(page)]


@pytest.mark.parametrize("program", PROGRAMS, ids=[program.name for program in PROGRAMS])
def test_program_of_the_documentation_prints_what_stands_below_it(
    program: Program, tmp_path: Path
) -> None:
    if "from deap" in program.text:
        pytest.importorskip("deap")
    script = tmp_path / "prog.py"
    script.write_text(program.text, encoding="utf-8")
    done = run_local(script, 2)
    assert done.returncode == 0, done.stderr
    if program.output is not None:
        assert done.stdout == program.output


def test_every_page_has_its_programs_found() -> None:
    counts = {
        page.name: sum(each.name.startswith(page.name) for each in PROGRAMS) for page in PAGES
    }
    assert counts["README.rst"] == 1
    assert counts["tutorial.rst"] >= 10
    assert counts["simulation.rst"] >= 2
    assert all(each.output for each in PROGRAMS if each.name.startswith("tutorial"))


def test_overview_is_the_same_program_everywhere() -> None:
    readme, index = (
        next(each.text for each in PROGRAMS if each.name.startswith(name))
        for name in ("README.rst", "index.rst")
    )
    assert readme == index


@pytest.mark.slow
def test_manager_of_the_documentation_keeps_its_promises() -> None:
    done = run([sys.executable, str(ROOT / "docs" / "thread_manager.py")], environment(), 100.0)
    assert done.stdout.startswith("12 promises are kept\nnot tried: reports_a_loss"), done.stderr


def test_figures_describe_every_row_of_the_benchmarks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT))
    from benchmarks.rows import ROWS

    described = (ROOT / "docs" / "figures.rst").read_text(encoding="utf-8")
    assert set(re.findall(r"^   \* - ``([\w-]+)``$", described, re.MULTILINE)) == set(ROWS)


def test_check_runs_the_test_command_of_the_readme() -> None:
    bash = shutil.which("bash")
    if bash is None:
        pytest.skip("there is no bash")
    done = run([bash, str(ROOT / ".ci" / "run"), "--show"], environment(), 10.0)
    lines = (ROOT / "README.rst").read_text(encoding="utf-8").splitlines()
    commands = [line.strip() for line in lines if "python -m pytest" in line]
    assert [done.stdout.strip()] == commands


def test_readme_uses_no_role_that_only_sphinx_knows() -> None:
    text = (ROOT / "README.rst").read_text(encoding="utf-8")
    assert not re.findall(r":(?:doc|func|class|ref|mod):`", text)


def test_every_place_that_contributors_are_sent_to_is_there() -> None:
    text = (ROOT / "CONTRIBUTING.rst").read_text(encoding="utf-8")
    tree = re.findall(r"^   ([\w/.]+?)/? {3,}\S", text, re.MULTILINE)
    named = re.findall(r"(?:``|bin/python -m pytest )([\w.]+/[\w/.]*?\w(?:\.\w+)?)/?(?:``| )", text)
    assert len(tree) > 10
    assert len(named) > 25
    missing = [name for name in {*tree, *named} if not (ROOT / name).exists()]
    assert not missing
