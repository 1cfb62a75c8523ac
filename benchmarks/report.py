"""The figures as Markdown, and as reStructuredText for the docs."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from benchmarks.figures import LAUNCHED, OURS, OVER_TCP
from benchmarks.kept import KeptFigure, KeptRow

WORDS = {True: "yes", False: "**no**", None: ""}


def table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    rows = [head, ["---"] * len(head), *lines]
    return "\n".join(
        "| " + " | ".join(cell.replace("|", "/").replace("\n", " ") for cell in row) + " |"
        for row in rows
    )


def list_table(head: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """Return a table of reStructuredText."""
    rows = ["   * - " + "\n     - ".join(cell or "\\" for cell in row) for row in [head, *lines]]
    return "\n".join([".. list-table::", "   :header-rows: 1", "", *rows])


def number(value: float) -> str:
    return f"{value:.3g}" if abs(value) < 1000 else f"{value:,.0f}"


def best_peer(row: KeptRow) -> KeptFigure | None:
    """Return the peer with the best median, ``serial`` apart."""
    ours_and_serial = (*OURS, *OVER_TCP, LAUNCHED, "serial")
    peers = [each for each in row.figures if each.contender not in ours_and_serial]
    pick = max if row.higher_is_better else min
    return pick(
        (each for each in peers if each.median is not None),
        key=lambda each: each.median or 0.0,
        default=None,
    )


def ours(row: KeptRow, contender: str) -> str:
    figure = row.figure_of(contender)
    if figure is None:
        return "-"
    if figure.median is None:
        return "not measured"
    shown = number(figure.median)
    judged = figure.judged
    if judged is not None and abs(judged - figure.median) > 1e-9 * abs(judged):
        shown += f" (judged: {number(judged)})"
    verdict = {True: ", met", False: ", **missed**", None: ""}[figure.passed]
    return shown + verdict


def over_tcp(row: KeptRow) -> str:
    """Return the figures of the ways of running dtm over TCP that were measured."""
    names = [each.contender for each in row.figures if each.contender in OVER_TCP]
    return "; ".join(f"{name.removeprefix('dtm ')} {ours(row, name)}" for name in names) or "-"


def summary_line(row: KeptRow) -> list[str]:
    peer = best_peer(row)
    title = f"{row.title} ({row.unit})" if row.unit else row.title
    shown = f"{peer.contender} {number(peer.median)}" if peer and peer.median is not None else "-"
    figures = (*(ours(row, each) for each in OURS), over_tcp(row))
    return [title, row.bar, *figures, shown, row.measured]


def detail_line(row: KeptRow, figure: KeptFigure) -> list[str]:
    if figure.median is None:
        return [row.name, figure.contender, "", "", "", "", "", figure.failure]
    reference = row.figure_of("dtm local")
    ratio = number(figure.median / reference.median) if reference and reference.median else ""
    return [
        row.name,
        figure.contender,
        number(figure.median),
        "" if figure.best is None else number(figure.best),
        str(figure.count),
        ratio,
        WORDS[figure.passed],
        figure.failure or figure.note,
    ]


Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def summary(rows: Sequence[KeptRow], draw: Table) -> str:
    """Return the rows with their bars, dtm's figures and the best peer's."""
    head = ["figure", "bar", *OURS, "dtm over TCP", "best peer", "measured"]
    return draw(head, [summary_line(each) for each in rows])


def details(rows: Sequence[KeptRow], draw: Table) -> str:
    """Return a line for each contender of each row."""
    lines = [detail_line(row, figure) for row in rows for figure in row.figures]
    head = ["row", "who", "median", "best", "values", "÷ dtm local", "met", "remark"]
    return draw(head, lines)


def facts(rows: Sequence[KeptRow]) -> str:
    """Return what is known of each machine, as lists; more than one if rows differ in it."""
    machines: list[tuple[dict[str, str], list[KeptRow]]] = []
    for row in rows:
        known = next((those for machine, those in machines if machine == row.machine), None)
        if known is None:
            machines.append((dict(row.machine), [row]))
        else:
            known.append(row)
    return "\n\n".join(_facts_of(machine, those) for machine, those in machines)


def _facts_of(machine: dict[str, str], rows: Sequence[KeptRow]) -> str:
    days = sorted({row.measured for row in rows})
    known = {"measured": ", ".join(days), "rows": ", ".join(row.name for row in rows), **machine}
    known["cores busy with something else, at most"] = f"{max(x.disturbance for x in rows):.2f}"
    return "\n".join(f"* {name}: {value}" for name, value in known.items())


def markdown(rows: Sequence[KeptRow]) -> str:
    """Return the whole report as Markdown."""
    first, rest = summary(rows, table), details(rows, table)
    about = facts(rows)
    return f"# Figures\n\n{first}\n\n## Machine\n\n{about}\n\n## All contenders\n\n{rest}\n"


def rst(rows: Sequence[KeptRow]) -> str:
    """Return the report as reStructuredText, to be included in the page on figures."""
    first, rest = summary(rows, list_table), details(rows, list_table)
    return f"{first}\n\n{facts(rows)}\n\nAll contenders:\n\n{rest}\n"
