"""Maps, nested maps, single calls and slow items, for the tests of traces."""

import os
import sys
import time
from pathlib import Path
from tempfile import gettempdir

from dtm import dtm


def spin(seconds):
    until = time.perf_counter() + seconds
    while time.perf_counter() < until:
        pass
    return os.getpid()


def inner(count):
    return len(dtm.map(spin, [5e-4] * count))


def slow(number):
    time.sleep(0.05 * number)
    if number == 6 and "kill" in sys.argv:
        os.kill(os.getpid(), 9)
    return os.getpid()


def meet():
    """Wait for the others, or the work would be over before they join on a busy machine.

    By files in the directory of this run for temporary ones: items would stand in the trace.
    """
    until = time.monotonic() + 30
    while len(list(Path(gettempdir()).glob("arrived-*"))) < dtm.size():
        assert time.monotonic() < until
        time.sleep(0.01)
    time.sleep(0.05)


def main():
    meet()
    spin(0.02)
    dtm.map(spin, [2e-4] * 400)
    dtm.map(inner, [20] * 10)
    dtm.apply(spin, 1e-3)
    dtm.map(slow, [1, 2, 3, 6, 1])
    print("done", flush=True)


Path(gettempdir(), f"arrived-{os.getpid()}").touch()
dtm.start(main)
