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

The encoding of a text cannot be ended half-way, and of a list not before 64 KiB are there.  So it
is looked first how long the texts and containers are that are near the surface of what goes along
with a function: what is large for sure is not pickled to find that out.

What is cold is not counted: an item that takes long is measured again, for the first of its
class makes the definition of the class, and the first that goes by dill imports it.

What comes out is a guess for large items; infinity for what cannot be sent at all.

Threads: any.

Rejected: pickling the whole slice and looking at its length (the cost is then paid
before it is known), and guessing from the types (a list may hold anything).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from contextlib import suppress
from functools import partial
from itertools import islice
from pickle import PickleBuffer
from time import thread_time
from types import FunctionType, MethodType, ModuleType
from typing import Any, Final, NamedTuple

from dtm.wire.globals_read import globals_read
from dtm.wire.imports import imports
from dtm.wire.pickling import dump, dump_by_dill

SAMPLE: Final = 16

FEW: Final = 4
"""The sample of items that take long each, to see what they share."""

SECONDS_PER_BYTE_OF_FUNCTION: Final = 3e-9
"""A digest of it is made, it is sent, and it is read."""

SECONDS_PER_BYTE_SHARED: Final = 1e-9
"""The same where it is written to shared memory and read from there."""

TRIED: Final = 0.2
LEAST_SECONDS: Final = 0.2e-3
MOST_SECONDS: Final = 0.5

_NO_LIMIT = 1 << 60
_CONTAINERS = list, tuple, set, frozenset, dict
_SECONDS_PER_CHARACTER = 0.5e-9  # to encode it
_CHARACTERS = 10  # cost as much as what a container holds, at least
_DEEPEST = 3
_FIRST = 16  # of what a container holds are looked at
_BOTH_ENDS = 3.0  # pickling here, loading there (slower than pickling), and the hand-over
_SECONDS_PER_BYTE = 2e-9  # both ends, measured: large pickles are copied at every step
_SECONDS_PER_BYTE_LEFT_OUT = 1e-9  # a buffer that travels as it is
_SLOW = 50e-6  # of items that take this long to pickle few are sample enough
_REPEATS = 3
_TOO_SLOW = 250e-6  # one that takes this long is enough, and so many are not tried again
_MORE = 2.0  # times what was measured is what an item costs of which the end was not seen
_TOO_DEAR = 80.0  # times what is near enough: no sample is so much cheaper than one by itself
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


def may_take(saved: float) -> float:
    """Return the seconds that may be spent on finding out what bringing a function costs."""
    return max(LEAST_SECONDS, saved * TRIED)


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
    # Cold, perhaps; but what was not written to its end is large.
    if cost < float("inf") and _SLOW / _BOTH_ENDS < thread_time() - started < _MUCH_TOO_SLOW:
        cost = min(cost, _cost_of_function(function, saved, seconds_per_byte))
    return cost


def _cost_of_function(function: Any, saved: float, seconds_per_byte: float) -> float:
    tried = may_take(saved)
    if _characters_in(function, _DEEPEST) * _SECONDS_PER_CHARACTER > tried:
        return float("inf")
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


def _characters_in(value: Any, depth: int) -> int:
    """Return how many characters cost no more than what is near the surface of an object."""
    kind = type(value)
    if kind is str:
        return len(value)
    found = 0
    with suppress(Exception):  # the objects' own methods may raise anything
        if isinstance(value, _CONTAINERS):
            found = len(value) * _CHARACTERS
        if depth:
            found += sum(_characters_in(each, depth - 1) for each in _held_by(value))
    return found


def _held_by(value: Any) -> Iterable[Any]:
    if isinstance(value, FunctionType):
        return () if imports.have(value) else _held_by_function(value)
    if isinstance(value, (ModuleType, type)):
        return ()
    if isinstance(value, partial):
        return value.func, value.args, value.keywords
    if isinstance(value, MethodType):
        return value.__func__, value.__self__
    if isinstance(value, _CONTAINERS):
        return islice(value.values() if isinstance(value, dict) else value, _FIRST)
    return islice(vars(value).values(), _FIRST)


def _held_by_function(function: FunctionType) -> list[Any]:
    held = [*(function.__defaults__ or ()), *(function.__kwdefaults__ or {}).values()]
    for cell in function.__closure__ or ():
        with suppress(ValueError):  # it is empty
            held.append(cell.cell_contents)
    names = function.__globals__
    if imports.lacks(names.get("__name__", "__main__")):
        held += globals_read(function.__code__, names).values()
    return held


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
    first = _measure(one, budget, _dump)
    if not first.complete:
        characters = _characters_in(one[0], _DEEPEST)
        seconds = characters * _SECONDS_PER_CHARACTER
        least = seconds * _BOTH_ENDS + characters * _SECONDS_PER_BYTE
        return _MORE * max(first.cost, least)
    if first.cost < near_enough:
        return first.cost
    if _SLOW < first.seconds < _MUCH_TOO_SLOW:  # cold, perhaps
        first = min(first, _measure(one, budget, _dump))
    # One that is so slow, or so dear, is enough: a sample would not be worth its time.
    dear = first.seconds > _SLOW and first.cost > near_enough * _TOO_DEAR > 0
    if first.seconds > _TOO_SLOW or dear:
        return first.cost
    return first.cost if len(values) == 1 else _among(first, values, middle, budget)


def _among(first: _Measured, values: Sequence[Any], middle: int, budget: int) -> float:
    """Return what an item costs among others, ``first`` being what one costs by itself."""
    dump, one = _dump, values[middle : middle + 1]
    sample = _around(values, middle, SAMPLE if first.seconds < _SLOW else FEW)
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
