"""A run whose initializer fails, hangs or asks for what it cannot have, as its arguments say."""

import sys
import time
import traceback

from dtm import dtm

what, ranks = sys.argv[1], [int(rank) for rank in sys.argv[2:]]


def prepare():
    if dtm.getWorkerId() not in ranks:
        return
    if what == "fails":
        raise OSError("no such device")
    if what == "asks":
        dtm.apply(abs, -1)
    if what == "hangs":
        time.sleep(1000)


def nap(x):
    time.sleep(0.001)
    return x


def main():
    while what != "hangs":
        dtm.map(nap, range(100))
    print("sum", sum(dtm.map(nap, range(300))))


dtm.setOptions(initializer=prepare)
try:
    dtm.start(main)
except Exception as error:
    traceback.print_exc()
    print(type(error).__name__, error)
