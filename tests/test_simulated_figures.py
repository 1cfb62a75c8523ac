"""The scripts behind the page on the balancer do what they say, on small runs."""

from __future__ import annotations

from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import pytest

from benchmarks.alternatives import ALTERNATIVES, Alternative, ideal, table
from benchmarks.simulated import SIZES, Measured, add, read
from benchmarks.simulated import table as table_of_means
from dtm.testing import Network, Script, Simulation, constant, flat, random_tree

GOOD = Measured(
    row="flat 10 ms",
    workers=256,
    seed=1,
    ratio=0.99,
    spread_ms=0.2,
    messages=30.0,
    root_messages=5.0,
    idle_messages=12.0,
    shutdown=510,
    state=36,
    tasks=25_600,
    steals=4.8,
    cpu_seconds=0.4,
    measured="2026-11-25",
)


@pytest.mark.slow
@pytest.mark.parametrize("alternative", ALTERNATIVES, ids=[each.name for each in ALTERNATIVES])
def test_every_alternative_obeys_the_laws(alternative: Alternative) -> None:
    program = random_tree(3, 150, 1e-3)
    with ExitStack() as stack:
        for name, value in alternative.set.items():
            stack.enter_context(patch(name, value))
        simulation = Simulation(
            24, program, network=Network(host=4), check=True, **alternative.options
        )
        report = simulation.run(400_000)
    assert report.failure is None
    assert report.efficiency > 0.0


def test_the_ideal_is_what_a_central_queue_takes() -> None:
    assert ideal(flat(12, constant(1e-3), 0), 4) == pytest.approx(1.0)
    assert ideal(Script(1e-3, [1e-3] * 3), 4) == pytest.approx(4 / 8)


def test_figures_are_kept_and_held_against_their_bars(tmp_path: Path) -> None:
    kept = tmp_path / "figures.csv"
    later = replace(GOOD, ratio=0.98, measured="2026-11-26")
    for found in (GOOD, replace(GOOD, seed=2), later):
        add(kept, found)
    assert read(kept) == [later, replace(GOOD, seed=2)]
    assert "yes\n     - 2026-11-25, 2026-11-26\n" in table_of_means(read(kept))
    for worse in ({"ratio": 0.9}, {"spread_ms": 0.4}, {"shutdown": 511}, {"root_messages": 99.0}):
        assert "**no**" in table_of_means([GOOD, replace(GOOD, **worse), replace(GOOD, **worse)])


def test_figures_of_the_documentation_are_those_that_were_kept() -> None:
    docs = Path(__file__).resolve().parent.parent / "docs"
    kept = read(docs / "simulated.csv")
    assert (docs / "simulated_table.rst").read_text(encoding="utf-8") == table_of_means(kept)
    assert {each.workers for each in kept} == set(SIZES)
    from benchmarks.alternatives import read as read_alternatives

    lines = read_alternatives(docs / "balancing" / "alternatives.csv")
    assert (docs / "balancing" / "alternatives.rst").read_text(encoding="utf-8") == table(lines)
    assert {line["alternative"] for line in lines} == {each.name for each in ALTERNATIVES}
