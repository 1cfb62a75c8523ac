"""Every function of the interface, checked inside of a run; prints one JSON line a check."""

import itertools
import sys
import threading
import time
from functools import partial

from checking import play

from dtm import dtm


def square(x):
    return x * x


def add(x, y=10, *, z=0):
    return x + y + z


def pause(seconds):
    time.sleep(seconds)
    return seconds


def even(x):
    return x % 2 == 0


def nothing():
    return dtm.getWorkerId()


def fib(n):
    if n < 2:
        return n
    first = dtm.apply_async(fib, n - 1)
    return fib(n - 2) + first.get()


def tree(depth):
    return 1 if depth == 0 else 1 + sum(dtm.map(tree, [depth - 1, depth - 1]))


def chain(depth):
    return 0 if depth == 0 else 1 + dtm.apply(chain, depth - 1)


def slow_tree(depth):
    time.sleep(0.002)
    return 1 if depth == 0 else 1 + sum(dtm.map(slow_tree, [depth - 1] * 3))


def fails_at(x, bad):
    if x in bad:
        raise ValueError(x)
    return x


class Sized:
    """An iterable whose len() and truth value must not be asked for."""

    def __iter__(self):
        return iter(range(5))

    def __len__(self):
        raise AssertionError("len() was asked")

    def __bool__(self):
        raise AssertionError("truth was asked")


class Counter:
    def __init__(self, base):
        self.base = base

    def shifted(self, x):
        return self.base + x


def check_map_keeps_order():
    assert dtm.map(square, range(1000)) == [x * x for x in range(1000)]


def check_map_of_nothing_is_empty():
    assert dtm.map(square, []) == []
    assert dtm.map(square, iter(())) == []
    assert dtm.map(add, [], [1]) == []


def check_map_takes_many_iterables_and_the_shortest_decides():
    assert dtm.map(add, range(5), itertools.count(100)) == [100, 102, 104, 106, 108]
    assert dtm.map(max, [1, 5], [2, 3], [0, 9, 4]) == [2, 9]


def check_map_hands_all_kwargs_to_the_function():
    assert dtm.map(add, [1, 2], y=1, z=5) == [7, 8]
    assert dtm.map(dict, [[]], chunksize=3, function=1 and 2) if False else True
    assert dtm.map(
        lambda x, chunksize, timeout: (x, chunksize, timeout), [1], chunksize=2, timeout=3
    ) == [(1, 2, 3)]


def check_names_of_kwargs_are_the_users():
    def echo(x, **given):
        return given

    names = {"function": 1, "self": 2, "n": 3}
    assert dtm.map(echo, [0], **names) == [names]
    assert dtm.apply(echo, 0, **names) == names
    assert dtm.repeat(echo, 1, 0, **names) == [names]
    assert dtm.options(chunksize=2).map_async(echo, [0], **names).get() == [names]


def check_threads_beside_main_all_end():
    threads = [threading.Thread(target=dtm.map, args=(pause, [0.002] * 50)) for _ in range(3)]
    for thread in threads:
        thread.start()
    dtm.map(pause, [0.002] * 40)
    for thread in threads:
        thread.join(30)
    assert not any(thread.is_alive() for thread in threads)


def check_map_takes_any_iterable():
    assert dtm.map(square, (x for x in range(5))) == [0, 1, 4, 9, 16]
    assert dtm.map(square, {3: "a", 4: "b"}.keys()) == [9, 16]
    assert dtm.map(square, {1, 2}) in ([1, 4], [4, 1])
    assert dtm.map(square, Sized()) == [0, 1, 4, 9, 16]
    assert dtm.map(str.upper, "abc") == ["A", "B", "C"]


def check_map_takes_arrays():
    numpy = __import__("numpy")
    assert dtm.map(square, numpy.arange(100)) == [x * x for x in range(100)]
    rows = dtm.map(numpy.sum, numpy.ones((10, 4)))
    assert rows == [4.0] * 10
    big = dtm.map(numpy.copy, [numpy.full(100_000, i) for i in range(8)])
    assert [int(each[5]) for each in big] == list(range(8))
    big[0][0] = 7


