"""Runs inside a program: ``with dtm.run()``, ``dtm.start()`` and ``dtm.stop()``."""

from __future__ import annotations

import signal
import subprocess
import tempfile
from pathlib import Path
from textwrap import dedent

import pytest

import dtm
from dtm.run import runtime
from tests.local_programs import program

BOTH = """
import os, time, dtm

def both(function, items):
    "Map until two processes have had a part; return the values."
    end = time.monotonic() + 40
    while time.monotonic() < end:
        values, pids = zip(*dtm.map(told, [(function, item) for item in items]))
        if len(set(pids)) > 1:
            return list(values)
    raise SystemExit("one process has done it all")

def told(pair):
    time.sleep(0.01)
    return pair[0](pair[1]), os.getpid()
"""


def run_source(source: str, *arguments: str, **options: object) -> str:
    """Run a program given with -c; it must end well and say nothing on stderr."""
    with program("-c", BOTH + dedent(source), *arguments, **options) as started:
        out, err = started.finish()
    assert (started.returncode, err) == (0, "")
    return out


def test_a_script_without_a_guard_is_run_once(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = """
    print("begin")
    with dtm.run(workers=3):
        print(sum(both(lambda x: x * x, range(30))), dtm.size(), dtm.is_root())
    print("end", dtm.size())
    """
    script.write_text(BOTH + dedent(body))
    with program(script) as started:
        out, err = started.finish()
    assert (started.returncode, err) == (0, "")
    assert out.split("\n") == ["begin", "8555 3 True", "end 1", ""]


def test_a_program_given_with_c_has_workers() -> None:
    body = """
    with dtm.run(workers=2):
        print(both(len, ["a", "bb"] * 10)[:2])
    """
    assert run_source(body) == "[1, 2]\n"


def test_a_program_on_standard_input_has_workers() -> None:
    body = BOTH + dedent("""
    dtm.start(workers=2)
    print(both(lambda x: x + 1, range(20))[:3])
    dtm.stop()
    print(dtm.size())
    """)
    with program("-", stdin=subprocess.PIPE) as started:
        out, err = started.communicate(body, timeout=60)
    assert (started.returncode, out, err) == (0, "[1, 2, 3]\n1\n", "")


def test_an_interactive_session_has_workers() -> None:
    lines = dedent("""
    dtm.start(workers=2)
    def double(x):
        return 2 * x

    both(double, range(20))[:3]
    def double(x):
        return 3 * x

    both(double, range(20))[:3]
    exit()
    """)
    with program("-i", "-c", BOTH, stdin=subprocess.PIPE) as started:
        out, err = started.communicate(lines, timeout=60)
    assert started.returncode == 0
    assert out == "[0, 2, 4]\n[0, 3, 6]\n"
    assert "Error" not in err


def test_what_has_changed_is_taken_again() -> None:
    body = """
    factor, table = 2, []

    def helper(x):
        return x

    def scaled(x):
        return factor * helper(x) + len(table)

    class Thing:
        extra = 0
        def __init__(self, x):
            self.x = x
        def value(self):
            return factor * helper(self.x) + len(table) + self.extra

    things = [Thing(x) for x in range(20)]
    with dtm.run(workers=3):
        for step in range(4):
            expected = [scaled(x) for x in range(20)]
            assert both(scaled, range(20)) == expected
            expected = [thing.value() for thing in things]
            assert both(lambda thing: thing.value(), things) == expected
            assert both(Thing.value, things) == expected
            if step == 0:
                factor = 5
            elif step == 1:
                table.append(1)
                Thing.extra = 100
            elif step == 2:
                def helper(x):
                    return -x
    print(expected[1])
    """
    assert run_source(body) == "96\n"


def test_calls_under_way_keep_the_globals_of_their_time() -> None:
    body = """
    n = 1

    def late(x):
        time.sleep(0.02)
        return n, os.getpid()

    with dtm.run(workers=2):
        both(len, ["a"] * 10)
        calls = []
        for n in (1, 2, 3):
            calls.append(dtm.map_async(late, range(10)))
            calls[-1].wait(0.1)  # the other worker has begun
        for expected, call in enumerate(calls, 1):
            others = {value for value, pid in call.get() if pid != os.getpid()}
            assert others <= {expected}, (others, expected)
    print("done")
    """
    assert run_source(body) == "done\n"


def test_classes_keep_their_identity_at_the_root() -> None:
    body = """
    import enum, typing
    from dataclasses import dataclass

    class Colour(enum.Enum):
        RED = 1

    @dataclass
    class Point:
        x: int
        colour: Colour = Colour.RED

    class Pair(typing.NamedTuple):
        left: Point
        right: int

    class Refused(Exception):
        pass

    def made(x):
        if x == 19:
            raise Refused(x)
        assert isinstance(Pair(Point(x), x).left, Point)
        return Pair(Point(x), x)

    with dtm.run(workers=2):
        pairs = both(made, range(19))
        assert all(type(pair) is Pair and type(pair.left) is Point for pair in pairs)
        assert all(pair.left.colour is Colour.RED for pair in pairs)
        again = both(lambda pair: (pair, isinstance(pair, Pair)), pairs)
        assert again == [(pair, True) for pair in pairs]
        for _ in range(5):
            try:
                dtm.map(made, range(20))
            except Refused as error:
                assert error.args == (19,)
            else:
                raise SystemExit("nothing was refused")
        variable = typing.TypeVar("variable")
        assert both(lambda x: variable, range(20)) == [variable] * 20
    print("done")
    """
    assert run_source(body) == "done\n"


def test_a_class_that_is_defined_anew_is_another() -> None:
    body = """
    with dtm.run(workers=2):
        for n in range(3):
            exec(f"class Cell:\\n    def get(self):\\n        return {n}")
            values = both(lambda x: Cell(), range(20))
            assert all(type(value) is Cell for value in values)
            assert both(lambda cell: cell.get(), values) == [n] * 20
    print("done")
    """
    assert run_source(body) == "done\n"


def test_deap_and_its_creator_need_no_guard() -> None:
    body = """
    import random
    from deap import base, creator, tools, algorithms

    creator.create("FitnessMax", base.Fitness, weights=(1.0,))
    creator.create("Individual", list, fitness=creator.FitnessMax)
    toolbox = base.Toolbox()
    toolbox.register("bit", random.randint, 0, 1)
    toolbox.register("individual", tools.initRepeat, creator.Individual, toolbox.bit, 20)
    toolbox.register("population", tools.initRepeat, list, toolbox.individual)
    toolbox.register("mate", tools.cxTwoPoint)
    toolbox.register("mutate", tools.mutFlipBit, indpb=0.05)
    toolbox.register("select", tools.selTournament, tournsize=3)

    def evaluate(individual):
        time.sleep(0.001)
        assert type(individual) is creator.Individual
        return (sum(individual),)

    def bred(individual):
        return toolbox.clone(individual)

    toolbox.register("evaluate", evaluate)
    toolbox.register("map", dtm.map)
    with dtm.run(workers=2):
        population, _ = algorithms.eaSimple(
            toolbox.population(n=50), toolbox, 0.5, 0.2, 5, verbose=False)
        clones = both(bred, population)
        assert all(type(each) is creator.Individual for each in clones)
        assert all(type(each.fitness) is creator.FitnessMax for each in clones)
    print("done")
    """
    assert run_source(body) == "done\n"


def test_a_class_put_into_a_module_is_read_through_it_as_it_is_now() -> None:
    body = """
    from deap import base, creator
    import deap.creator

    def make(x):
        return creator.Kind([x])

    def rank(x):
        return deap.creator.Kind([x]).rank

    class Maker:
        def made(self, x):
            return creator.Kind([x]).rank

    with dtm.run(workers=3):
        for rank_now in range(3):
            creator.__dict__.pop("Kind", None)
            creator.create("Kind", list, rank=rank_now)
            made = both(make, range(20))
            assert made == [[x] for x in range(20)]
            assert {type(each) for each in made} == {creator.Kind}
            assert both(rank, range(20)) == both(Maker().made, range(20)) == [rank_now] * 20
    """
    run_source(body)


def test_modules_that_nobody_can_import_go_by_value(tmp_path: Path) -> None:
    body = """
    import importlib.util, sys, types
    spec = importlib.util.spec_from_file_location("hidden", sys.argv[1])
    hidden = importlib.util.module_from_spec(spec)
    sys.modules["hidden"] = hidden
    spec.loader.exec_module(hidden)
    import xml.etree.ElementTree

    with dtm.run(workers=2):
        hidden.base = 5
        assert both(hidden.shifted, range(20)) == list(range(5, 25))
        made = both(hidden.Made, range(20))
        assert all(type(each) is hidden.Made for each in made)
        assert both(lambda n: xml.etree.ElementTree.fromstring("<a/>").tag, range(20))[0] == "a"
    print("done")
    """
    file = tmp_path / "hidden.py"
    file.write_text(
        "base = 1\n\ndef shifted(x):\n    return base + x\n\n"
        "class Made:\n    def __init__(self, x):\n        self.x = x\n"
    )
    assert run_source(body, str(file)) == "done\n"


def test_modules_of_the_program_are_found_as_the_program_finds_them(tmp_path: Path) -> None:
    (tmp_path / "beside.py").write_text("def shifted(x):\n    return x + 1\n")
    body = """
    import sys, os
    sys.path.insert(0, sys.argv[1])
    os.chdir(sys.argv[1])
    os.environ["MINE"] = "yes"
    import beside

    def seen(x):
        return beside.shifted(x), os.getcwd(), os.environ["MINE"], sys.argv[1:]

    with dtm.run(workers=2):
        assert both(beside.shifted, range(20)) == list(range(1, 21))
        assert set(map(repr, both(seen, [1] * 20))) == {repr(seen(1))}
    print("done")
    """
    assert run_source(body, str(tmp_path)) == "done\n"


# The end.


@pytest.mark.parametrize(
    ("last", "status", "says"),
    [
        ("raise ValueError('mine')", 1, "ValueError: mine"),
        ("raise SystemExit(7)", 7, ""),
        ("os.kill(os.getpid(), 2); time.sleep(30)", -signal.SIGINT, "KeyboardInterrupt"),
        ("os._exit(3)", 3, ""),
        ("os.kill(os.getpid(), 9)", -9, ""),
        ("os.kill(os.getpid(), 15); time.sleep(30)", -15, ""),
        ("dtm.map_async(time.sleep, [0.1] * 100)", 0, ""),
    ],
)
@pytest.mark.parametrize("block", [True, False])
def test_workers_go_with_the_program(last: str, status: int, says: str, block: bool) -> None:
    begin = "with dtm.run(workers=3):" if block else "dtm.start(workers=3)\nif True:"
    source = f"{BOTH}\n{begin}\n    both(len, ['a'] * 10)\n    {last}\n"
    with program("-c", source) as started:
        _, err = started.finish()
    assert started.returncode == status
    assert says in err if says else err == ""


def test_a_block_that_failed_is_over() -> None:
    body = """
    try:
        with dtm.run(workers=2) as run:
            assert run.size == dtm.size() == 2
            raise ValueError
    except ValueError:
        assert dtm.size() == 1
    with run:
        print(both(len, ["abc"] * 10)[0], run)
    """
    assert run_source(body) == "3 <dtm.run: 2 workers>\n"


def test_runs_follow_each_other_and_other_ways_to_run(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    body = """
    def main():
        return sum(both(lambda x: x, range(20)))

    with dtm.run(workers=2) as run:
        first = main() if run.size > 1 else None
    for _ in range(3):
        dtm.start(workers=2)
        if dtm.size() > 1:
            assert main() == first
        dtm.stop()
    dtm.stop()
    print("started", dtm.start(main))
    with dtm.run(workers=2):
        print(main())
    """
    script.write_text(BOTH + dedent(body))
    with program(script, env={"DTM_WORKERS": "2"}) as started:
        out, err = started.finish()
    assert (started.returncode, out, err) == (0, "started 190\n190\n", "")


def test_what_a_result_of_a_run_that_is_over_says() -> None:
    body = """
    with dtm.run(workers=2):
        late = dtm.map_async(time.sleep, [0.2] * 100)
        done = dtm.map_async(len, ["a"])
        done.wait()
    assert done.get() == [1]
    try:
        late.get()
    except dtm.RunStateError as error:
        print(error)
    """
    assert "over" in run_source(body)


# What is refused.


def test_a_second_beginning_is_refused() -> None:
    body = """
    def nested(x):
        try:
            with dtm.run(workers=2):
                pass
        except dtm.RunStateError as error:
            return str(error)

    def stopped(x):
        try:
            dtm.stop()
        except dtm.RunStateError as error:
            return str(error)

    with dtm.run(workers=2):
        for begin in (lambda: dtm.run().__enter__(), dtm.start, lambda: dtm.start(print)):
            try:
                begin()
            except dtm.RunStateError as error:
                assert "under way" in str(error), error
            else:
                raise SystemExit("begun twice")
        assert "under way" in both(nested, range(20))[0]
        assert "by no task" in both(stopped, range(20))[0]
        try:
            dtm.setOptions(seed=1)
        except dtm.RunStateError as error:
            print(error)
    """
    assert run_source(body) == "dtm.setOptions must be called before a run begins\n"


def test_options_are_checked_before_anything_is_started() -> None:
    before = runtime.current
    for given in ({"workers": 0}, {"worker": 2}, {"workersReturn": True},
                  {"communicationManager": "mpi"}, {"communicationManager": "tcp"}):  # fmt: skip
        with pytest.raises(dtm.OptionError):
            dtm.run(**given)
    with pytest.raises(dtm.OptionError):
        dtm.start(workers=-1)
    with pytest.raises(TypeError):
        dtm.start(None, 1)
    with pytest.raises(dtm.OptionError, match="cannot import"):
        dtm.start(workers=2, loadBalancer="no.such.Balancer")
    assert runtime.current is before


def test_another_thread_cannot_begin_a_run() -> None:
    body = """
    import threading

    def attempt():
        try:
            dtm.start(workers=2)
        except dtm.RunStateError as error:
            print(error)

    thread = threading.Thread(target=attempt)
    thread.start()
    thread.join()
    """
    assert "main thread" in run_source(body)


def test_processes_of_an_mpi_launcher_start_no_workers_each() -> None:
    source = "import dtm\nwith dtm.run(): pass"
    ranks = {"OMPI_COMM_WORLD_SIZE": "4", "OMPI_COMM_WORLD_RANK": "1", "PMIX_RANK": "1"}
    with program("-c", source, env=ranks) as started:
        _, err = started.finish()
    assert started.returncode == 1
    assert "dtm run --inside" in err


# What else a run has.


def test_one_worker_is_the_program_itself() -> None:
    body = """
    with dtm.run(workers=1):
        print(dtm.map(lambda x: os.getpid() == x, [os.getpid()] * 2), dtm.size())
    """
    assert run_source(body) == "[True, True] 1\n"


def test_a_seed_repeats_and_leaves_the_program_its_numbers() -> None:
    body = """
    import random

    def drawn(x):
        time.sleep(0.001)
        return random.random()

    seen = []
    for workers in (2, 2, 1):
        random.seed(5)
        with dtm.run(workers=workers, seed=7):
            seen.append(([random.random()], dtm.map(drawn, range(50))))
        seen[-1] += (random.random(),)
    random.seed(5)
    assert seen[0] == seen[1] == seen[2]
    print(seen[0][2] == random.random())
    """
    assert run_source(body) == "True\n"


def test_threads_of_the_program_may_call() -> None:
    body = """
    from concurrent.futures import ThreadPoolExecutor

    with dtm.run(workers=2), ThreadPoolExecutor(4) as threads:
        calls = [threads.submit(dtm.map, lambda x: x + 1, range(n)) for n in range(20)]
        assert [call.result() for call in calls] == [list(range(1, n + 1)) for n in range(20)]
    print("done")
    """
    assert run_source(body) == "done\n"


def test_a_forked_child_leaves_the_run_to_its_parent() -> None:
    body = """
    import sys, warnings
    warnings.simplefilter("ignore", DeprecationWarning)  # of forks where there are threads
    with dtm.run(workers=2):
        both(len, ["a"] * 10)
        child = os.fork()
        if child:
            assert os.waitpid(child, 0)[1] == 0
            print(both(len, ["aa"] * 10)[0], flush=True)
    if not child:
        sys.stderr = open(os.devnull, "w")
        assert dtm.size() == 1
        assert dtm.map(len, ["a"]) == [1]
    """
    assert run_source(body) == "2\n"


def test_what_tasks_print_goes_where_the_program_prints_now() -> None:
    body = """
    import contextlib, io

    def spoken(x):
        print("item", x)
        return x

    with dtm.run(workers=2):
        both(spoken, range(20))
        captured = io.StringIO()
        with contextlib.redirect_stdout(captured):
            both(spoken, range(100, 120))
            time.sleep(0.2)
    text = captured.getvalue()
    assert set(text.split("\\n")) == {"", *(f"item {n}" for n in range(100, 120))}, text
    """
    assert set(run_source(body).split("\n")) == {"", *(f"item {n}" for n in range(20))}


def test_a_worker_that_is_lost_ends_the_run_and_not_the_program() -> None:
    body = """
    import signal

    def suicide(x):
        if os.getpid() != root:
            os.kill(os.getpid(), signal.SIGKILL)
        time.sleep(0.01)

    root = os.getpid()
    for idle in (False, True):
        with dtm.run(workers=2):
            both(len, ["a"] * 10)
            if idle:
                lost = dtm.map_async(suicide, range(1000))
                time.sleep(1.0)
                print("still here")
            for attempt in range(3):
                try:
                    dtm.map(suicide, range(1000))
                except dtm.WorkerLostError as error:
                    assert "SIGKILL" in str(error)
                else:
                    raise SystemExit("nothing was lost")
    with dtm.run(workers=2):
        print(both(len, ["aaa"] * 10)[0])
    """
    assert run_source(body) == "still here\n3\n"


# Ctrl-C.

INTERRUPTED = """
    import signal, threading
    from concurrent import futures

    root = os.getpid()

    def interrupt(seconds):
        threading.Timer(seconds, os.kill, (root, signal.SIGINT)).start()

    def interrupted(function, *args, seconds=0.3):
        began = time.perf_counter()
        interrupt(seconds)
        try:
            function(*args)
        except KeyboardInterrupt:
            return time.perf_counter() - began
        raise SystemExit("not interrupted")

    def quick(x):
        time.sleep(0.01)
        return os.getpid()

    def everybody():
        seen, end = set(), time.monotonic() + 30
        while len(seen) < 3:
            assert time.monotonic() < end, seen
            seen.update(dtm.map(quick, range(60)))
        return seen

    def slow(x):
        time.sleep(0.05)
        return x

    def busy(x):
        end = time.perf_counter() + 0.05
        while time.perf_counter() < end:
            pass
        return x

    def tiny(x):
        return x

    def nested(x):
        return sum(dtm.map(slow, range(20)))

    def endless():
        n = 0
        while True:
            yield n
            n += 1

    def joined(function, items):
        pool = dtm.Pool()
        pool.map_async(function, items)
        pool.close()
        pool.join()

    def in_executor(wait):
        with dtm.Executor() as executor:
            wait([executor.submit(slow, x) for x in range(2000)])
"""


@pytest.mark.parametrize(
    "call",
    [
        "dtm.map, slow, range(100_000)",
        "dtm.map, busy, range(100_000)",
        "dtm.map, tiny, range(30_000_000)",
        "dtm.map, nested, range(100_000)",
        "dtm.map, tiny, endless()",
        "list, dtm.imap(slow, endless())",
        "dtm.map_async(slow, range(100_000)).get",
        "dtm.waitAny, [dtm.apply_async(time.sleep, 4)]",
        "dtm.options(on_error=1).map, slow, range(100_000)",
        "dtm.options(timeout=60).map, busy, range(100_000)",
        "dtm.Pool(2).map, slow, range(100_000)",
        "joined, slow, range(100_000)",
        "dtm.Executor().submit(time.sleep, 60).result",
        "in_executor, lambda later: later[-1].result()",
        "in_executor, futures.wait",
        "in_executor, lambda later: list(futures.as_completed(later))",
        "in_executor, lambda later: None",
        "time.sleep, 60",
    ],
)
@pytest.mark.parametrize("workers", [2, pytest.param(1, marks=pytest.mark.slow)])
def test_an_interrupt_ends_the_call_and_not_the_run(call: str, workers: int) -> None:
    body = f"""
    with dtm.run(workers={workers}):
        if {workers} > 1:
            both(len, ["a"] * 10)
        for _ in range(2):
            interrupted({call})
            assert dtm.map(lambda x: x + 1, range(100)) == list(range(1, 101))
    print("done")
    """
    assert run_source(dedent(INTERRUPTED) + dedent(body)) == "done\n"


def test_an_interrupted_call_is_withdrawn_everywhere() -> None:
    body = """
    def noted(x):
        time.sleep(0.02)
        with open(sys.argv[1], "a") as file:
            file.write("x")
        return x

    import sys
    with dtm.run(workers=3):
        both(len, ["a"] * 10)
        interrupted(dtm.map, noted, range(100_000))
        time.sleep(0.5)
        before = os.stat(sys.argv[1]).st_size
        time.sleep(0.5)
        assert os.stat(sys.argv[1]).st_size == before > 0
        print(both(len, ["aa"] * 10)[0])
    """
    with tempfile.NamedTemporaryFile() as file:
        assert run_source(dedent(INTERRUPTED) + dedent(body), file.name) == "2\n"


@pytest.mark.parametrize(
    "body",
    [
        "while True: pass",
        "time.sleep(1000)",
        "while True: time.sleep(0.01)",
        "dtm.map(endless_item, range(4))",
        "dtm.map_async(endless_item, range(4)).get()",
        "dtm.Pool().map(endless_item, range(4))",
    ],
)
@pytest.mark.parametrize(
    "call",
    ["dtm.map", pytest.param("lambda *a: dtm.map_async(*a).get()", marks=pytest.mark.slow)],
)
def test_what_other_workers_run_of_it_is_interrupted_too(body: str, call: str) -> None:
    source = f"""
    def endless_item(x):
        while True:
            sum(range(1000))

    def hopeless(x):
        {body}

    with dtm.run(workers=3):
        before = everybody()
        for _ in range(2):
            interrupted({call}, hopeless, range(3), seconds=1.0)
            assert everybody() == before
    print("done")
    """
    assert run_source(dedent(INTERRUPTED) + dedent(source)) == "done\n"


@pytest.mark.parametrize("call", ["joined, hopeless, range(3)", "submitted, hopeless"])
def test_pools_and_executors_withdraw_what_other_workers_run_too(call: str) -> None:
    source = f"""
    def hopeless(x):
        while True:
            sum(range(1000))

    def submitted(function):
        with dtm.Executor() as executor:
            [executor.submit(function, x) for x in range(3)][-1].result()

    with dtm.run(workers=3):
        everybody()
        interrupted({call}, seconds=1.0)
        everybody()
    print("done")
    """
    assert run_source(dedent(INTERRUPTED) + dedent(source)) == "done\n"


def test_ctrl_c_reaches_all_processes_and_ends_none() -> None:
    body = """
    root_group = os.getpgid(0)

    def all_at_once(seconds):
        threading.Timer(seconds, os.killpg, (root_group, signal.SIGINT)).start()

    interrupt = all_at_once
    with dtm.run(workers=3):
        pids = set()
        while len(pids) < 3:
            pids |= set(dtm.map(lambda x: time.sleep(0.01) or os.getpid(), range(60)))
        for _ in range(3):
            interrupted(dtm.map, slow, range(100_000))
        after = set()
        while len(after) < 3:
            after |= set(dtm.map(lambda x: time.sleep(0.01) or os.getpid(), range(60)))
        assert after == pids
    print("done")
    """
    assert run_source(dedent(INTERRUPTED) + dedent(body)) == "done\n"


@pytest.mark.slow
@pytest.mark.parametrize("seed", [1, 2])
def test_interrupts_at_any_time_leave_the_run_in_order(seed: int) -> None:
    body = f"""
    import random, signal, threading

    root, rng, armed, over = os.getpid(), random.Random({seed}), threading.Event(), False

    def bombard():
        while not over:
            time.sleep(rng.random() * 0.05)
            if armed.is_set():
                os.kill(root, signal.SIGINT)

    def tiny(x):
        return x + 1

    def mid(x):
        time.sleep(0.001)
        return x + 1

    def nested(x):
        return sum(dtm.map(mid, range(5))) + x

    calls = [
        lambda: dtm.map(tiny, range(20_000)),
        lambda: dtm.map(mid, range(100)),
        lambda: dtm.map(nested, range(20)),
        lambda: dtm.map_async(mid, range(50)).get(),
        lambda: dtm.waitAll([dtm.map_async(nested, range(5)) for _ in range(3)]),
        lambda: list(dtm.imap_unordered(nested, range(20))),
        lambda: dtm.Pool().map(nested, range(20)),
        lambda: dtm.Executor().submit(mid, 1).result(),
    ]
    threading.Thread(target=bombard, daemon=True).start()
    hits = 0
    with dtm.run(workers=3):
        while hits < 30:
            try:
                armed.set()
                rng.choice(calls)()
            except KeyboardInterrupt:
                hits += 1
            while True:
                try:
                    armed.clear()
                    time.sleep(0.06)
                    break
                except KeyboardInterrupt:
                    pass
            try:
                assert dtm.map(nested, range(10)) == [15 + x for x in range(10)]
            except KeyboardInterrupt:
                pass  # one that was sent while dtm was about something
        over = True
        pids = set()
        while len(pids) < 3:
            pids |= set(dtm.map(lambda x: time.sleep(0.005) or os.getpid(), range(60)))
    print("done")
    """
    with program("-c", BOTH + dedent(body)) as started:
        out, err = started.finish()  # one may fall into a weak reference's callback, which says so
    assert (started.returncode, out) == (0, "done\n"), err


def test_the_handler_of_interrupts_is_given_back() -> None:
    body = """
    import signal
    mine = lambda *_: None
    with dtm.run(workers=2):
        assert signal.getsignal(signal.SIGINT) is not signal.default_int_handler
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    assert signal.getsignal(signal.SIGTERM) == signal.SIG_DFL
    signal.signal(signal.SIGINT, mine)
    with dtm.run(workers=2):
        dtm.map(len, ["a"])
        assert signal.getsignal(signal.SIGINT) is mine
    assert signal.getsignal(signal.SIGINT) is mine
    print("done")
    """
    assert run_source(body) == "done\n"


# Where programs are that others run.


def test_tests_of_pytest_share_a_run(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(
        dedent("""
        import dtm, pytest

        @pytest.fixture(scope="session", autouse=True)
        def workers():
            with dtm.run(workers=2):
                yield
        """)
    )
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "test_mine.py").write_text(
        BOTH
        + dedent("""
        import pytest

        class Mine:
            def __init__(self, x):
                self.x = x

        def spoken(x):
            print("item", x)
            return Mine(x)

        @pytest.mark.parametrize("begin", [0, 100])
        def test_output(capsys, begin):
            values = both(spoken, range(begin, begin + 30))
            time.sleep(0.2)
            assert all(type(each) is Mine for each in values)
            printed = set(capsys.readouterr().out.splitlines())
            assert printed == {f"item {n}" for n in range(begin, begin + 30)}

        def test_fixture(tmp_path):
            assert set(both(lambda x: tmp_path.is_dir(), range(20))) == {True}
        """)
    )
    for mode in ("prepend", "importlib"):
        options = ("-q", "-p", "no:cacheprovider", "-p", "no:xdist", f"--import-mode={mode}")
        options += (f"--basetemp={tmp_path / 'temporary'}",)
        with program("-m", "pytest", *options, tmp_path, cwd=tmp_path) as started:
            out, err = started.finish()
        assert started.returncode == 0, out
        assert err == ""
        assert "3 passed" in out


def test_ipython_is_an_interactive_session(tmp_path: Path) -> None:
    pytest.importorskip("IPython")
    lines = dedent("""
    dtm.start(workers=2)
    def double(x): return 2 * x

    print(both(double, range(20))[:3])
    def double(x): return 3 * x

    print(both(double, range(20))[:3])
    exit()
    """)
    options = ("-m", "IPython", "--simple-prompt", "--no-banner", "--colors=NoColor", "-i", "-c")
    own = {"IPYTHONDIR": str(tmp_path)}
    with program(*options, BOTH, stdin=subprocess.PIPE, env=own) as started:
        out, _ = started.communicate(lines, timeout=60)
    assert started.returncode == 0
    assert "[0, 2, 4]" in out
    assert "[0, 3, 6]" in out
    assert "Error" not in out


def test_options_reach_the_workers(tmp_path: Path) -> None:
    body = """
    import sys
    from dtm.core.balancer import Balancer

    class Mine(Balancer):
        made = 0
        def __init__(self, *args, **kwargs):
            Mine.made += 1
            super().__init__(*args, **kwargs)

    def seen(x):
        from dtm.run import runtime
        chosen = runtime.current.options
        balancer = type(runtime.current.worker.scheduler.balancer)
        return chosen.cacheBytes, chosen.setTraceMode, balancer is Mine, Mine.made

    with dtm.run(workers=2, cacheBytes=12345, loadBalancer=Mine, setTraceMode=True,
                 traceDir=sys.argv[1]):
        values, pids = set(), set()
        while len(values) < 2 and len(pids) < 2:
            told = dtm.map(lambda x: (time.sleep(0.01), seen(x), os.getpid()), range(20))
            values |= {each[1] for each in told}
            pids |= {each[2] for each in told}
    assert values == {(12345, True, True, 1)}, values
    """
    run_source(body, str(tmp_path / "trace"))
    assert len(list((tmp_path / "trace").iterdir())) >= 2


def test_the_initializer_is_called_at_the_root_and_what_it_sets_is_seen_everywhere() -> None:
    body = """
    scale, table = 1, {}

    def prepare(value):
        global scale
        scale = value
        table["there"] = value
        dtm.local.mine = os.getpid()

    def scaled(x):
        return scale * x, table.get("there"), dtm.local.mine == os.getpid()

    def begun():
        dtm.start(workers=2, initializer=prepare, initargs=(3,))
        seen = both(scaled, range(20))
        dtm.stop()
        return seen

    with dtm.run(workers=3, initializer=prepare, initargs=(5,)):
        assert both(scaled, range(20)) == [(5 * x, 5, True) for x in range(20)]
    assert (scale, table) == (5, {"there": 5})
    assert begun() == [(3 * x, 3, True) for x in range(20)]
    with dtm.run(workers=1, initializer=prepare, initargs=(7,)):
        assert dtm.map(scaled, range(2)) == [(0, 7, True), (7, 7, True)]
    """
    run_source(body)


def test_a_run_whose_initializer_fails_at_the_root_does_not_begin() -> None:
    body = """
    def broken():
        raise OSError("no licence")

    root = os.getpid()
    def broken_here():
        if os.getpid() == root:
            broken()

    for initializer in (broken, broken_here):
        try:
            with dtm.run(workers=2, initializer=initializer):
                print("in the block")
        except dtm.InitializerError as error:
            assert "no licence" in str(error)
        assert dtm.size() == 1
    with dtm.run(workers=2):
        print(sum(both(abs, range(20))))
    """
    assert run_source(body) == "190\n"


def test_tasks_choose_the_backend_of_joblib_that_the_program_has_imported() -> None:
    pytest.importorskip("joblib")
    body = """
    import joblib
    from joblib import Parallel, delayed, parallel_config

    def by_name(n):
        with parallel_config(backend="dtm"):
            return sum(Parallel(n_jobs=-1)(delayed(abs)(x) for x in range(n)))

    def by_module(n):
        with joblib.parallel_config(backend="dtm"):
            return sum(joblib.Parallel(n_jobs=-1)(joblib.delayed(abs)(x) for x in range(n)))

    with dtm.run(workers=3):
        import dtm.joblib
        for function in (by_name, by_module):
            assert both(function, range(20)) == [sum(range(n)) for n in range(20)]
    """
    run_source(body)
