"""A map of many short naps, for traces of many workers."""

import sys
import time

from dtm import dtm


def nap(number):
    time.sleep(1e-4)
    return number


def main(count):
    assert dtm.map(nap, range(count)) == list(range(count))
    print("all there")


dtm.start(main, int(sys.argv[1]))
