"""Figures of state machines, drawn from the tables that the code runs by.

``.. state-machine:: package.module.TRANSITIONS`` stands for a drawing (in HTML) and
a table of a dictionary ``{state: {event: next state}}``, whose states are members of
an enumeration.  As a program it prints the transitions:
``python docs/state_machines.py dtm.core.balancer.TRANSITIONS``.

Rejected: ``sphinx.ext.graphviz``.  It needs a program that is not on PyPI.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from enum import Enum
from html import escape
from importlib import import_module
from pathlib import Path
from typing import Any, NamedTuple

from docutils import nodes
from docutils.parsers.rst import Directive

WIDTH, HEIGHT, GAP, MARGIN = 110, 36, 130, 14
LOOP, LINE = 46, 15
HALO = 'text-anchor="middle" stroke="white" stroke-width="4" paint-order="stroke"'
HEAD = """<svg role="img" xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}"
 style="width: {width}px; max-width: 100%; height: auto" font-family="sans-serif" font-size="13">
<defs><marker id="head" markerWidth="8" markerHeight="8" refX="7" refY="4" orient="auto">
<path d="M0,0 L8,4 L0,8 z"/></marker></defs>"""


class Transition(NamedTuple):
    """One arrow: where it leaves, what makes it, where it leads."""

    source: str
    event: str
    target: str


def table_of(path: str) -> tuple[list[str], list[Transition]]:
    """Return the states and the transitions of the table with this import path."""
    module, _, name = path.rpartition(".")
    table: dict[Enum, dict[str, Enum]] = getattr(import_module(module), name)
    arrows = [
        Transition(state.name, event, target.name)
        for state, events in table.items()
        for event, target in events.items()
    ]
    return [state.name for state in table], arrows


def drawing(states: list[str], arrows: list[Transition]) -> str:
    """Return an SVG: states in a row, arrows to the right above them, to the left below."""
    place = {state: MARGIN + i * (WIDTH + GAP) for i, state in enumerate(states)}
    bundles: dict[tuple[str, str], list[str]] = {}
    for source, event, target in arrows:
        bundles.setdefault((source, target), []).append(event)
    reach = [states.index(target) - states.index(source) for source, target in bundles]
    top = LOOP * max([1, *reach]) + 2 * LINE
    bottom = LOOP * max([0, *(-each for each in reach)]) + 2 * LINE
    width = MARGIN + place[states[-1]] + WIDTH
    parts = [HEAD.format(width=width, height=top + HEIGHT + bottom)]
    for (source, target), events in bundles.items():
        steps = states.index(target) - states.index(source)
        parts += _arrow(place[source], place[target], steps, events, top)
    for state, x in place.items():
        parts.append(
            f'<rect x="{x}" y="{top}" width="{WIDTH}" height="{HEIGHT}" rx="8" fill="#eef" '
            f'stroke="black"/><text x="{x + WIDTH / 2}" y="{top + HEIGHT / 2 + 5}" '
            f'text-anchor="middle">{escape(state)}</text>'
        )
    return "\n".join([*parts, "</svg>"])


def _arrow(left: int, right: int, steps: int, events: list[str], top: int) -> Iterator[str]:
    bend = LOOP * max(1, abs(steps))
    above = steps >= 0
    edge = top if above else top + HEIGHT
    shift = WIDTH / 4 if steps > 0 else -WIDTH / 4
    start, end = left + WIDTH / 2 + shift, right + WIDTH / 2 - shift
    peak = edge - 1.33 * bend if above else edge + 1.33 * bend
    yield (
        f'<path d="M{start},{edge} C{start},{peak} {end},{peak} {end},{edge}" fill="none" '
        'stroke="black" marker-end="url(#head)"/>'
    )
    height = edge - bend - 4 if above else edge + bend + LINE - 1
    for number, event in enumerate(events):
        y = height - number * LINE if above else height + number * LINE
        x = (start + end) / 2
        yield f'<text x="{x}" y="{y}" {HALO}>{escape(event)}</text>'


def rows(arrows: list[Transition]) -> nodes.table:
    """Return the transitions as a table."""
    group = nodes.tgroup(cols=3)
    group += [nodes.colspec(colwidth=20) for _ in range(3)]
    head, body = nodes.thead(), nodes.tbody()
    head += _row("in state", "when", "goes to")
    body += [_row(*arrow) for arrow in arrows]
    group += [head, body]
    table = nodes.table()
    table += group
    return table


def _row(*cells: str) -> nodes.row:
    row = nodes.row()
    for cell in cells:
        entry = nodes.entry()
        entry += nodes.paragraph(text=cell)
        row += entry
    return row


class StateMachine(Directive):
    """The directive ``state-machine``."""

    required_arguments = 1

    def run(self) -> list[nodes.Node]:
        """Return the drawing and the table."""
        states, arrows = table_of(self.arguments[0])
        return [nodes.raw("", drawing(states, arrows), format="html"), rows(arrows)]


def setup(app: Any) -> dict[str, bool]:
    """Register the directive with Sphinx."""
    app.add_directive("state-machine", StateMachine)
    return {"parallel_read_safe": True, "parallel_write_safe": True}


if __name__ == "__main__":
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))
    for arrow in table_of(sys.argv[1])[1]:
        print(f"{arrow.source} --{arrow.event}--> {arrow.target}")
