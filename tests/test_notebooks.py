"""Notebooks: functions and classes of cells, output, interrupts; executed and interactive."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("nbclient", reason="the test group of pyproject.toml has it")
pytest.importorskip("ipykernel", reason="the test group of pyproject.toml has it")

import nbformat
from nbclient import NotebookClient

from tests.launch import environment
from tests.notebooks import Kernel, await_end, kernel

pytestmark = [
    pytest.mark.filterwarnings("ignore"),  # of what runs kernels, not of dtm
    pytest.mark.xdist_group("notebooks"),
]

BEGIN = """
import os, time, dtm

def spread(function, items):
    "Map until two processes have had a part."
    def told(item):
        time.sleep(0.01)
        return function(item), os.getpid()

    end = time.monotonic() + 40
    while time.monotonic() < end:
        values, seen = zip(*dtm.map(told, items))
        if len(set(seen)) > 1:
            return list(values), set(seen)
    raise RuntimeError("one process has done it all")
"""


@pytest.fixture
def session(tmp_path: Path) -> Iterator[Kernel]:
    """A kernel in which a run has begun."""
    with kernel(tmp_path) as started:
        assert started.cell(BEGIN).error is None
        assert started.cell("dtm.start(workers=2)").error is None
        yield started


def test_cells_define_and_define_anew(session: Kernel) -> None:
    session.cell("def f(x):\n    return x + 1")
    assert session.value("spread(f, range(20))[0][:3]") == "[1, 2, 3]"
    session.cell("def f(x):\n    return x + shift")
    session.cell("shift = 10")
    assert session.value("spread(f, range(20))[0][:3]") == "[10, 11, 12]"
    session.cell("shift = 20")
    assert session.value("spread(f, range(20))[0][:3]") == "[20, 21, 22]"
    session.cell("""
    class Thing:
        def __init__(self, x):
            self.x = x
        def get(self):
            return f(self.x)
    """)
    assert session.value("things, _ = spread(Thing, range(20)); {type(t) is Thing for t in things}")
    assert session.value("spread(Thing.get, things)[0][:2]") == "[20, 21]"
    session.cell("def f(x):\n    return -x")
    assert session.value("spread(Thing.get, things)[0][:3]") == "[0, -1, -2]"
    session.cell("class Thing:\n    def __init__(self, x):\n        self.y = x")
    assert session.value("{type(t) is Thing for t in spread(Thing, range(20))[0]}") == "{True}"


def test_deap_lives_in_cells(session: Kernel) -> None:
    session.cell("""
    from deap import base, creator, tools
    creator.create("FitnessMax", base.Fitness, weights=(1.0,))
    creator.create("Individual", list, fitness=creator.FitnessMax)
    toolbox = base.Toolbox()
    def evaluate(individual):
        assert isinstance(individual, creator.Individual)
        return (sum(individual),)
    toolbox.register("evaluate", evaluate)
    toolbox.register("map", dtm.map)
    """)
    shown = session.cell("""
    population = [creator.Individual([1] * n) for n in range(40)]
    fits, _ = spread(toolbox.evaluate, population)
    clones, _ = spread(toolbox.clone, population)
    fits[:3], {type(clone) is creator.Individual for clone in clones}
    """)
    assert (shown.error, shown.value) == (None, "([(0,), (1,), (2,)], {True})")


def test_what_tasks_print_appears_in_the_cell(session: Kernel) -> None:
    session.cell("""
    def spoken(x):
        print("item", x)
    """)
    for begin in (0, 100):
        shown = session.cell(f"""
        spread(spoken, range({begin}, {begin} + 40))
        time.sleep(0.2)
        """)
        lines = set(shown.text.splitlines())
        assert lines == {f"item {n}" for n in range(begin, begin + 40)}
        assert shown.elsewhere == []


@pytest.mark.parametrize(
    "source",
    [
        "dtm.map(lambda x: time.sleep(0.05), range(100_000))",
        "dtm.map(lambda x: sum(range(10_000)), range(10_000_000))",
        "dtm.map_async(lambda x: time.sleep(0.05), range(100_000)).get()",
        "list(dtm.imap(lambda x: time.sleep(0.05), range(100_000)))",
        "time.sleep(60)",
    ],
)
def test_an_interrupt_ends_the_cell_and_not_the_run(session: Kernel, source: str) -> None:
    _, before = ast.literal_eval(session.value("spread(len, ['a'] * 20)"))
    for _ in range(2):
        shown = session.cell(f"print('begun', flush=True)\n{source}", "begun")
        assert shown.error == "KeyboardInterrupt"
        assert session.value("dtm.map(len, ['a', 'bb'])") == "[1, 2]"
    _, after = ast.literal_eval(session.value("spread(len, ['a'] * 20)"))
    assert after == before


def test_runs_follow_each_other_and_go_with_the_kernel(session: Kernel) -> None:
    session.cell("dtm.stop()")
    assert session.value("dtm.size()") == "1"
    assert session.value("with dtm.run(workers=2):\n    n = dtm.size()\nn, dtm.size()") == "(2, 1)"
    assert session.cell("dtm.start(workers=2)\ndtm.start(workers=2)").error == "RunStateError"
    processes = ast.literal_eval(session.value("spread(len, ['a'] * 20)[1]"))
    session.manager.shutdown_kernel(now=True)
    await_end(sorted(processes))


def test_coroutines_of_cells_wait_for_calls(session: Kernel) -> None:
    session.cell("import dtm.asyncio")
    shown = session.cell("await dtm.asyncio.map(lambda x: x + 1, range(3))")
    assert (shown.error, shown.value) == (None, "[1, 2, 3]")


def test_a_notebook_is_executed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in environment({"TMPDIR": str(tmp_path)}).items():
        monkeypatch.setenv(name, value)
    cells = [
        BEGIN,
        "def f(x):\n    print('item', x)\n    return x * scale\nscale = 3",
        "with dtm.run(workers=2):\n    values, seen = spread(f, range(20))\nsum(values), len(seen)",
        "dtm.size()",
    ]
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell) for cell in cells])
    NotebookClient(notebook, timeout=60, kernel_name="python3").execute()
    outputs = notebook.cells[2].outputs
    assert outputs[-1].data["text/plain"] == "(570, 2)"
    printed = "".join(each.text for each in outputs if each.output_type == "stream")
    assert set(printed.splitlines()) == {f"item {n}" for n in range(20)}
    assert notebook.cells[3].outputs[0].data["text/plain"] == "1"
