"""Maps over workers of several hosts; prints one JSON line of what came of it.

``spread.py LINE`` first prints ``ready`` when as many workers as LINE says have joined;
``spread.py LINE for-ever`` then goes on until it is stopped.
"""

from __future__ import annotations

import json
import sys
import time

from dtm import dtm


def square(x: int) -> int:
    return x * x


def nested(depth: int) -> int:
    if depth == 0:
        time.sleep(0.002)
        return 1
    return sum(dtm.map(nested, [depth - 1] * 3))


def who(_: object) -> int:
    time.sleep(0.01)
    return dtm.getWorkerId()


def doze(_: object) -> int:
    time.sleep(0.02)
    return dtm.getWorkerId()


def await_workers(wanted: int) -> set[int]:
    seen: set[int] = set()
    deadline = time.monotonic() + 60.0
    while len(seen) < wanted and time.monotonic() < deadline:
        seen |= set(dtm.map(who, range(4 * wanted)))
    return seen


def main() -> None:
    wanted = int(sys.argv[1])
    seen = await_workers(wanted)
    print("ready", len(seen), flush=True)
    while "for-ever" in sys.argv:
        dtm.map(doze, range(100))
    print(
        json.dumps(
            {
                "workers": sorted(seen),
                "squares": sum(dtm.map(square, range(100_000))),
                "leaves": dtm.apply(nested, 6),
                "large": sum(map(len, dtm.map(bytes, [1 << 20] * 16))),
            }
        ),
        flush=True,
    )


if __name__ == "__main__":
    dtm.start(main)
