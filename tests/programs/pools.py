"""What ``dtm.Pool`` does beyond CPython's own tests of pools; checked inside of a run."""

import itertools
import multiprocessing
import os
import pickle
import sys
import threading
import time

from checking import fails_at_3, nap, play, raised, square

from dtm import dtm

SIZE = int(sys.argv[1])
started = []


class Number:
    """A whole number that is no int, as NumPy has them."""

    def __init__(self, value):
        self.value = value

    def __index__(self):
        return self.value

    __int__ = __index__


def stops_at_2(x):
    if x == 2:
        raise StopIteration(x)
    return x


def stamped(_):
    began = time.time()
    time.sleep(0.02)
    return began, time.time()


def start(value):
    started.append(value)


def what_was_started(_):
    time.sleep(0.01)
    return dtm.getWorkerId(), tuple(started)


def by_pool(pool, x):
    return pool.map(square, range(x)), pool.size, pool.is_master()


def most_at_once(stamps):
    ends = [(began, 1) for began, _ in stamps] + [(ended, -1) for _, ended in stamps]
    return max(itertools.accumulate(change for _, change in sorted(ends)))


def check_sizes():
    assert dtm.Pool().size == dtm.Pool()._processes == SIZE
    assert dtm.Pool(2).size == 2
    for wrong in (0, -1, 1.5, "2"):
        assert isinstance(raised(dtm.Pool, wrong), ValueError), wrong
        assert isinstance(raised(dtm.Pool, 2, None, (), wrong), ValueError), wrong
    assert isinstance(raised(dtm.Pool, 2, 7), TypeError)
    assert dtm.Pool(Number(2), maxtasksperchild=Number(3)).size == 2
    pool = dtm.Pool()
    for wrong in (0, -1, 1.5, 2.0, "2"):
        assert isinstance(raised(pool.map, square, [1], wrong), ValueError), wrong
        assert isinstance(raised(pool.imap, square, [1], wrong), ValueError), wrong
    assert pool.map(square, [1, 2], Number(2)) == list(pool.imap(square, [1, 2], Number(2)))


def check_processes_bound_how_many_run_at_once():
    for bound in (1, 2):
        with dtm.Pool(bound) as pool:
            assert most_at_once(pool.map(stamped, range(12))) <= bound
            assert most_at_once(list(pool.imap_unordered(stamped, range(12)))) <= bound
            later = [pool.apply_async(stamped, (i,)) for i in range(12)]
            assert most_at_once([each.get() for each in later]) <= bound
            assert pool.starmap(pow, [(2, i) for i in range(9)]) == [2**i for i in range(9)]


def check_bounded_results():
    told = []
    with dtm.Pool(1) as pool:
        later = pool.map_async(square, range(50), callback=told.append, error_callback=told.append)
        assert later.get(60) == [x * x for x in range(50)] and later.ready() and later.successful()
        later = pool.map_async(fails_at_3, range(5), error_callback=told.append)
        assert isinstance(raised(later.get), ValueError) and not later.successful()
        later = pool.map_async(square, [3])
        while not later.ready():
            pass
        assert later.get() == [9]
    assert told[0] == [x * x for x in range(50)] and isinstance(told[1], ValueError)


def check_an_initializer_is_called_once_in_each_process():
    with dtm.Pool(initializer=start, initargs=("a",)) as pool:
        seen = pool.map(what_was_started, range(30 * SIZE))
        assert {ran for _, ran in seen} == {("a",)}, seen
        assert {ran for _, ran in pool.imap(what_was_started, range(9))} == {("a",)}
        assert pool.apply(what_was_started, (0,))[1] == ("a",)
    with dtm.Pool(initializer=start, initargs=("b",)) as pool:
        assert all(
            ran[-1] == "b" and ran.count("b") == 1
            for _, ran in pool.map(what_was_started, range(9))
        )


def check_iterators_go_on_after_an_item_that_failed():
    found = dtm.Pool().imap(fails_at_3, range(6))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    assert isinstance(raised(next, found), ValueError)
    assert list(found) == [4, 5]
    found, got = dtm.Pool().imap_unordered(fails_at_3, range(40)), []
    while True:
        try:
            got.append(next(found))
        except ValueError:
            got.append("failed")
        except StopIteration:
            break
    assert sorted(map(str, got)) == sorted([*map(str, {*range(40)} - {3}), "failed"])


def check_iterators_know_time_limits():
    if SIZE == 1:
        return  # who waits has nobody else to run what takes long
    slow = dtm.Pool().imap(nap, [1.2, 0.0])
    error = raised(slow.next, timeout=0.05)
    assert isinstance(error, multiprocessing.TimeoutError) and isinstance(error, TimeoutError)
    assert slow.next(timeout=60) == 1.2
    assert slow.next(60) == 0.0
    assert isinstance(raised(slow.next, 1), StopIteration)


def check_endless_iterables():
    found = dtm.Pool().imap(square, itertools.count())
    assert [next(found) for _ in range(2000)] == [x * x for x in range(2000)]
    found = dtm.Pool().imap_unordered(square, itertools.count(), chunksize=7)
    assert all(isinstance(next(found), int) for _ in range(500))


def marks(path):
    with open(path, "a") as file:
        file.write("x")
    return 1


