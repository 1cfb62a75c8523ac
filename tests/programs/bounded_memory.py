"""A new closure over 10 MB for each generation: the memory of the workers must not grow."""

from __future__ import annotations

import gc
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

import scenarios

from dtm import dtm

SIZE = 10 << 20


def resident() -> int:
    """Return the bytes of memory that this process has in use."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096


def look(data: bytes, item: int) -> tuple[int, int, int]:
    """Use the data of this generation."""
    time.sleep(0.01)
    return data[item], dtm.getWorkerId(), resident()


def generation(number: int, how: str) -> dict[int, int]:
    """Run one map; return the memory of each worker."""
    data = bytes([number % 256]) * SIZE
    function: Any = partial(look, data)
    if how == "closure":
        function = lambda item: look(data, item)
    found = dtm.map(function, range(8 * int(sys.argv[1])))
    assert {value for value, _, _ in found} == {number % 256}
    return {worker: memory for _, worker, memory in found}


def main() -> None:
    """Print how many megabytes each worker has grown by since the fifth generation."""
    gc.disable()  # what goes must go by itself
    scenarios.gather(int(sys.argv[1]))
    for how in ("closure", "partial"):
        first: dict[int, int] = {}
        grown: dict[int, int] = {}
        for number in range(40):
            memory = generation(number, how)
            if number < 5:
                first |= memory
            for worker, now in memory.items():
                grown[worker] = (now - first.get(worker, now)) >> 20
        print(how, max(grown.values()))


if __name__ == "__main__":
    dtm.start(main)
