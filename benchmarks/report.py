"""The figures as Markdown, as reStructuredText for the docs, as JSON for comparing runs."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from math import isfinite

from benchmarks.figures import LAUNCHED, OURS, OVER_TCP, Figure, Outcome

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


def best_peer(outcome: Outcome) -> Figure | None:
    """Return the peer with the best median, ``serial`` apart."""
    peers = [
        figure
        for figure in outcome.figures
        if figure.values and figure.contender not in (*OURS, *OVER_TCP, LAUNCHED, "serial")
    ]
    if not peers:
        return None
    pick = max if outcome.row.higher_is_better else min
    return pick(peers, key=lambda figure: figure.median)


def ours(outcome: Outcome, contender: str) -> str:
    figure = next((each for each in outcome.figures if each.contender == contender), None)
    if figure is None:
        return "-"
    if not figure.values:
        return "not measured"
    shown = number(figure.median)
    judged = outcome.judged_value(figure)
    if judged is not None and abs(judged - figure.median) > 1e-9 * abs(judged):
        shown += f" (judged: {number(judged)})"
    verdict = {True: ", met", False: ", **missed**", None: ""}[outcome.passed(figure)]
    return shown + verdict


def over_tcp(outcome: Outcome) -> str:
    """Return the figures of the ways of running dtm over TCP that were measured."""
    names = [each.contender for each in outcome.figures if each.contender in OVER_TCP]
    return "; ".join(f"{name.removeprefix('dtm ')} {ours(outcome, name)}" for name in names) or "-"


def summary_line(outcome: Outcome) -> list[str]:
    row, peer = outcome.row, best_peer(outcome)
    title = f"{row.title} ({row.unit})" if row.unit else row.title
    shown = f"{peer.contender} {number(peer.median)}" if peer else "-"
    figures = (*(ours(outcome, each) for each in OURS), over_tcp(outcome))
    return [title, row.asked, *figures, shown]


def detail_line(outcome: Outcome, figure: Figure) -> list[str]:
    row = outcome.row
    if not figure.values:
        return [row.name, figure.contender, "", "", "", "", "", figure.failure]
    reference = outcome.figure_of("dtm local")
    ratio = number(figure.median / reference.median) if reference and reference.median else ""
    return [
        row.name,
        figure.contender,
        number(figure.median),
        number(row.best_of(figure.values)),
        str(len(figure.values)),
        ratio,
        WORDS[outcome.passed(figure)],
        figure.failure or figure.note,
    ]


Table = Callable[[Sequence[str], Iterable[Sequence[str]]], str]


def summary(outcomes: Sequence[Outcome], draw: Table) -> str:
    """Return the rows with their bars, dtm's figures and the best peer's."""
    head = ["figure", "bar", *OURS, "dtm over TCP", "best peer"]
    return draw(head, [summary_line(each) for each in outcomes])


def details(outcomes: Sequence[Outcome], draw: Table) -> str:
    """Return a line for each contender of each row."""
    lines = [detail_line(outcome, figure) for outcome in outcomes for figure in outcome.figures]
    head = ["row", "who", "median", "best", "values", "÷ dtm local", "met", "remark"]
    return draw(head, lines)


def facts(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return what is known of the machine, as a list."""
    disturbance = max((outcome.disturbance for outcome in outcomes), default=0.0)
    known = {**machine, "cores busy with something else, at most": f"{disturbance:.2f}"}
    return "\n".join(f"* {name}: {value}" for name, value in known.items())


def markdown(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return the whole report as Markdown."""
    about = facts(outcomes, machine)
    first, rest = summary(outcomes, table), details(outcomes, table)
    return f"# Figures\n\n{first}\n\n## Machine\n\n{about}\n\n## All contenders\n\n{rest}\n"


def rst(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return the report as reStructuredText, to be included in the page on figures."""
    first, rest = summary(outcomes, list_table), details(outcomes, list_table)
    return f"{first}\n\n{facts(outcomes, machine)}\n\nAll contenders:\n\n{rest}\n"


def finite(values: Iterable[float]) -> list[float | None]:
    """Return the values with None for what JSON cannot say."""
    return [value if isfinite(value) else None for value in values]


def as_json(outcomes: Sequence[Outcome], machine: Mapping[str, str]) -> str:
    """Return every value measured."""
    rows = [
        {
            "name": outcome.row.name,
            "title": outcome.row.title,
            "unit": outcome.row.unit,
            "bar": outcome.row.asked,
            "busy cores before": round(outcome.disturbance, 2),
            "figures": [
                {
                    "contender": figure.contender,
                    "values": finite(figure.values),
                    "judged": finite(figure.judged),
                    "passed": outcome.passed(figure),
                    "note": figure.note,
                    "failure": figure.failure,
                }
                for figure in outcome.figures
            ],
        }
        for outcome in outcomes
    ]
    return json.dumps({"machine": dict(machine), "rows": rows}, indent=1, ensure_ascii=False)
