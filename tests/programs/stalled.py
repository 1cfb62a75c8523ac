"""A task that hangs for long, beneath a task that waits for it, and who is told to ask."""

import os
import sys
import time

from dtm import dtm


def hang(number):
    if number == 3:
        time.sleep(float(sys.argv[1]))
    return number


def outer(number):
    return dtm.map(hang, [1, 2, 3])


def main():
    print(os.getpid(), flush=True)
    for _ in range(3):
        dtm.map(abs, range(2000))
    print(dtm.map(outer, [7]), flush=True)


dtm.start(main)
