"""Several programs at once, critical paths, and the scripts behind the simulator's figures."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks import binomial, costs, predicted, replayed
from benchmarks.programs import steps
from dtm.testing import (
    Calls,
    Inner,
    Network,
    Script,
    Simulation,
    critical_path,
    geometric,
    measure,
    nested,
    together,
)

DOCS = Path(__file__).resolve().parent.parent / "docs"


@pytest.mark.parametrize(
    ("task", "seconds"),
    [
        (2.0, 2.0),
        (Script(), 0.0),
        (Script(1.0, [2.0, 3.0], 1.0), 5.0),
        (Script(1.0, [2.0, Script(1.0, [5.0], 1.0)], Calls([4.0, 1.0])), 12.0),
        (Script([Script(1.0, ValueError("planned")), 0.5]), 1.0),
        (nested([3, 3], 1.0), 3.0),
        (nested([1] * 60, 1.0), 61.0),
    ],
)
def test_the_critical_path_is_the_longest_chain(task: Inner | float, seconds: float) -> None:
    assert critical_path(task) == pytest.approx(seconds)


def test_no_run_is_shorter_than_its_critical_path() -> None:
    tree = geometric(3, 6, 2.0, 1e-3)
    network = Network(near=0.0, middle=0.0, far=0.0, seconds_a_byte=0.0, cpu=0.0)
    makespan = Simulation(64, tree, network=network, patience=0.0, check=False).run().makespan
    assert makespan >= critical_path(tree)


def test_several_programs_run_at_once() -> None:
    trees = [nested([4, 4], 1e-3) for _ in range(3)]
    whole = together(trees)
    assert measure(whole)[1] == pytest.approx(3 * measure(trees[0])[1])
    assert critical_path(whole) == pytest.approx(3e-3)
    report = Simulation(6, whole, seed=2, check=True).run()
    assert report.executed == 3 * measure(trees[0])[0]
    assert report.failure is None
    one_by_one = sum(Simulation(6, tree, seed=2).run().makespan for tree in trees)
    assert report.makespan < one_by_one


def test_what_is_no_program_cannot_run_at_once_with_others() -> None:
    with pytest.raises(TypeError, match="task 1 of step 0 of Script must be"):
        together([Script(1.0), "tree"])  # type: ignore[list-item]
    with pytest.raises(ValueError, match="task must be"):
        critical_path(-1.0)


def test_a_case_of_the_binomial_trees_gives_figures_that_agree(tmp_path: Path) -> None:
    cases = [binomial.Case(4, roots=4), binomial.Case(4, roots=4, trees=2)]
    binomial.keep(tmp_path / "kept.csv", map(binomial.run, cases))
    for found in binomial.read(tmp_path / "kept.csv"):
        each = found.nodes_a_theft * found.node_ms
        assert found.efficiency == pytest.approx(each / (each + found.idle_ms_a_theft), rel=0.02)
        assert found.path < found.seconds * found.workers


def test_costs_make_a_map_slower_and_the_bound_is_the_roots() -> None:
    row = costs.Row("map", 16, 1, 30, 1e-3)
    found = {name: float(costs.run(row, name)["ratio"]) for name in costs.MACHINES}
    assert found["ideal"] > found["both"]
    assert costs.bound(row, costs.NETWORK) == 1.0
    assert costs.bound(costs.ROWS[0], costs.INDIVIDUALS) == pytest.approx(0.242, abs=0.01)


@pytest.mark.parametrize("kind", steps.KINDS)
def test_what_was_taken_can_be_simulated(kind: str) -> None:
    wanted = steps.program(kind, 2, seed=1)

    def as_taken(task: Inner | float) -> object:
        if isinstance(task, float):
            return task
        return {"steps": taken(task)}

    def taken(task: Inner) -> list[object]:
        return [step if isinstance(step, float) else [as_taken(each) for each in step]
                for step in task.steps()]  # type: ignore[union-attr]  # fmt: skip

    assert measure(steps.recorded(taken(wanted))) == pytest.approx(measure(wanted))


def test_a_prediction_is_held_against_what_happened(tmp_path: Path) -> None:
    kept = tmp_path / "kept.csv"
    found = predicted.Compared("map", 4, 1, 2.0, 1.9, 1.8, 7.0, "2026-11-28")
    predicted.add(kept, found)
    predicted.add(kept, found)
    assert predicted.read(kept) == [found, found]
    assert found.error == pytest.approx(-0.05)
    assert "-5.0%" in predicted.table([found])


def test_tables_of_the_documentation_are_those_of_the_figures_that_were_kept() -> None:
    tables = {
        "balancing/costs": costs.table(costs.read(DOCS / "balancing" / "costs.csv")),
        "balancing/binomial": binomial.table(binomial.read(DOCS / "balancing" / "binomial.csv")),
        "balancing/predicted": predicted.table(
            predicted.read(DOCS / "balancing" / "predicted.csv")
        ),
        "trace/predicted": predicted.table(
            predicted.read(DOCS / "trace" / "predicted.csv"), replayed.SIZES
        ),
    }
    for name, table in tables.items():
        assert (DOCS / f"{name}.rst").read_text(encoding="utf-8") == table
