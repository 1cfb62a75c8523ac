"""A task spoils what imports need, then fails by itself: its own error must come home."""

from __future__ import annotations

import sys
import time

import scenarios

from dtm import dtm


def spoil(item: int) -> int:
    """Empty the path of imports on the workers; fail."""
    time.sleep(0.01)
    if dtm.getWorkerId():
        sys.path[:] = []
        sys.path_importer_cache.clear()
        raise ValueError("its own error")
    return item


def main() -> None:
    """Print what comes home."""
    scenarios.gather(int(sys.argv[1]))
    try:
        dtm.map(spoil, range(100))
    except ValueError as error:
        print(error)


if __name__ == "__main__":
    dtm.start(main)
