"""Initializers of the run, of calls and of pools, and what each worker keeps for itself."""

import contextvars
import decimal
import os
import random
import sys
import threading
import time
from concurrent import futures

from checking import play, raised

import dtm as package
from dtm import dtm

CALLED = []
SIZE = int(sys.argv[1])
HERE = contextvars.ContextVar("HERE", default=None)


def prepare_run(*args, scale=1):
    CALLED.append(args)
    decimal.getcontext().prec = 50
    dtm.local.drawn = random.random()
    dtm.local.process = os.getpid()
    dtm.local.table = [scale * x for x in args]


def count(name):
    CALLED.append(name)


def slow_to_begin(name):
    time.sleep(0.3)
    CALLED.append(name)


def sets_a_context_variable(value):
    HERE.set(value)


def breaks_where(ranks):
    CALLED.append("breaks")
    if dtm.getWorkerId() in ranks:
        raise OSError("no such device")


def leaves():
    raise SystemExit(4)


def asks_dtm():
    dtm.map(abs, [1])


def what_was_called(_):
    time.sleep(0.002)
    return dtm.getWorkerId(), tuple(CALLED)


def read_local(_):
    time.sleep(0.002)
    own = dtm.local.process == os.getpid()
    return (
        dtm.getWorkerId(),
        own,
        dtm.local.table,
        decimal.getcontext().prec,
        dtm.local.drawn,
        HERE.get(),
    )


def inner(name):
    return [ran.count(name) for _, ran in dtm.options(initializer=count, initargs=(name,)).map(
        what_was_called, range(6)
    )]  # fmt: skip


def everywhere(door, function=what_was_called):
    """Map until every worker has had an item; on a busy machine one may be late."""
    seen = []
    began = time.perf_counter()
    while {result[0] for result in seen} != set(range(SIZE)):
        seen += door.map(function, range(50 * SIZE))
        assert time.perf_counter() - began < 60
    return seen


def how_often(name, seen):
    """Return how often the workers had called it, when they were asked last."""
    last = dict(sorted(seen, key=lambda pair: len(pair[1])))
    return {ran.count(name) for ran in last.values()}


class Model:
    made = 0

    def __init__(self, factor):
        time.sleep(0.01)
        Model.made += 1
        self.factor = factor
        self.lock = threading.Lock()  # so it cannot travel

    def __call__(self, x):
        return self.factor * x


def with_model(x):
    time.sleep(0.001)
    return dtm.local.get("model", Model, 3)(x), Model.made


def with_model_in_threads(_):
    with futures.ThreadPoolExecutor(4) as pool:
        return len(set(pool.map(lambda _: id(dtm.local.get("shared", Model, factor=1)), range(8))))


def in_a_forked_child(_):
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        dtm.local.table = ["of the child"]
        os.write(writing, dtm.local.get("made_in_child", str, 7).encode())
        os._exit(0)
    os.waitpid(child, 0)
    found = os.read(reading, 10)
    os.close(reading), os.close(writing)
    return found, hasattr(dtm.local, "made_in_child"), dtm.local.table


def check_that_of_the_run():
    seen = everywhere(dtm)
    assert {ran.count((3, 4)) for _, ran in seen} == {1}, seen[:3]
    assert CALLED.count((3, 4)) == 1, "on the root too, before main"


def check_what_it_sets_holds_in_tasks():
    seen = everywhere(dtm, read_local)
    assert {(own, tuple(table), prec) for _, own, table, prec, *_ in seen} == {(True, (3, 4), 50)}


def check_that_of_a_call_is_called_once_in_each_worker():
    door = dtm.options(initializer=count, initargs=["call"])
    assert how_often("call", everywhere(door)) == {1}
    later = [*door.map(what_was_called, range(50)), *door.imap(what_was_called, range(50))]
    later += [door.apply(what_was_called, 0), door.apply_async(what_was_called, 0).get()]
    assert how_often("call", later) == {1}, "the same object, so it is known"
    again = dtm.options(initializer=count, initargs=("call",))
    assert how_often("call", everywhere(again)) == {2}


def check_several_calls_with_their_own():
    first = dtm.options(initializer=count, initargs=("one",)).map_async(what_was_called, range(99))
    other = dtm.options(initializer=count, initargs=("two",)).map_async(what_was_called, range(99))
    assert {ran.count("one") for _, ran in first.get()} == {1}
    assert {ran.count("two") for _, ran in other.get()} == {1}