def check_map_of_slow_items():
    assert dtm.map(pause, [0.01] * 20) == [0.01] * 20


def check_map_async():
    result = dtm.map_async(square, range(10))
    assert result.get() == [x * x for x in range(10)]
    assert result.ready()
    assert result.successful()
    assert result.get() == [x * x for x in range(10)]
    assert dtm.map_async(square, []).get() == []


def check_apply():
    assert dtm.apply(add, 1, 2, z=3) == 6
    assert dtm.apply(nothing) in range(64)


def check_apply_async():
    results = [dtm.apply_async(add, i, y=i) for i in range(50)]
    assert [result.get() for result in results] == [2 * i for i in range(50)]


def check_repeat():
    assert dtm.repeat(add, 4, 1, y=2) == [3, 3, 3, 3]
    assert dtm.repeat(nothing, 0) == []
    assert len(dtm.repeat(nothing, 1000)) == 1000


def check_filter():
    assert dtm.filter(even, range(10)) == [0, 2, 4, 6, 8]
    assert dtm.filter(None, [0, 1, "", "a"]) == [1, "a"]


def check_imap_is_lazy_and_ordered():
    assert list(itertools.islice(dtm.imap(square, itertools.count()), 100)) == [
        x * x for x in range(100)
    ]
    assert list(dtm.imap(add, [1, 2], [3, 4])) == [4, 6]
    assert list(dtm.imap(square, [])) == []


def check_imap_pulls_a_bounded_way_ahead():
    pulled = 0

    def source():
        nonlocal pulled
        while True:
            pulled += 1
            yield 0.002

    for _ in itertools.islice(dtm.imap(pause, source()), 10):
        pass
    assert pulled < 1000, pulled


def check_imap_unordered():
    assert sorted(dtm.imap_unordered(square, range(100))) == [x * x for x in range(100)]
    assert sorted(dtm.imap_unordered(square, range(10), 4)) == [x * x for x in range(10)]
    assert sorted(dtm.imap_unordered(add, [1, 2], [3, 4], chunksize=2)) == [4, 6]


def check_imap_raises_what_the_iterable_raises():
    def source():
        yield from range(3)
        raise KeyError("midway")

    for lazy in (dtm.imap, dtm.imap_unordered):
        try:
            list(lazy(square, source()))
        except KeyError as error:
            assert error.args == ("midway",)
        else:
            raise AssertionError("nothing was raised")
    try:
        dtm.map(square, source())
    except KeyError:
        pass
    assert dtm.map(square, [2]) == [4]


def check_imap_can_be_closed_early():
    lazy = dtm.imap(pause, itertools.repeat(0.001))
    next(lazy)
    lazy.close()
    assert dtm.map(square, [3]) == [9]


def check_smallest_failing_index_is_raised():
    for bad in ({3, 7}, {0}, {99}, set(range(50, 100))):
        try:
            dtm.map(partial(fails_at, bad=bad), range(100))
        except ValueError as error:
            assert error.args == (min(bad),), error.args
            assert f"item {min(bad)} of map(fails_at)" in "".join(error.__notes__)
        else:
            raise AssertionError("nothing was raised")


def check_wait_and_test():
    results = [dtm.apply_async(pause, 0.01) for _ in range(5)]
    dtm.waitAll()
    assert dtm.testAll(results)
    assert dtm.waitAny() is None
    results = [dtm.apply_async(square, i) for i in range(5)]
    seen = {dtm.waitAny() for _ in range(5)}
    assert seen == set(results)
    results = [dtm.apply_async(square, i) for i in range(3)]
    dtm.waitForAll(results)
    assert dtm.testAllAsync(results)
    assert dtm.testAny(results) in results
    assert dtm.waitAny(results) in results


