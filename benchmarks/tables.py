"""The tables of figures in the README and the docs: ``python -m benchmarks.tables [--check]``.

Both are drawn from ``docs/figures.json``, which ``python -m benchmarks --keep`` writes, and both
say on which days and on what their rows were measured.  ``--check`` writes nothing, and fails if a
table is not what it would write.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

from benchmarks.kept import KeptRow, read
from benchmarks.report import number, rst

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / "docs" / "figures.json"
DOCS = ROOT / "docs" / "figures_table.rst"
README = ROOT / "README.rst"
BEGIN = ".. The table is written by python -m benchmarks.tables: begin\n"
END = ".. The table is written by python -m benchmarks.tables: end\n"
COLUMNS = {"dtm local": "dtm, local", "dtm mpi": "dtm, MPI", "Pool": "Pool"}


class Line(NamedTuple):
    """A line of the README's table: the row that it shows, in words for newcomers."""

    row: str
    title: str
    unit: str = ""
    without: str = ""  # what stands where a contender cannot do it


LINES = (
    Line("noop", r"no-op map over 10\ :sup:`6` ints, an item", " µs"),
    Line("small-items", "map of 5 µs items, efficiency"),
    Line("metg", "smallest item at 50 % efficiency (METG)", " µs"),
    Line("single-calls", "100,000 × ``apply_async``, then ``get``, a call", " µs"),
    Line("tree", "nested tree of depth 12, a node", " µs", "impossible"),
    Line("fib", "``fib(20)``, a spawn a call, a call", " µs", "impossible"),
    Line("uneven", "400 tasks of very uneven length, efficiency"),
    Line("uts-1000", "unbalanced tree search, tasks of 1,000, efficiency"),
    Line("startup", "the program above, start to exit", " s"),
)


def simple_table(lines: Sequence[Sequence[str]]) -> str:
    """Return a simple table of reStructuredText, whose first line is the head."""
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    rule = "  ".join("=" * width for width in widths)
    head, *rest = [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in lines
    ]
    return "\n".join([rule, head, rule, *rest, rule])


def cells(line: Line, row: KeptRow) -> Iterator[str]:
    """Return the cells of a line: its title, and the median of each contender."""
    yield line.title
    for contender in COLUMNS:
        figure = row.figure_of(contender)
        if figure is None or figure.median is None:
            yield line.without or "not measured"
        else:
            yield number(figure.median) + line.unit


def sources(rows: Iterable[KeptRow]) -> str:
    """Return the sentence that says when and on what rows were measured."""
    found: dict[str, None] = {}
    for row in rows:
        machine = row.machine
        found[
            f"{row.measured} ({machine['cores']} cores, {machine['processor']}, "
            f"{machine['Python']}, {machine['MPI']})"
        ] = None
    return f"Measured on {', on '.join(found)}."


def readme_part(rows: Sequence[KeptRow]) -> str:
    """Return the part of the README that is drawn from the figures."""
    by_name = {row.name: row for row in rows}
    shown = [(line, by_name[line.row]) for line in LINES if line.row in by_name]
    table = [["\\", *COLUMNS.values()], *(list(cells(line, row)) for line, row in shown)]
    return f"\n{simple_table(table)}\n\n{sources(row for _, row in shown)}\n\n"


def readme_with(text: str, part: str) -> str:
    """Return the README with that part in its place."""
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not (begin and end):
        message = f"README.rst has lost the lines between which its table stands: {BEGIN}{END}"
        raise ValueError(message)
    return before + begin + part + end + after


def drawn() -> dict[Path, str]:
    """Return the files that hold tables, as they should be."""
    rows = read(KEPT)
    readme = readme_with(README.read_text(encoding="utf-8"), readme_part(rows))
    return {README: readme, DOCS: rst(rows)}


def main(command_line: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.tables", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    args = parser.parse_args(command_line)
    stale = 0
    for path, text in drawn().items():
        if path.exists() and path.read_text(encoding="utf-8") == text:
            continue
        stale += 1
        if args.check:
            print(f"{path} is not what docs/figures.json says", file=sys.stderr)
        else:
            path.write_text(text, encoding="utf-8")
    return min(stale, 1) if args.check else 0


if __name__ == "__main__":
    raise SystemExit(main())
