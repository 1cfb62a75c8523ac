"""What a call may be given: limits of time, something for failures, callbacks; small functions."""

import threading
import time

from checking import play, raised

import dtm as package
from dtm import dtm


def fails_at_3(x):
    if x == 3:
        raise ValueError(x)
    return x * x


def spins_at_2(x):
    while x == 2:
        pass
    return x


def sleeps_at_2(x):
    if x == 2:
        time.sleep(0.4)
    return x


def catches_everything(x):
    try:
        return spins_at_2(x)
    except Exception:
        return "caught"


def a_lock_at_5(x):
    time.sleep(0.01)
    return threading.Lock() if x == 5 else x


def add(x, y, z=0):
    return x + y + z


def exits(x):
    raise SystemExit(x)


def nested_limit(x):
    return dtm.options(timeout=0.1, on_error="inner").map(spins_at_2, [x])


def check_starmap():
    pairs = [(i, 2 * i) for i in range(30)]
    assert dtm.starmap(add, pairs) == [3 * i for i in range(30)]
    assert dtm.starmap(add, pairs, z=1) == [3 * i + 1 for i in range(30)]
    assert dtm.starmap(add, []) == []
    assert dtm.starmap(add, (iter(pair) for pair in pairs)) == [3 * i for i in range(30)]
    error = raised(dtm.starmap, add, [(1, 2), 7])
    assert isinstance(error, TypeError) and "item 1 is 7" in str(error), error


def check_size_and_root():
    import sys

    assert dtm.size() == int(sys.argv[1])
    assert dtm.is_root()
    seen = dtm.map(lambda _: (time.sleep(0.02), dtm.is_root(), dtm.getWorkerId()), range(60))
    assert all(root == (rank == 0) for _, root, rank in seen)


def check_failures_as_results():
    found = dtm.options(return_exceptions=True).map(fails_at_3, range(6))
    assert [type(each) for each in found] == [int, int, int, ValueError, int, int]
    assert found[3].args == (3,)
    assert any("item 3 of map(fails_at_3)" in note for note in found[3].__notes__)
    assert dtm.options(on_error=-1).map(fails_at_3, range(5)) == [0, 1, 4, -1, 16]
    assert dtm.options(on_error=repr).map(fails_at_3, [3]) == ["ValueError(3)"]
    assert dtm.options(on_error=None).apply(fails_at_3, 3) is None
    assert dtm.options(on_error=0).map_async(fails_at_3, [3, 3, 2]).get() == [0, 0, 4]
    assert list(dtm.options(on_error=0).imap(fails_at_3, range(5))) == [0, 1, 4, 0, 16]
    assert dtm.options(on_error="out").map(exits, range(3)) == ["out"] * 3
    assert dtm.options(on_error=7).map(add, [1], ["x"]) == [7]


def check_a_result_that_cannot_be_sent():
    found = dtm.options(on_error="none").map(a_lock_at_5, range(12))
    assert found[:5] + found[6:] == [0, 1, 2, 3, 4, 6, 7, 8, 9, 10, 11]
    assert found[5] == "none" or type(found[5]) is type(threading.Lock())


def check_what_takes_too_long():
    began = time.perf_counter()
    found = dtm.options(timeout=0.2, on_error="late").map(spins_at_2, range(8))
    assert found == [0, 1, "late", 3, 4, 5, 6, 7]
    assert time.perf_counter() - began < 20
    error = raised(dtm.options(timeout=0.2).map, spins_at_2, range(8))
    assert type(error) is package.ItemTimeoutError and error.index == 2, repr(error)
    assert "0.2 seconds" in str(error)
    found = dtm.options(timeout=0.2, return_exceptions=True).map(sleeps_at_2, [2, 1])
    assert type(found[0]) is package.ItemTimeoutError and found[1] == 1
    assert found[0].index == 0


def check_who_catches_the_exception_is_late_all_the_same():
    assert dtm.options(timeout=0.1, on_error="late").map(catches_everything, [1, 2]) == [1, "late"]


def check_limits_within_limits():
    found = dtm.options(timeout=30).map(nested_limit, [1, 2, 3])
    assert found == [[1], ["inner"], [3]]


def check_cancel():
    call = dtm.map_async(time.sleep, [0.05] * 400)
    began = time.perf_counter()
    assert call.cancel() and call.cancelled() and call.ready()
    assert not call.cancel()
    assert isinstance(raised(call.get), package.CallCancelledError)
    dtm.waitAll()
    assert time.perf_counter() - began < 15
    ended = dtm.apply_async(add, 1, 2)
    assert ended.get() == 3
    assert not ended.cancel() and not ended.cancelled() and ended.get() == 3


def check_who_waits_for_what_is_cancelled_goes_on():
    call = dtm.map_async(time.sleep, [0.5] * 100)
    threading.Timer(0.3, call.cancel).start()
    assert isinstance(raised(call.get, 60), package.CallCancelledError)


def check_callbacks():
    told = []
    door = dtm.options(callback=told.append, error_callback=told.append)
    assert door.map(add, [1], [2]) == [3]
    assert door.apply(add, 3, 4) == 7
    assert isinstance(raised(door.map, fails_at_3, [3]), ValueError)
    assert told[:2] == [[3], 7] and isinstance(told[2], ValueError)


def main():
    play(globals())


dtm.start(main)
