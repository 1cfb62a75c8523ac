"""Arrays and bytes of every kind, large, in items, results and functions: ``large_data.py HOW``."""

from __future__ import annotations

import functools
import os
import resource
import signal
import sys
import time
from array import array
from collections.abc import Callable
from pathlib import Path
from pickle import PickleBuffer
from typing import Any

import numpy as np
import scenarios

from dtm import dtm

COUNT = 1 << 20
NAP = 0.01


class Holder:
    """Keeps its bytes out of the pickle, read-only at both ends."""

    def __init__(self, data: Any) -> None:
        self.data = data

    def __reduce_ex__(self, _: Any) -> Any:
        return Holder, (PickleBuffer(self.data),)


def values() -> dict[str, Any]:
    """Return large things of every kind."""
    line = np.arange(COUNT, dtype=np.uint8)
    pair = np.zeros(COUNT // 8, dtype=[("a", "f4"), ("b", "i4")])
    pair["b"] = np.arange(len(pair))
    fixed = line.copy()
    fixed.flags.writeable = False
    return {
        "plain": line,
        "fortran": np.asfortranarray(line.reshape(512, -1).astype(float)),
        "slice": line.reshape(1024, -1)[::2, ::2],
        "structured": pair,
        "empty": np.zeros((0, 7)),
        "objects": np.array([line[:5], "x", None], dtype=object),
        "big-endian": np.arange(COUNT // 4).astype(">i8"),
        "read-only": fixed,
        "matrix": np.ones((64, 64, 64), np.complex128),
        "bytes": bytes(line),
        "bytearray": bytearray(line),
        "array": array("d", range(COUNT // 8)),
        "nested": [{"x": line, "y": (line[:10], bytes(line))}, line],
        "pickle buffer": Holder(bytes(line)),
        "text": "ä" * COUNT,
    }


def same(one: Any, other: Any) -> bool:
    """Tell whether two of these are of one type, kind and value."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        alike = one.dtype == other.dtype and one.flags.writeable == other.flags.writeable
        if one.dtype == object:
            return alike and all(map(same, one, other))
        return alike and np.array_equal(one, other) and one.flags.fnc == other.flags.fnc
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Holder):
        return bytes(one.data) == bytes(other.data)
    return bool(one == other)


def lies_in_segment(found: np.ndarray) -> bool:
    """Tell whether an array lies in memory that another process has written."""
    address = found.__array_interface__["data"][0]
    for line in Path("/proc/self/maps").read_text().splitlines():
        begin, end = (int(part, 16) for part in line.split()[0].split("-"))
        if begin <= address < end:
            return "/memfd:dtm-" in line
    return False


def back(name: str, value: Any) -> tuple[str, Any]:
    """Give back what came."""
    time.sleep(NAP)
    return name, value


def mutated(item: np.ndarray) -> tuple[int, bool, np.ndarray]:
    """Change an array in place, as operators of evolutionary algorithms do."""
    time.sleep(NAP)
    item += 1
    return dtm.getWorkerId(), lies_in_segment(item), item


def of_closure(table: np.ndarray) -> Callable[[int], tuple[int, bool, int]]:
    """Return a function with a large table."""

    def look(index: int) -> tuple[int, bool, int]:
        time.sleep(NAP)
        return dtm.getWorkerId(), lies_in_segment(table), int(table[index])

    return look


def looked(table: np.ndarray, index: int) -> tuple[int, bool, int]:
    """The same, for a partial."""
    return of_closure(table)(index)


def generation(number: int) -> int:
    """Run one map of large items and results; return the descriptors of the root."""
    items = [np.full(COUNT, number % 256, np.uint8) for _ in range(4)]
    done = dtm.map(mutated, items)
    assert all((value == (number + 1) % 256).all() for _, _, value in done)
    return len(os.listdir("/proc/self/fd"))


def check_kinds() -> None:
    """All arrive there and back as they are."""
    expected = values()
    for _ in range(2):
        for name, value in dtm.starmap(back, list(expected.items()) * 2):
            print(name, same(value, expected[name]))


def check_places(size: int) -> None:
    """Items, results and functions lie in shared memory where they came from others."""
    items = [np.full(COUNT, number, np.uint8) for number in range(8 * size)]
    done = dtm.map(mutated, items)
    assert [int(value[-1]) for _, _, value in done] == [number + 1 for number in range(8 * size)]
    print("items", {(bool(rank), shared) for rank, shared, _ in done})
    print("results", {(bool(rank), lies_in_segment(value)) for rank, _, value in done})
    table = np.arange(COUNT, dtype=np.uint8)
    for name, function in (
        ("closure", of_closure(table)),
        ("partial", functools.partial(looked, table)),
    ):
        found = dtm.map(function, range(8 * size))
        assert [value for _, _, value in found] == list(range(8 * size))
        print(name, {(bool(rank), shared) for rank, shared, _ in found})


def check_growth() -> None:
    """Nothing that was opened stays open."""
    for number in range(20):
        early = generation(number)
    late = max(generation(number) for number in range(int(sys.argv[2])))
    print("grown", late - early > 20)


def deadly(item: np.ndarray) -> None:
    """Kill another worker while memory is shared with it."""
    time.sleep(NAP)
    if dtm.getWorkerId():
        os.kill(os.getpid(), signal.SIGKILL)


def main() -> None:
    """Do what is asked for."""
    size = dtm.size()
    scenarios.gather(size)
    if sys.argv[1] == "kinds":
        check_kinds()
    elif sys.argv[1] == "places":
        check_places(size)
    elif sys.argv[1] == "killed":
        dtm.map(deadly, [np.full(COUNT, number, np.uint8) for number in range(20 * size)])
    else:
        check_growth()


if __name__ == "__main__":
    if sys.argv[-1] == "small":  # no file in memory may be larger
        resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 18, 1 << 18))
    dtm.start(main)