def check_polling_makes_progress():
    results = [dtm.apply_async(square, i) for i in range(20)]
    end = time.monotonic() + 30
    while not dtm.testAll(results):
        assert time.monotonic() < end
    result = dtm.map_async(pause, [0.001] * 10)
    while not result.ready():
        assert time.monotonic() < end
    while dtm.testAny([result]) is None:
        assert time.monotonic() < end


def check_timeouts():
    result = dtm.map_async(pause, [0.05] * 40)
    try:
        result.get(timeout=0.01)
    except TimeoutError:
        pass
    else:
        raise AssertionError("no timeout")
    try:
        result.successful()
    except (AssertionError, ValueError):
        pass
    result.wait(0.01)
    assert result.get(60) == [0.05] * 40


def check_callbacks():
    seen, failed = [], []
    door = dtm.options(callback=seen.append, error_callback=failed.append)
    results = [door.apply_async(square, 3), door.map_async(square, [1, 2])]
    bad = door.apply_async(fails_at, 1, bad=[1])
    dtm.waitAll([*results, bad])
    end = time.monotonic() + 10
    while len(seen) + len(failed) < 3 and time.monotonic() < end:
        dtm.testAll([*results, bad])
    assert sorted(map(str, seen)) == ["9", "[1, 4]"], seen
    assert [type(each) for each in failed] == [ValueError]


def check_options_of_one_call():
    assert dtm.options(chunksize=7).map(square, range(50)) == [x * x for x in range(50)]
    assert list(dtm.options(window=3).imap(square, range(10))) == [x * x for x in range(10)]
    try:
        dtm.options(chunksiez=3)
    except ValueError as error:
        assert "chunksize" in str(error)
    else:
        raise AssertionError("nothing was raised")


def check_nested_trees():
    assert tree(8) == 2**9 - 1
    assert fib(13) == 233
    assert slow_tree(4) == (3**5 - 1) // 2


def check_depth_of_200():
    assert chain(200) == 200


def check_5000_tasks_wait_at_once():
    assert chain(5000) == 5000


def check_calls_from_the_users_threads():
    found = {}

    def body(i):
        found[i] = dtm.map(square, range(i, i + 20))

    threads = [threading.Thread(target=body, args=(i,)) for i in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert found == {i: [x * x for x in range(i, i + 20)] for i in range(4)}


def in_a_pool(n):
    from concurrent.futures import ThreadPoolExecutor

    with ThreadPoolExecutor(2) as pool:
        return sum(pool.map(lambda x: sum(dtm.map(square, range(x))), range(n)))


def check_thread_pools_inside_of_tasks():
    expected = sum(sum(y * y for y in range(x)) for x in range(6))
    assert dtm.map(in_a_pool, [6] * 6) == [expected] * 6


def check_code_travels():
    class Local:
        def __init__(self, x):
            self.x = x

        def __eq__(self, other):
            return type(self) is type(other) and self.x == other.x

        __hash__ = None

    def double(x):
        time.sleep(0.001)
        return Local(2 * x.x)

    assert dtm.map(double, [Local(i) for i in range(40)]) == [Local(2 * i) for i in range(40)]
    assert dtm.map(lambda x: x + 1, range(30)) == list(range(1, 31))
    assert dtm.map(Counter(5).shifted, range(30)) == list(range(5, 35))
    assert dtm.map(partial(add, z=1), range(3)) == [11, 12, 13]


def check_functions_are_rejected_if_they_are_none():
    for call in (dtm.map, dtm.map_async):
        try:
            call(3, [1])
        except TypeError as error:
            assert "3" in str(error)
        else:
            raise AssertionError("nothing was raised")


def check_every_worker_works():
    size = int(sys.argv[1])
    ids = set(dtm.map(lambda _: (time.sleep(0.02), dtm.getWorkerId())[1], range(40 * size)))
    assert ids == set(range(size)), ids


def main():
    play(globals())
    return "done"


if __name__ == "__main__":
    dtm.start(main)