def check_join_waits_for_what_nobody_takes():
    path = f"{os.environ['TMPDIR']}/marks"
    pool = dtm.Pool()
    pool.imap_unordered(marks, [path] * 40)
    pool.apply_async(marks, (path,))
    pool.map_async(marks, [path] * 9)
    assert isinstance(raised(pool.join), ValueError)
    pool.close()
    assert isinstance(raised(pool.map, square, [1]), ValueError)
    pool.join()
    with open(path) as file:
        assert file.read() == "x" * 50


def check_terminate_drops_what_is_under_way():
    pool = dtm.Pool()
    later = pool.map_async(nap, [0.05] * 2000)
    iterator = pool.imap(nap, [0.05] * 2000)
    began = time.perf_counter()
    pool.terminate()
    pool.join()
    assert later.ready() and isinstance(raised(later.get), Exception)
    assert time.perf_counter() - began < 20
    del iterator


def check_callbacks_come_before_results():
    told = []
    pool = dtm.Pool()
    pool.apply_async(square, (3,), callback=told.append).wait()
    pool.map_async(square, [], callback=told.append).wait()
    pool.map_async(fails_at_3, range(9), callback=told.append, error_callback=told.append).wait()
    pool.starmap_async(pow, [(2, 3)], callback=told.append).wait()
    assert told[:2] == [9, []] and isinstance(told[2], ValueError) and told[3] == [8], told


def check_what_callbacks_raise_reaches_nobody_who_waits():
    def breaks(_):
        raise RuntimeError("callback")

    told, end = [], threading.Event()
    with dtm.Pool() as pool, dtm.Pool(1) as one:
        for wait in (0, 0.1):
            for each in (
                pool.map_async(square, [1, 2], callback=breaks),
                one.map_async(square, [1, 2], callback=breaks),
            ):
                time.sleep(wait)
                assert each.get(60) == each.get() == [1, 4]
            failed = pool.apply_async(fails_at_3, (3,), error_callback=breaks)
            time.sleep(wait)
            assert isinstance(raised(failed.get), ValueError)
        pool.apply_async(square, (2,), callback=sys.exit).get()
        later = pool.apply_async(square, (3,), callback=lambda x: (told.append(x), end.set()))
        assert later.get() == 9
        assert end.wait(60)
    assert told == [9]


def check_a_pool_travels_by_reference():
    pool = dtm.Pool()
    assert pickle.loads(pickle.dumps(pool)) is pool
    expected = [([y * y for y in range(x)], SIZE, True) for x in range(8)]
    assert dtm.starmap(by_pool, [(pool, x) for x in range(8)]) == expected
    assert pool.starmap(by_pool, [(pool, x) for x in range(8)]) == expected


def within(pool, depth):
    if not depth:
        return 1
    return sum(pool.starmap(within, [(pool, depth - 1)] * 2))


def check_a_bounded_pool_within_its_own_tasks():
    pool = dtm.Pool(1)
    assert within(pool, 3) == 8
    assert pool.apply(within, (pool, 4)) == 16
    assert sum(pool.map(within_one, [(pool, 3)] * 3)) == 24


def within_one(arguments):
    return within(*arguments)


def check_schwimmbads_habits():
    with dtm.Pool() as pool:
        if not pool.is_master():
            pool.wait()
            sys.exit(0)
        assert not pool.is_worker()
        told = []
        assert pool.map(square, [1, 2], callback=told.append) == [1, 4] == told


def check_every_worker_works():
    ids = set(dtm.Pool().map(what_was_started, range(30 * SIZE)))
    assert {rank for rank, _ in ids} == set(range(SIZE))


def check_threads_may_use_it():
    pool, found = dtm.Pool(), {}
    body = lambda i: found.update({i: pool.map(square, range(i, i + 50))})
    threads = [threading.Thread(target=body, args=(i,)) for i in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {i: [x * x for x in range(i, i + 50)] for i in range(3)}


def check_threads_may_share_an_iterator():
    pool = dtm.Pool()
    for iterate in (pool.imap, pool.imap_unordered):
        for chunk in (1, 7):
            iterator, found, failed = iterate(fails_at_3, range(1000), chunk), [], []

            def body(iterator=iterator, found=found, failed=failed):
                while True:
                    try:
                        found.append(next(iterator))
                    except ValueError as error:
                        failed.append(error)
                    except StopIteration:
                        break

            threads = [threading.Thread(target=body) for _ in range(4)]
            for thread in threads:
                thread.start()
            body()
            for thread in threads:
                thread.join(60)
            assert sorted(found) == [x for x in range(1000) if x != 3], len(found)
            assert len(failed) == 1


def check_an_item_that_raises_stop_iteration_ends_no_iteration():
    for iterator in (
        dtm.Pool().imap(stops_at_2, range(5)),
        dtm.Executor().map(stops_at_2, range(5)),
    ):
        assert [next(iterator), next(iterator)] == [0, 1]
        error = raised(next, iterator)
        assert isinstance(error, RuntimeError)
        assert isinstance(error.__cause__, StopIteration)
    iterator = dtm.Pool().imap_unordered(stops_at_2, range(5))
    found = []
    while len(found) < 5:
        try:
            found.append(next(iterator))
        except RuntimeError as error:
            found.append(type(error.__cause__))
    assert set(found) == {0, 1, StopIteration, 3, 4}


def main():
    play(globals())


dtm.start(main)
