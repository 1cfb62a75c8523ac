"""A map whose item 3 takes a second and then kills the root, as a batch system kills a job."""

import os
import signal
import time

from dtm import dtm


def work(item):
    number, root = item
    if number == 3:
        time.sleep(1.0)
        os.kill(root, signal.SIGKILL)
        time.sleep(60.0)


def main():
    dtm.map(work, [(number, os.getpid()) for number in range(8)])


dtm.start(main)
