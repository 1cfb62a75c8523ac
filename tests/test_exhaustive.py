"""Small worlds in every order of events: no law is broken, and no state is without progress."""

from __future__ import annotations

import pytest

from dtm.simulation.exploring import Untimed, explore
from dtm.simulation.programs import Calls, Inner, Script

LEAF = 1.0
WORLDS = {
    "two leaves": (3, Script([LEAF, LEAF])),
    "three leaves": (3, Script([LEAF] * 3)),
    "a chain of waits": (3, Script([Script([Script([LEAF])])])),
    "two tasks that wait": (3, Script([Script([LEAF]), Script([LEAF])])),
    "seven tasks": (3, Script([Script([LEAF, LEAF]), Script([LEAF, LEAF])])),
    "a wait below a wait": (3, Script([Script([Script([LEAF, LEAF])]), LEAF])),
    "two calls": (3, Script(Calls([LEAF, LEAF]))),
    "two calls that wait": (2, Script(Calls([Script([LEAF, LEAF]), Script([LEAF])]))),
    "two workers, seven tasks": (
        2, Script([Script([LEAF, LEAF]), Script([LEAF, Script([LEAF])])]),
    ),
}  # fmt: skip


@pytest.mark.timeout(600)
@pytest.mark.parametrize("name", list(WORLDS))
def test_every_order_of_events_gets_on(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    size, program = WORLDS[name]
    assert isinstance(program, Inner)
    explored = explore(lambda: Untimed(program, size, LEAF))
    assert explored.ends
    with capsys.disabled():
        print(f" [{name}: {explored.states} states, {explored.ends} ends]", end="")
