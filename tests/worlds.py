"""The small worlds that are explored in every order of events, and how many states each has."""

from __future__ import annotations

from dataclasses import replace
from typing import NamedTuple

from dtm.testing.programs import Calls, Caught, Inner, Script
from tests.exploring import EVERYTHING, Bounds, Untimed

LEAF = 1.0
FAILING = [LEAF, Script(LEAF, ValueError("planned")), LEAF]
# What is left out of the larger worlds, so that they stay small enough.
IN_TIME = Bounds(frozenset({"give up"}), dice=False, until_stopped=False)
ONE_BY_ONE = Bounds(deals=False)
NO_TIMERS = Bounds(frozenset({"timer"}), dice=False)


class Small(NamedTuple):
    """A world; ``states``, ``ends`` and ``parked`` are what is counted."""

    workers: int
    program: Inner
    states: int
    ends: int
    parked: int
    bounds: Bounds = EVERYTHING
    settled: bool = True
    near: bool = False

    def make(self) -> Untimed:
        return Untimed(
            self.program, self.workers, LEAF,
            settled=self.settled, near=self.near, bounds=self.bounds,
        )  # fmt: skip


WORLDS = {
    "two leaves": Small(3, Script([LEAF, LEAF]), 3066, 1, 0),
    "a chain of waits": Small(3, Script([Script([Script([LEAF])])]), 23, 1, 0),
    "two calls": Small(3, Script(Calls([LEAF, LEAF])), 808, 1, 0),
    "a task that waits abroad": Small(2, Script([LEAF, Script([LEAF, LEAF])]), 130, 1, 14),
    "two calls that wait": Small(
        2, Script(Calls([Script([LEAF, LEAF]), Script([LEAF])])), 195, 1, 0
    ),
    "two workers, seven tasks": Small(
        2, Script([Script([LEAF, LEAF]), Script([LEAF, Script([LEAF])])]), 204, 1, 14
    ),
    "two workers, two families": Small(
        2, Script([Script([LEAF, LEAF]), Script([LEAF, LEAF, LEAF])]), 403, 1, 152
    ),
    "a failure": Small(2, Script(FAILING), 139, 1, 0, ONE_BY_ONE),
    "a failure of a map that is dealt": Small(2, Script(FAILING), 50, 1, 0),
    "three leaves": Small(3, Script([LEAF] * 3), 437, 90, 0, replace(IN_TIME, deals=False)),
    "three leaves that are dealt": Small(3, Script([LEAF] * 3), 209, 33, 0, IN_TIME),
    "dealt to neighbours": Small(3, Script([LEAF] * 3), 5924, 1228, 0, IN_TIME, near=True),
    "two maps that are dealt": Small(3, Script([LEAF] * 3, [LEAF] * 4), 2187, 69, 0, IN_TIME),
    "dealt after a failure": Small(
        3, Script(Caught([*FAILING]), [LEAF] * 3), 9342, 1414, 0, IN_TIME
    ),
    "five tasks": Small(3, Script([Script([LEAF, LEAF]), LEAF]), 457, 133, 0, IN_TIME),
    "seven tasks": Small(
        3, Script([Script([LEAF, LEAF]), Script([LEAF, LEAF])]), 491, 1, 33, NO_TIMERS
    ),
    "a wait below a wait": Small(
        3, Script([Script([Script([LEAF, LEAF])]), LEAF]), 380, 1, 0, NO_TIMERS
    ),
    "not settled": Small(2, Script([LEAF, Script([LEAF, LEAF])]), 68, 1, 14, settled=False),
}


def table() -> str:
    """Return what the documentation says of them."""
    lines = [
        ".. list-table::",
        "   :header-rows: 1",
        "",
        "   * - world",
        "     - workers",
        "     - bounds",
        "     - states",
        "     - with a parked task",
    ]
    for name, each in WORLDS.items():
        cells = (name, each.workers, _said(each.bounds), f"{each.states:,}", f"{each.parked:,}")
        lines += [
            f"   {'-' if place else '* -'} {cell}".replace("   - ", "     - ")
            for place, cell in enumerate(cells)
        ]
    return "\n".join(lines) + "\n"


def _said(bounds: Bounds) -> str:
    never = {"give up": "no request is given up", "timer": "no timer goes off"}
    said = [never[kind] for kind in sorted(bounds.left_out)]
    said += [] if bounds.dice else ["chance and the age of reports are fixed"]
    said += [] if bounds.deals else ["no map is dealt"]
    said += [] if bounds.until_stopped else ["until ``main`` returns"]
    return ", ".join(said) or "none"
