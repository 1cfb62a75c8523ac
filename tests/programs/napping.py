"""Naps of known lengths in maps and nested maps: what a prediction can be held against."""

import random
import time

from dtm import dtm


def nap(seconds):
    time.sleep(seconds)
    return dtm.getWorkerId()


def family(seconds):
    time.sleep(0.01)
    dtm.map(nap, [seconds] * 4)
    return dtm.getWorkerId()


def main():
    lengths = random.Random(1)
    while len(set(dtm.map(nap, [0.02] * 6))) < 2:  # until the others are there
        pass
    dtm.map(nap, [lengths.uniform(0.005, 0.03) for _ in range(60)])
    time.sleep(0.1)
    dtm.map(family, [0.01] * 12)
    results = [dtm.apply_async(nap, 0.04) for _ in range(6)]
    [each.get() for each in results]


dtm.start(main)
