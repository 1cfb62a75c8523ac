"""The summary at the end of a run: what each function took, and what to change."""

from __future__ import annotations

import random
import re
import statistics
import sys

import pytest

from dtm.run.advice import advice
from dtm.run.figures import Figures, FunctionFigures, from_counters
from dtm.run.summary import _COLUMNS, summary
from tests.launch import PROGRAMS, Completed, environment, run


def figures(workers: int = 4, duration: float = 10.0, **given: object) -> Figures:
    found = Figures(workers, duration)
    for name, value in given.items():
        setattr(found, name, value)
    return found


def taking(durations: list[float]) -> FunctionFigures:
    found = FunctionFigures()
    for index, each in enumerate(durations):
        found.add(1, each, index)
    return found


def summarised(*words: str, workers: int = 3) -> Completed:
    command = [sys.executable, "-m", "dtm", "run", "-n", str(workers), "--summary"]
    return run([*command, str(PROGRAMS / "traced.py"), *words], environment(), 60)


def test_the_summary_names_functions_workers_and_the_whole() -> None:
    done = summarised()
    assert done.returncode == 0, done.stderr
    text = done.stderr
    for name, items in (("map(spin)", 600), ("map(inner)", 10), ("map(slow)", 5)):
        assert re.search(rf"^ *{re.escape(name)} +{items} ", text, re.MULTILINE), text
    assert re.search(r"^ *map\(slow\) .* 3$", text, re.MULTILINE), text  # the slowest is item 3
    assert len(re.findall(r"^ +[012]  ", text, re.MULTILINE)) == 3
    assert re.search(r"on 3 workers; efficiency \d+%", text)


def test_the_deviation_of_items_follows_from_sums_of_strips() -> None:
    generator = random.Random(1)
    items = [generator.expovariate(1.0) for _ in range(40_000)]
    found = FunctionFigures()
    place = 0
    while place < len(items):
        strip = items[place : place + generator.randrange(1, 9)]
        found.add(len(strip), sum(strip), place)
        place += len(strip)
    assert found.items == len(items)
    assert found.mean == pytest.approx(statistics.fmean(items))
    assert found.deviation == pytest.approx(statistics.stdev(items), rel=0.05)


def test_figures_of_workers_are_joined() -> None:
    one = {"busy": 2.0, "resting": 1.0, "waited": 7.0, "lived": 10.0, "pickling": 0.5,
           "items of f": 3, "longest of f": 0.9, "longest_at of f": 4,
           "seconds of f": 1.0}  # fmt: skip
    two = {"busy": 3.0, "lived": 8.5, "resting": 2.0, "pickling": 0.25,
           "items of f": 5, "longest of f": 0.7, "longest_at of f": 8,
           "seconds of f": 2.0}  # fmt: skip
    found = from_counters({0: one, 1: two}, 10.0)
    assert (found.busy, found.resting) == ({0: 2.0, 1: 3.0}, {0: 1.0, 1: 2.0})
    assert (found.serial, found.pickling) == (3.0, 0.75)
    each = found.functions["f"]
    assert (each.items, each.longest, each.longest_at, each.seconds) == (8, 0.9, 4, 3.0)
    assert found.work == 8.0
    assert found.starting == 1.5


def test_workers_that_had_not_joined_count() -> None:
    counted = dict.fromkeys((key for key, _ in _COLUMNS), 0) | {"busy": 1.0, "waited": 1.0}
    text = summary({0: counted}, ["here", "here", "there"], 1.0)
    assert "1.0 s on 3 workers" in text or "1 s on 3 workers" in text, text
    assert "no figures from workers 1 (here), 2 (there)" in text
    assert "67% of the core time passes before the workers are there" in text
    alone = summary({0: counted}, ["here"], 1.0)
    assert "on 1 worker;" in alone
    assert "no figures" not in alone


def test_a_serial_main_is_told_to_make_tasks() -> None:
    found = figures(busy={0: 2.0, 1: 2.0, 2: 2.0, 3: 2.0}, resting={1: 8.0, 2: 8.0, 3: 8.0},
                    serial=8.0)  # fmt: skip
    assert advice(found)[0].startswith("60% of the core time is lost while main computes by itself")


def test_one_long_item_is_named() -> None:
    found = figures(
        busy={0: 9.9, 1: 2.0, 2: 2.0, 3: 2.0}, resting={1: 7.9, 2: 7.9, 3: 7.9},
        functions={"map(evaluate)": taking([0.1] * 17 + [9.0] + [0.1] * 50)},
    )  # fmt: skip
    sentence = advice(found)[0]
    assert "one item of map(evaluate) (index 17, 9 s): order long items first" in sentence


def test_what_was_seen_of_one_long_item_goes_before_what_is_inferred() -> None:
    found = figures(
        busy={0: 10.0, 1: 2.0, 2: 2.0, 3: 2.0}, resting={1: 8.0, 2: 8.0, 3: 8.0},
        functions={"map(f)": taking([0.1] * 60)}, alone=("map(g)", 3, 8.5, 7.0),
    )  # fmt: skip
    assert advice(found)[0].startswith("70% of the time all other workers wait for one item of map")


def test_fewer_items_than_workers_are_said() -> None:
    found = figures(busy={0: 10.0, 1: 10.0}, resting={2: 10.0, 3: 10.0},
                    functions={"map(f)": taking([10.0, 10.0])})  # fmt: skip
    assert any("map(f) has 2 items for 4 workers" in each for each in advice(found))


def test_small_items_are_said() -> None:
    small = FunctionFigures()
    small.add(10_000_000, 20.0, 0)
    found = figures(busy=dict.fromkeys(range(4), 5.0), functions={"map(abs)": small})
    assert "items of map(abs) take 2 µs each: let one item do more" in advice(found)[0]


def test_pickling_is_said() -> None:
    found = figures(busy=dict.fromkeys(range(4), 5.0), pickling=18.0)
    assert advice(found)[0].startswith("45% of the core time goes into pickling")


def test_workers_that_come_late_are_said() -> None:
    found = figures(busy=dict.fromkeys(range(4), 5.0), starting=15.0)
    assert advice(found)[0].startswith("38% of the core time passes before the workers are there")


def test_an_efficient_run_is_left_alone() -> None:
    found = figures(busy=dict.fromkeys(range(4), 9.8))
    (sentence,) = advice(found)
    assert sentence.startswith("98% of the core time ran the program's own code")
    assert sentence.endswith("there is little to gain")


def test_one_worker_is_told_so() -> None:
    assert "there was one worker" in advice(figures(workers=1, busy={0: 9.0}))[0]


def test_a_run_without_any_figures_has_a_summary_too() -> None:
    counters = dict.fromkeys(
        ("items", "steals_asked", "steals_won", "grants", "items_given", "parked", "messages",
         "bytes"), 0.0,
    )  # fmt: skip
    assert "on 1 worker;" in summary({0: counters}, ["here"], 0.0)
