"""What ``dtm.Executor`` and ``dtm.asyncio`` do beyond CPython's own tests of executors."""

import asyncio
import logging
import pickle
import sys
import threading
import time
from concurrent import futures

from checking import fails_at_3, nap, play, raised, square

from dtm import dtm

SIZE = int(sys.argv[1])
started = []


def where(_):
    time.sleep(0.02)
    return dtm.getWorkerId()


def nested(depth):
    """Submit to an executor of its own, at each level, and wait in three ways."""
    if depth == 0:
        return 1
    with dtm.Executor() as executor:
        calls = [executor.submit(nested, depth - 1) for _ in range(3)]
        first = calls[0].result()
        done, _ = futures.wait(calls[1:2])
        rest = [call.result() for call in futures.as_completed(calls[2:])]
        return first + sum(call.result() for call in done) + sum(rest)


def chain(executor, depth):
    return 0 if depth == 0 else 1 + executor.submit(chain, executor, depth - 1).result()


def start(value):
    started.append(value)


def what_was_started(_):
    return tuple(started)


def breaks():
    raise ValueError("no licence")


def check_futures_are_real_ones():
    executor, told = dtm.Executor(), []
    call = executor.submit(square, 4)
    assert isinstance(call, futures.Future)
    call.add_done_callback(told.append)
    assert call.result(60) == 16 and call.done() and not call.running() and not call.cancel()
    call.add_done_callback(told.append)
    assert told == [call, call]
    assert call.exception() is None
    failed = executor.submit(fails_at_3, 3)
    assert isinstance(failed.exception(), ValueError)
    assert isinstance(raised(failed.result), ValueError)


def check_failures_bring_their_traceback():
    calls = [dtm.Executor().submit(fails_at_3, 3) for _ in range(20)]
    for error in [call.exception() for call in calls]:
        notes = " ".join(error.__notes__)
        assert "fails_at_3" in notes and "worker" in notes, notes


def check_waiting_for_many():
    executor = dtm.Executor()
    calls = [executor.submit(square, i) for i in range(3000)]
    assert sorted(call.result() for call in futures.as_completed(calls)) == [
        x * x for x in range(3000)
    ]
    calls = [executor.submit(square, i) for i in range(3000)]
    done, left = futures.wait(calls, timeout=90)
    assert len(done) == 3000 and not left


def check_waiting_for_others_too():
    executor = dtm.Executor()
    with futures.ThreadPoolExecutor(1) as threads:
        mixed = [threads.submit(nap, 0.1), executor.submit(square, 3), threads.submit(square, 2)]
        assert {call.result() for call in futures.as_completed(mixed, timeout=60)} == {0.1, 9, 4}
        own = futures.Future()
        threading.Timer(0.1, own.set_result, [5]).start()
        assert len(futures.wait([executor.submit(square, 2), own], timeout=60).done) == 2


def check_cancelling():
    executor = dtm.Executor()
    calls = [executor.submit(nap, 0.02) for _ in range(200)]
    cancelled = [call for call in calls if call.cancel()]
    assert cancelled
    assert all(call.cancelled() and call.done() for call in cancelled)
    assert isinstance(raised(cancelled[0].result), futures.CancelledError)
    done, left = futures.wait(calls, timeout=60)
    assert len(done) == 200 and not left
    assert all(call.cancelled() or call.result() == 0.02 for call in calls)
    executor.shutdown(cancel_futures=True)
    assert isinstance(raised(executor.submit, square, 1), RuntimeError)


def check_a_cancelled_call_is_settled_once():
    said = []
    watch = logging.Handler()
    watch.emit = lambda record: said.append(record.getMessage())
    logging.getLogger("concurrent.futures").addHandler(watch)
    told = []
    with dtm.Executor() as executor:
        for _ in range(10):
            later = [executor.submit(nap, 0.001) for _ in range(50)]
            for each in later:
                each.add_done_callback(told.append)
            for each in reversed(later):
                each.cancel()
            futures.wait(later)
    assert len(told) == 500
    assert not said, said[:3]


def check_bounded_executors():
    with dtm.Executor(1) as executor:
        calls = [executor.submit(nap, 0.001) for _ in range(50)]
        assert calls[-1].cancel() or calls[-1].done() or calls[-1].running()
        assert [call.result() for call in calls[:-1]] == [0.001] * 49
        assert list(executor.map(square, range(40))) == [x * x for x in range(40)]
        assert chain(executor, 20) == 20
        assert executor.submit(chain, executor, 20).result() == 20


