"""joblib's ``Parallel`` on dtm; checked inside of a run."""

import sys
import time

import joblib
from checking import fails_at_3, nap, play, raised, square
from joblib import Parallel, delayed, parallel_config

import dtm as package
import dtm.joblib
from dtm import dtm

SIZE = int(sys.argv[1])
PREPARED = []


def where(_):
    time.sleep(0.02)
    return dtm.getWorkerId()


def by_joblib(n):
    return sum(Parallel(n_jobs=2)(delayed(square)(i) for i in range(n)))


def deeper(depth):
    return 1 if depth == 0 else sum(Parallel(n_jobs=2)(delayed(deeper)(depth - 1) for _ in "ab"))


def chooses_itself(depth):
    """Say in a task of dtm's what main says for itself: else it is joblib's own processes."""
    with parallel_config(backend="dtm"):
        return deeper(depth)


def backend_within(_):
    return type(joblib.parallel.get_active_backend()[0]).__module__


def check_results_in_order():
    assert Parallel()(delayed(square)(i) for i in range(500)) == [x * x for x in range(500)]
    assert Parallel(n_jobs=-1)(delayed(pow)(i, 2) for i in range(5)) == [0, 1, 4, 9, 16]
    assert Parallel(n_jobs=-1)([]) == []
    base = 3
    assert Parallel(n_jobs=2)(delayed(lambda x: x + base)(i) for i in range(20)) == [*range(3, 23)]
    found = Parallel(n_jobs=-1, batch_size=7)(delayed(square)(i) for i in range(100))
    assert found == [x * x for x in range(100)]


def check_every_worker_works():
    assert set(Parallel(n_jobs=-1)(delayed(where)(i) for i in range(40 * SIZE))) == set(range(SIZE))


def check_nested():
    expected = [sum(y * y for y in range(x)) for x in range(12)]
    assert Parallel(n_jobs=-1)(delayed(by_joblib)(i) for i in range(12)) == expected
    assert deeper(4) == 16
    assert dtm.map(chooses_itself, [3] * 4) == [8] * 4
    if SIZE > 1:
        modules = set(Parallel(n_jobs=-1)(delayed(backend_within)(i) for i in range(9)))
        assert modules == {"dtm.integrations.joblib"}


def level(_):
    dtm.map(nap, [0.002, 0.002])
    return joblib.parallel.get_active_backend()[0].nesting_level


def check_tasks_that_wait_do_not_change_the_backend_of_others():
    if SIZE > 1:
        found = set(Parallel(n_jobs=-1)(delayed(level)(i) for i in range(40)))
        assert found == {1}, found
    assert joblib.parallel.get_active_backend()[0].nesting_level == 0


def check_failures():
    error = raised(Parallel(n_jobs=-1), (delayed(fails_at_3)(i) for i in range(50)))
    assert isinstance(error, ValueError) and error.args == (3,)
    assert Parallel(n_jobs=-1)(delayed(square)(i) for i in range(9)) == [x * x for x in range(9)]


def check_generators():
    found = Parallel(n_jobs=-1, return_as="generator")(delayed(square)(i) for i in range(200))
    assert list(found) == [x * x for x in range(200)]
    found = Parallel(n_jobs=-1, return_as="generator_unordered")(
        delayed(square)(i) for i in range(99)
    )
    assert sorted(found) == [x * x for x in range(99)]


def prepare(name):
    PREPARED.append(name)


def prepared(_):
    time.sleep(0.01)
    return where(0), tuple(PREPARED)


def breaks():
    raise OSError("no licence")


def check_an_initializer():
    if SIZE == 1:  # joblib runs the calls by itself, and calls no initializer then
        return
    calls = [delayed(prepared)(i) for i in range(30 * SIZE)]
    found = set(Parallel(n_jobs=-1, initializer=prepare, initargs=("first",))(calls))
    assert found == {(rank, ("first",)) for rank in range(SIZE)}, found
    with parallel_config(backend="dtm", initializer=prepare, initargs=("second",)):
        found = set(Parallel(n_jobs=-1)(calls))
    assert found == {(rank, ("first", "second")) for rank in range(SIZE)}, found
    error = raised(Parallel(n_jobs=-1, initializer=breaks), calls)
    assert isinstance(error, package.InitializerError), error
    assert isinstance(raised(Parallel(n_jobs=-1, initializer=3), calls), package.OptionError)


def check_one_pool_for_many_calls():
    with Parallel(n_jobs=-1) as parallel:
        for n in (1, 10, 300):
            assert parallel(delayed(square)(i) for i in range(n)) == [x * x for x in range(n)]


def check_uneven_calls():
    times = [0.1, *[0.001] * 200]
    assert Parallel(n_jobs=-1)(delayed(nap)(each) for each in times) == times


def check_an_impossible_number_of_jobs():
    assert isinstance(raised(Parallel(n_jobs=0), [delayed(square)(1)]), ValueError)


def main():
    with parallel_config(backend="dtm"):
        play(globals())


dtm.start(main)
