"""Who reads in a task what main has set after the start is told so, and nobody else is."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from functools import partial
from textwrap import dedent
from types import ModuleType
from typing import Any

import pytest

from dtm.run.late_globals import LateGlobals
from tests.launch import PROGRAMS, run_local

PROGRAM = PROGRAMS / "late_globals.py"
TOLD = re.compile(r"^dtm: (\w+) reads the global (\w+) of __main__", re.MULTILINE)
START = """
    import functools, threading
    CONF = None
    SIZE = 1000
    TEXT = "a"
    TABLE = {"n": 1}
    ROWS = [1, 2]
    MANY = list(range(1000))
    CACHE = {}
    COUNT = 0
    MODEL = None

    def make():
        global MODEL
        if MODEL is None:
            MODEL = object()
        return MODEL

    def helper(): return CONF
    def put(table, key): table[key] = 1
    def wraps(f):
        @functools.wraps(f)
        def inner(x): return f(x)
        return inner

    class Plain:
        def method(self, x): return CONF
        def __call__(self, x): return CONF
    class Derived(Plain):
        pass
"""


@pytest.fixture
def module() -> Iterator[ModuleType]:
    made = ModuleType("program_of_a_test")
    made.__file__ = "/home/user/program_of_a_test.py"
    sys.modules[made.__name__] = made
    exec(dedent(START), vars(made))
    yield made
    del sys.modules[made.__name__]


def told(
    module: ModuleType, task: str, main: str = "", get: Callable[[Any], Any] | None = None
) -> set[str]:
    """Return the names that are told of when ``main`` has run and the task is sent."""
    exec(dedent(task), vars(module))
    late = LateGlobals()
    late.remember()
    exec(dedent(main), vars(module))
    function = vars(module)["task"] if get is None else get(vars(module)["task"])
    lines = late.look(function)
    assert late.look(function) == [], "once"
    assert all(line.endswith("\n") and line.count("\n") == 1 for line in lines)
    return {re.findall(r"the global (\w+) of program_of_a_test", line)[0] for line in lines}


@pytest.mark.parametrize(
    ("task", "main", "names"),
    [
        ("def task(x): return CONF", "CONF = 3", {"CONF"}),
        ("def task(x): return CONF['k']", "CONF = {'k': 1}", {"CONF"}),
        ("def task(x): return SIZE + len(TEXT)", "SIZE, TEXT = 7, 'b'", {"SIZE", "TEXT"}),
        ("def task(x): return NEW", "NEW = 3", {"NEW"}),
        ("def task(x): return helper()", "CONF = 3", {"CONF"}),
        ("def task(x): return [helper() for _ in range(x)]", "CONF = 3", {"CONF"}),
        ("def task(x): return (lambda: CONF)()", "CONF = 3", {"CONF"}),
        ("task = wraps(lambda x: CONF)", "CONF = 3", {"CONF"}),
        ("task = functools.lru_cache(helper)", "CONF = 3", {"CONF"}),
        ("@functools.cache\ndef f(x): return CONF\ndef task(x): return f(x)", "CONF = 3", {"CONF"}),
        ("task = functools.partial(lambda x, y: CONF, 1)", "CONF = 3", {"CONF"}),
        ("task = Plain().method", "CONF = 3", {"CONF"}),
        ("task = Derived()", "CONF = 3", {"CONF"}),
        ("def task(x): return helper(x)", "helper = lambda x: x", {"helper"}),
        ("def task(x): return TABLE['n']", "TABLE['n'] = 2", {"TABLE"}),
        ("def task(x): return TABLE[x]", "TABLE['m'] = 2", {"TABLE"}),
        ("def task(x): return TABLE.get(x), 3 in ROWS",
         "TABLE[2] = ROWS[0] = 9", {"TABLE", "ROWS"}),
        ("def task(x): return [row for row in ROWS]", "ROWS.append(3)", {"ROWS"}),
        ("def task(x): return MANY[x]", "MANY.append(3)", {"MANY"}),
    ],
)  # fmt: skip
def test_what_is_set_late_and_read_is_told(
    module: ModuleType, task: str, main: str, names: set[str]
) -> None:
    assert told(module, task, main) == names


@pytest.mark.parametrize(
    ("task", "main"),
    [
        ("def task(x): return CONF, TABLE['n'], ROWS[0], MANY", ""),
        ("def task(x): return x", "CONF = 3"),
        ("def task(x): return SIZE, TEXT, CONF", "SIZE, TEXT, CONF = 500 + 500, 'a', None"),
        ("def task(x):\n global CONF\n CONF = x", "CONF = 3"),
        ("def task(x):\n global COUNT\n COUNT += 1", "COUNT = 3"),
        ("def task(x): return make()", "make()"),
        ("def task(x): return make() or MODEL", "make()"),
        ("def task(x): CACHE[x] = 1", "CACHE[1] = 1"),
        ("def task(x): return CACHE.setdefault(x, 1), CACHE[x]", "CACHE[1] = 1"),
        ("def task(x): put(CACHE, x); return CACHE[x]", "put(CACHE, 1)"),
        ("def task(x): put(CACHE, TABLE[x])", "CACHE[1] = 1"),
        ("def task(x): ROWS.append(x)", "ROWS.append(1)"),
        ("def task(x): c = CACHE; c[x] = 1", "CACHE[1] = 1"),
        ("def task(x): return Later()", "class Later: pass"),
        ("def task(CONF): return CONF", "CONF = 3"),
        ("def task(x): return __name__, __builtins__", "__name__ = __name__ + ''"),
        ("def task(x): return undefined", ""),
        ("def task(x): return threading.excepthook", "threading.excepthook = threading.excepthook"),
        ("task = len", "CONF = 3"),
        ("task = int", "CONF = 3"),
    ],
)
def test_what_is_none_of_it_is_not_told(module: ModuleType, task: str, main: str) -> None:
    assert told(module, task, main) == set()


def test_keywords_and_guards_are_looked_through(module: ModuleType) -> None:
    assert told(module, "def task(x, y): return CONF", "CONF = 3", lambda f: partial(f, y=1)) == {
        "CONF"
    }


def test_a_name_is_told_once_whoever_reads_it(module: ModuleType) -> None:
    exec("def one(x): return CONF\ndef other(x): return CONF, SIZE", vars(module))
    late = LateGlobals()
    late.remember()
    exec("CONF, SIZE = 3, 4", vars(module))
    assert len(late.look(vars(module)["one"])) == 1
    (line,) = late.look(vars(module)["other"])
    assert "global SIZE" in line


def test_what_is_set_on_all_the_workers_is_excused(module: ModuleType) -> None:
    exec("def task(x): return CONF, SIZE", vars(module))
    late = LateGlobals()
    late.remember()
    exec("SIZE = 5", vars(module))
    with late.excused():
        exec("CONF = 3", vars(module))
    (line,) = late.look(vars(module)["task"])
    assert "global SIZE" in line


def test_libraries_and_other_processes_are_left_alone() -> None:
    late = LateGlobals()
    assert late.look(dedent) == [], "nothing was remembered: no run, or not the root"
    late.remember()
    assert late.look(dedent) == []
    late.forget()
    assert late.look(run_local) == []


@pytest.mark.parametrize(
    ("how", "names"), [("late", {"CONF", "SCALE", "TABLE"}), ("run", set()), ("call", set())]
)
def test_in_a_run(how: str, names: set[str]) -> None:
    done = run_local(PROGRAM, 2, how, timeout=100)
    assert done.stdout.split("\n")[0] == "[0, 1]", done.stderr
    found = TOLD.findall(done.stderr)
    assert sorted(found) == sorted(("task", name) for name in names), done.stderr
