"""No map is ever slower than 1.5 x serial + 1 ms: a grid of items.

Cells are kinds of items (ints, arguments and results that are large to pickle,
arguments that cannot be pickled) x what an item costs x how large it is x how many
there are; and for small items that cost something also what goes along with the function,
an array of up to 400 MB that is new for each map.  Each is mapped serially and by the library in
turns; what is judged is the worst cell's median time over what it is allowed.

With ``cold=1`` each map has a function of its own, whose code nothing is known of.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from itertools import count, product
from statistics import median
from types import FunctionType
from typing import Any, NamedTuple

import numpy as np

from benchmarks.programs.harness import Request, Result, play, result, seconds_of
from benchmarks.programs.libraries import Library, Serial
from benchmarks.programs.work import spin, turns_in

COSTS = (0.0, 1e-6, 1e-5, 1e-4, 1e-3)
SIZES = (100, 10_000, 1_000_000)
COUNTS = (1, 2, 10, 100, 1000, 10_000)
PAYLOADS = (1_000_000, 10_000_000, 100_000_000, 400_000_000)
LONGEST = 0.1  # seconds of serial work in a cell
LARGEST = 100_000_000  # bytes in a cell
SHOWN = 3


class Item(NamedTuple):
    """What one call gets: the turns to spin, how much to return, and a burden."""

    turns: int
    returned: int
    burden: Any


class Cell(NamedTuple):
    """One kind of map."""

    kind: str
    cost: float
    size: int
    length: int
    payload: int = 0

    def __str__(self) -> str:
        """Say it in a few words."""
        along = f" along with {self.payload // 1_000_000} MB" if self.payload else ""
        return f"{self.kind} {self.size} B x {self.length}, {self.cost * 1e6:.0f} µs{along}"


def handle(item: Item, along: Any = None) -> bytes:
    if along is not None and not along[-1]:
        raise ValueError("what goes along has not arrived")
    if item.turns:
        spin(item.turns)
    return bytes(item.returned)


def tiny(_size: int) -> tuple[int, Any]:
    return 0, None


def large_argument(size: int) -> tuple[int, Any]:
    return 0, bytes(size)


def many_objects(size: int) -> tuple[int, Any]:
    return 0, [float(number) for number in range(size // 32)]


def large_result(size: int) -> tuple[int, Any]:
    return size, None


def iter_nothing() -> Iterator[int]:
    yield from ()


def unpicklable(_size: int) -> tuple[int, Any]:
    return 0, iter_nothing()


KINDS: dict[str, Callable[[int], tuple[int, Any]]] = {
    "tiny": tiny,
    "large argument": large_argument,
    "many objects": many_objects,
    "large result": large_result,
    "unpicklable": unpicklable,
}
SIZELESS = ("tiny", "unpicklable")


def cells(*, quick: bool) -> Iterator[Cell]:
    counts, costs = (COUNTS[1::2], COSTS[::2]) if quick else (COUNTS, COSTS)
    longest = LONGEST / 10 if quick else LONGEST
    for kind, cost, length in product(KINDS, costs, counts):
        for size in SIZES[:1] if kind in SIZELESS else SIZES:
            if cost * length <= longest and (kind in SIZELESS or size * length <= LARGEST):
                yield Cell(kind, cost, size, length)
    for payload, cost, length in product(PAYLOADS[1::2] if quick else PAYLOADS, costs, counts):
        if cost > 0.0 and cost * length <= longest:
            yield Cell("tiny", cost, SIZES[0], length, payload)


_numbers = count(1)


def function_of(cell: Cell, *, cold: bool) -> Callable[[Item], bytes]:
    """Return the function of a cell, with an array that no map had before."""
    number, function = next(_numbers), handle
    if cold:
        code = handle.__code__.replace(co_firstlineno=number)
        function = FunctionType(code, globals(), "handle", handle.__defaults__)
    if not cell.payload:
        return function
    return partial(function, along=np.full(cell.payload // 8, float(number)))


def items_of(cell: Cell, turns_a_second: float) -> Sequence[Item]:
    turns = round(cell.cost * turns_a_second)
    make = KINDS[cell.kind]
    return [Item(turns, *make(cell.size)) for _ in range(cell.length)]


def excess(
    library: Library, cell: Cell, items: Sequence[Item], repetitions: int, *, cold: bool
) -> float:
    """Return the median time of the map over what it is allowed."""
    serial = Serial()
    alone, mapped = [], []
    for _ in range(repetitions):
        function = function_of(cell, cold=cold)
        alone.append(seconds_of(serial.map, function, items))
        mapped.append(seconds_of(library.map, function, items))
    return median(mapped) / (1.5 * median(alone) + 1e-3)


def measure(library: Library, request: Request) -> Result:
    turns_a_second = turns_in(0.02) / 0.02
    repetitions, cold = 3 if request.quick else 5, "cold" in request.settings
    found: list[tuple[float, Cell]] = []
    raised: list[str] = []
    for cell in cells(quick=request.quick):
        items = items_of(cell, turns_a_second)
        try:
            found.append((excess(library, cell, items, repetitions, cold=cold), cell))
        except Exception as error:
            raised.append(f"{cell}: {type(error).__name__}")
    found.sort(reverse=True)
    slow = sum(ratio > 1.0 for ratio, _ in found)
    worst = "; ".join(f"{cell}: {ratio:.2f}" for ratio, cell in found[:SHOWN])
    note = f"{slow} of {len(found)} cells over, worst: {worst}"
    if raised:
        note += f"; {len(raised)} raised, as {raised[0]}"
    ratios = [ratio for ratio, _ in found]
    return result(ratios, [float("inf") if raised else max(ratios)], note)


if __name__ == "__main__":
    play(measure)