def check_that_of_a_nested_call():
    names = [f"nested {index}" for index in range(20)]
    assert dtm.map(inner, names) == [[1] * 6] * 20


def check_its_time_is_no_items_time():
    door = dtm.options(initializer=slow_to_begin, initargs=("slow",), timeout=0.2)
    assert how_often("slow", door.map(what_was_called, range(60))) == {1}


def check_context_variables():
    door = dtm.options(initializer=sets_a_context_variable, initargs=("here",))
    seen = door.map(read_local, range(60))
    assert {found for *_, found in seen} == {"here"}
    assert HERE.get() is None, "that of main is its own"


def check_a_failure_is_one_of_the_call():
    last = SIZE - 1
    door = dtm.options(initializer=breaks_where, initargs=((last,),), on_error="hidden")
    error = raised(everywhere, door)
    assert type(error) is package.InitializerError, repr(error)
    assert f"the initializer breaks_where has failed on worker {last} (" in str(error), error
    assert "OSError: no such device" in str(error)
    told = error.__cause__
    assert "no such device" in str(told) and (last == 0 or "breaks_where" in str(told)), told
    for _ in range(3):
        assert type(raised(everywhere, door)) is type(error)
    seen = dict(everywhere(dtm))
    assert seen[last].count("breaks") == 1, "what failed is not called again"


def check_whatever_it_raises():
    error = raised(dtm.options(initializer=leaves).map, abs, [1])
    assert type(error) is package.InitializerError and "SystemExit: 4" in str(error)
    error = raised(dtm.options(initializer=asks_dtm, return_exceptions=True).map, abs, [1])
    assert type(error) is package.InitializerError, repr(error)
    assert "cannot call functions of dtm" in str(error)
    assert dtm.map(abs, [-1]) == [1], "and this thread is a task again"


def check_one_that_cannot_travel():
    lock = threading.Lock()
    door = dtm.options(initializer=lambda: lock.locked())
    seen = door.map(what_was_called, range(100))
    assert {rank for rank, _ in seen} == {0}


def check_that_of_a_pool():
    with dtm.Pool(initializer=breaks_where, initargs=(range(SIZE),)) as pool:
        for find in (pool.map, lambda f, xs: list(pool.imap(f, xs)), pool.starmap):
            error = raised(find, what_was_called, [(1,)] * 20)
            assert type(error) is package.InitializerError, repr(error)


def check_seeded_items_draw_as_without():
    assert len({drawn for *_, drawn, _ in everywhere(dtm, read_local)}) == 1
    plain = dtm.map(draw, range(20))
    assert len(set(plain)) == 20


def draw(_):
    return random.random()


def check_what_is_made_on_first_use():
    seen = dtm.map(with_model, range(100 * SIZE))
    assert [found for found, _ in seen] == [3 * x for x in range(100 * SIZE)]
    assert {made for _, made in seen} == {1}
    assert set(dtm.map(with_model_in_threads, range(20))) == {1}


def check_what_a_worker_keeps_is_its_own():
    assert hasattr(dtm.local, "table") and not hasattr(dtm.local, "nothing")
    error = raised(getattr, dtm.local, "nothing")
    assert isinstance(error, AttributeError)
    assert "no 'nothing' on worker 0" in str(error) and "dtm.local.get('nothing', make)" in str(
        error
    )
    there = dtm.local
    assert set(dtm.map(lambda _: there is dtm.local, range(30))) == {True}, "it never travels"
    assert dtm.map(in_a_forked_child, range(4)) == [(b"7", False, [3, 4])] * 4


def check_impossible_things_are_refused():
    for name in ("get", "_lock"):
        assert isinstance(raised(setattr, dtm.local, name, 1), AttributeError)
    assert isinstance(raised(dtm.local.get, "x", 3), TypeError)
    assert isinstance(raised(dtm.local.get, 3, int), TypeError)
    error = raised(dtm.local.get, "x", lambda: dtm.local.get("x", int))
    assert isinstance(error, package.RunStateError)
    assert isinstance(raised(dtm.local.get, "x", asks_dtm), package.RunStateError)
    assert dtm.local.get("x", int) == 0
    del dtm.local.x
    assert isinstance(raised(delattr, dtm.local, "x"), AttributeError)


def main():
    assert not hasattr(dtm.local, "early"), "it is empty when the run begins"
    play(globals())


dtm.local.early = True
dtm.setOptions(initializer=prepare_run, initargs=(3, 4), seed=5)
dtm.start(main)
assert repr(dtm.local) == "<dtm.local: empty>"