def check_nested_submits_at_any_depth():
    assert nested(4) == 81
    assert dtm.map(nested, [3] * 4) == [27] * 4
    executor = dtm.Executor()
    assert executor.submit(chain, executor, 150).result() == 150
    assert pickle.loads(pickle.dumps(executor)) is executor


def check_map():
    executor = dtm.Executor()
    assert list(executor.map(pow, [2, 3], [3, 2])) == [8, 9]
    assert list(executor.map(square, range(100), chunksize=7)) == [x * x for x in range(100)]
    pulled = []
    source = (pulled.append(i) or i for i in range(10**9))
    found = executor.map(square, source, buffersize=5)
    assert [next(found) for _ in range(20)] == [x * x for x in range(20)]
    assert len(pulled) <= 40
    assert isinstance(raised(executor.map, square, [1], buffersize=0), ValueError)
    assert isinstance(raised(executor.map, square, [1], buffersize="1"), TypeError)
    found = executor.map(fails_at_3, range(9))
    assert [next(found) for _ in range(3)] == [0, 1, 2]
    assert isinstance(raised(next, found), ValueError)
    assert isinstance(raised(next, found), StopIteration)


def check_an_initializer():
    with dtm.Executor(initializer=start, initargs=(1,)) as executor:
        assert set(executor.map(what_was_started, range(30))) == {(1,)}
    broken = dtm.Executor(initializer=breaks)
    assert isinstance(raised(broken.submit(square, 1).result), futures.BrokenExecutor)
    assert isinstance(raised(broken.submit, square, 1), futures.BrokenExecutor)


def check_every_worker_works():
    assert set(dtm.Executor().map(where, range(30 * SIZE))) == set(range(SIZE))


async def coroutines():
    loop, executor = asyncio.get_running_loop(), dtm.Executor()
    assert await dtm.asyncio.map(square, range(50)) == [x * x for x in range(50)]
    assert await dtm.asyncio.map(pow, [2], [3]) == [8]
    assert await dtm.asyncio.map(square, []) == []
    assert await dtm.asyncio.starmap(pow, [(2, 3), (3, 2)]) == [8, 9]
    assert await dtm.asyncio.apply(pow, 2, 5) == 32
    assert await dtm.asyncio.result(dtm.map_async(square, range(9))) == [x * x for x in range(9)]
    assert [x async for x in dtm.asyncio.imap(square, range(50))] == [x * x for x in range(50)]
    found = [x async for x in dtm.asyncio.as_completed(square, range(50))]
    assert sorted(found) == [x * x for x in range(50)]
    calls = [loop.run_in_executor(executor, square, x) for x in range(50)]
    assert await asyncio.gather(*calls) == [x * x for x in range(50)]
    assert await asyncio.wrap_future(executor.submit(square, 7)) == 49
    many = [loop.run_in_executor(executor, where, x) for x in range(30 * SIZE)]
    ranks = set(await asyncio.gather(*many))
    assert len(ranks) >= min(SIZE, 2), ranks
    for failing in (dtm.asyncio.map(fails_at_3, range(9)), dtm.asyncio.apply(fails_at_3, 3)):
        try:
            await failing
        except ValueError:
            continue
        raise AssertionError("nothing was raised")
    return "done"


def check_coroutines():
    assert asyncio.run(coroutines()) == "done"
    assert (
        dtm.map(lambda _: asyncio.run(dtm.asyncio.map(square, range(5))), range(3))
        == [[0, 1, 4, 9, 16]] * 3
    )


async def cancelled():
    waiting = asyncio.ensure_future(dtm.asyncio.map(nap, [0.05] * 500))
    await asyncio.sleep(0.1)
    waiting.cancel()
    try:
        await waiting
    except asyncio.CancelledError:
        return "cancelled"
    return "not cancelled"


def check_a_coroutine_that_is_cancelled_drops_its_call():
    began = time.perf_counter()
    assert asyncio.run(cancelled()) == "cancelled"
    assert dtm.map(square, range(5)) == [0, 1, 4, 9, 16]
    assert time.perf_counter() - began < 20


async def beside_others():
    ticks = []

    async def tick():
        while True:
            ticks.append(time.perf_counter())
            await asyncio.sleep(0.005)

    ticking = asyncio.ensure_future(tick())
    await dtm.asyncio.map(nap, [0.001] * 400)
    ticking.cancel()
    return len(ticks)


def check_the_loop_goes_on_meanwhile():
    assert asyncio.run(beside_others()) >= 10


def main():
    play(globals())


dtm.start(main)
