"""What it costs to send items away and to get their results back.

The noun is an estimate in processor seconds per item, of both ends together, taken
from a small sample of a range before any of it is sent.  (Processor time, for a
thread that is put aside while it measures would find its items dear.)  A map whose items cost
more to ship than to run stays where it is, so the estimate has to be nearly free
itself: some microseconds for numbers, about a millisecond for whatever else.

Pickling writes to a meter that keeps nothing and ends it after ``budget`` bytes.
(The C pickler hands over 64 KiB at a time, so a list of 10^8 numbers ends there.)
Buffers of arrays are counted, not copied.  One item is tried before sixteen are,
so a slow ``__reduce__`` is paid for once.  For small items the cost is the slope from
one to sixteen: what a pickle costs by itself is shared by a whole strip.  Of larger ones four are
tried, and sixteen if those share most of what one takes (the primitives of a tree).

What is cold is not counted: an item that takes long is measured again, for the first of its
class makes the definition of the class, and the first that goes by dill imports it.

What comes out is a lower bound for large items; infinity for what cannot be sent at all.

Threads: any.

Rejected: pickling the whole slice and looking at its length (the cost is then paid
before it is known), and guessing from the types (a list may hold anything).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pickle import PickleBuffer
from time import thread_time
from typing import Any, Final, NamedTuple

from dtm.wire.pickling import dump, dump_by_dill

SAMPLE: Final = 16

FEW: Final = 4
"""The sample of items that take long each, to see what they share."""

SECONDS_PER_BYTE_OF_FUNCTION: Final = 3e-9
"""A digest of it is made, it is sent, and it is read."""

SECONDS_PER_BYTE_SHARED: Final = 1e-9
"""The same where it is written to shared memory and read from there."""

TRIED: Final = 0.05
LEAST_SECONDS: Final = 1e-3
MOST_SECONDS: Final = 0.1

_NO_LIMIT = 1 << 60
_BOTH_ENDS = 3.0  # pickling here, loading there (slower than pickling), and the hand-over
_SECONDS_PER_BYTE = 2e-9  # both ends, measured: large pickles are copied at every step
_SECONDS_PER_BYTE_LEFT_OUT = 1e-9  # a buffer that travels as it is
_SLOW = 50e-6  # of items that take this long to pickle few are sample enough
_REPEATS = 3
_TOO_SLOW = 250e-6  # one that takes this long is enough, and so many are not tried again
_MUCH_TOO_SLOW = 20e-3  # nor is one that takes this long, cold or not


def shipping_cost(
    items: Sequence[Any],
    results: Sequence[Any],
    budget_bytes: int = 1 << 16,
    *,
    near_enough: float = 0.0,
) -> float:
    """Return the seconds of processor time that shipping costs per item, both ends together.

    ``items`` are some that would be sent, ``results`` some that were had; a side
    which is empty costs nothing.  ``inf`` if one of them cannot be pickled.  If one by itself
    takes less than ``near_enough`` seconds, which is more than what it costs among others, that is
    the answer.
    """
    return _cost(items, budget_bytes, near_enough) + _cost(results, budget_bytes, near_enough)


Dump = Callable[[Sequence[Any], "_Meter"], None]


class _EnoughError(Exception):
    """More bytes were written than the budget allows."""


def function_cost(
    function: Any, saved: float, seconds_per_byte: float = SECONDS_PER_BYTE_OF_FUNCTION
) -> float:
    """Return the seconds that it costs to bring a function to another worker, both ends together.

    Infinity if finding out takes more than a small part of ``saved``, which is what the
    function could save there; a lower bound if that part is long; 0 for what cannot be pickled,
    which is told when it is sent.
    """
    started = thread_time()
    cost = _cost_of_function(function, saved, seconds_per_byte)
    if _SLOW < thread_time() - started < _MUCH_TOO_SLOW:  # cold, perhaps
        cost = min(cost, _cost_of_function(function, saved, seconds_per_byte))
    return cost


def _cost_of_function(function: Any, saved: float, seconds_per_byte: float) -> float:
    tried = max(LEAST_SECONDS, saved * TRIED)
    meter = _Meter(_NO_LIMIT, min(tried, MOST_SECONDS))
    started = thread_time()
    try:
        dump([function], meter, meter.leave_out, {})
    except _EnoughError:
        return float("inf") if tried <= MOST_SECONDS else MOST_SECONDS * _BOTH_ENDS
    except Exception:  # noqa: BLE001 - the objects' own methods may raise anything
        return 0.0
    seconds = thread_time() - started
    size = meter.written + meter.out_of_band
    return seconds * _BOTH_ENDS + size * seconds_per_byte


class _Measured(NamedTuple):
    seconds: float
    cost: float
    complete: bool


class _Meter:
    """A file that only counts."""

    def __init__(self, budget: int, seconds: float = float("inf")) -> None:
        self.budget = budget
        self.deadline = thread_time() + seconds
        self.written = 0
        self.out_of_band = 0

    def write(self, data: Any) -> int:
        size = data.nbytes if isinstance(data, memoryview) else len(data)
        self.written += size
        if self.written > self.budget or thread_time() > self.deadline:
            raise _EnoughError
        return size

    def leave_out(self, buffer: PickleBuffer) -> bool:
        self.out_of_band += memoryview(buffer).nbytes
        return False


def _cost(values: Sequence[Any], budget: int, near_enough: float) -> float:
    count = len(values)
    if count == 0:
        return 0.0
    middle = count // 2
    size = _size_of_text(values[middle])
    if size > budget:
        return size * _SECONDS_PER_BYTE
    one = values[middle : middle + 1]
    try:
        return _slope(one, values, middle, budget, near_enough)
    except Exception as error:  # noqa: BLE001 - the objects' own methods may raise anything
        return _cost_by_dill(one, error, budget)


def _slope(
    one: Sequence[Any], values: Sequence[Any], middle: int, budget: int, near_enough: float
) -> float:
    dump = _dump
    first = _measure(one, budget, dump)
    if first.cost < near_enough and first.complete:
        return first.cost
    if _SLOW < first.seconds < _MUCH_TOO_SLOW:  # cold, perhaps
        first = min(first, _measure(one, budget, dump))
    if first.seconds > _TOO_SLOW or not first.complete:
        return first.cost
    sample = _around(values, middle, SAMPLE if first.seconds < _SLOW else FEW)
    if len(sample) == 1:
        return first.cost
    many = _measure(sample, budget, dump)
    if len(sample) == FEW and many.seconds < FEW / 2 * first.seconds:  # most of it is shared
        sample = _around(values, middle, SAMPLE)
        many = _measure(sample, budget, dump)
    if many.seconds > _TOO_SLOW:
        many = min(many, _measure(sample, budget, dump))
    if many.seconds > _TOO_SLOW or not many.complete:
        whole = many.cost / len(sample)
        # Each for itself, though not less than half of that, for the one may be the largest.
        apart = (many.cost - first.cost) / (len(sample) - 1)
        return max(apart, whole / 2) if many.complete else whole
    one_cost, many_cost = first.cost, many.cost
    # Again, now that all is warm: so short a time is easily doubled by a cold cache.
    for _ in range(_REPEATS):
        one_cost = min(one_cost, _measure(one, budget, dump).cost)
        many_cost = min(many_cost, _measure(sample, budget, dump).cost)
        if one_cost < many_cost:
            break
    return max(many_cost - one_cost, 0.0) / (len(sample) - 1)


def _around(values: Sequence[Any], middle: int, count: int) -> Sequence[Any]:
    start = max(0, middle - count // 2)
    return values[start : start + count]


def _cost_by_dill(one: Sequence[Any], error: Exception, budget: int) -> float:
    def by_dill(sample: Sequence[Any], meter: _Meter) -> None:
        meter.write(dump_by_dill(sample, error, meter.leave_out))

    try:
        return min(_measure(one, budget, by_dill), _measure(one, budget, by_dill)).cost
    except Exception:  # noqa: BLE001 - as above: it cannot be sent
        return float("inf")


def _measure(sample: Sequence[Any], budget: int, dump: Dump) -> _Measured:
    meter = _Meter(budget)
    complete = True
    started = thread_time()
    try:
        dump(sample, meter)
    except _EnoughError:
        complete = False
    seconds = thread_time() - started
    moved = meter.written * _SECONDS_PER_BYTE + meter.out_of_band * _SECONDS_PER_BYTE_LEFT_OUT
    return _Measured(seconds, seconds * _BOTH_ENDS + moved, complete)


def _dump(sample: Sequence[Any], meter: _Meter) -> None:
    # The definitions of classes travel once, so they are left out here.
    dump(sample, meter, meter.leave_out, {})


def _size_of_text(value: Any) -> int:
    # Encoding a long text cannot be ended half-way.
    return len(value) if isinstance(value, str) else 0
