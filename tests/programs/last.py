"""All workers meet; then ``main`` waits for a file, ``cut`` in TMPDIR, and returns at once."""

from __future__ import annotations

import os
import time

from dtm import dtm


def who(_: object) -> int:
    time.sleep(0.02)
    return dtm.getWorkerId()


def main() -> None:
    seen: set[int] = set()
    while len(seen) < 7:
        seen |= set(dtm.map(who, range(50)))
    print("reached", len(seen), flush=True)
    while not os.path.exists(os.path.join(os.environ["TMPDIR"], "cut")):
        time.sleep(0.01)


if __name__ == "__main__":
    dtm.setOptions(printSummary=True)
    dtm.start(main)
