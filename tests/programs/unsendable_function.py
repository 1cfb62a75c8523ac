"""Several calls of a function that cannot be sent: they run here, and one line says so."""

from __future__ import annotations

import sys
import threading
import time

import scenarios

from dtm import dtm


class Guarded:
    """A callable that cannot be pickled."""

    def __init__(self) -> None:
        self.lock = threading.Lock()

    def __call__(self, item: int) -> int:
        """Work, on one worker alone."""
        time.sleep(0.005)
        with self.lock:
            return item + dtm.getWorkerId()


def main() -> None:
    """Print whether all is as the plain loop has it."""
    scenarios.gather(int(sys.argv[1]))
    guarded = Guarded()
    print(all(dtm.map(guarded, range(60)) == list(range(60)) for _ in range(3)))


if __name__ == "__main__":
    dtm.start(main)
